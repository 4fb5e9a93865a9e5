"""The grammar of expressions: text to a tree, with the place of everything and every slip at once.

    or        := and ("or" and)*
    and       := not ("and" not)*
    not       := "not" not | compared
    compared  := sum (("==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not in") sum)?
    sum       := product (("+" | "-") product)*
    product   := unary (("*" | "/") unary)*
    unary     := "-" unary | primary
    primary   := number | duration | text | "true" | "false" | "null" | list | "(" or ")" | name | function "(" ... ")"

Names may hold hyphens, so a minus stands between spaces. After a dot any word is a name.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from shared.language.lexer import Lexer, Token
from shared.language.problems import Remark, first_of_each
from shared.language.tree import (
    COMPARISONS,
    Argument,
    Binary,
    Broken,
    Call,
    ListOf,
    Literal,
    Logic,
    Name,
    Node,
    Unary,
    children,
)

MAX_LENGTH: Final = 4_000
"""Characters of one expression."""
MAX_DEPTH: Final = 24
"""How deep brackets and calls may be nested."""
MAX_HEIGHT: Final = 60
"""How high a tree may be: brackets, and a level for each term of a sum."""
MAX_NODES: Final = 600
"""Names, values and operators in one expression."""


class _GivenUp(Exception):
    """Too deep or too large to go on; the problem has been noted."""


class Parser:
    """Tokens to a tree, by recursive descent with one function per level of the grammar."""

    def __init__(self, text: str) -> None:
        lexer = Lexer(text)
        self.text = text
        self.tokens = lexer.tokens()
        self.problems = lexer.problems
        self.at = 0
        self.depth = 0
        self.nodes = 0

    # -- steps

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.token
        if token.kind != "end":
            self.at += 1
        self.nodes += 1
        if self.nodes > MAX_NODES:
            message = f"This expression has more than {MAX_NODES} parts."
            self.note(token, "size", message, "Split it, or make a segment of a part of it.")
            raise _GivenUp
        return token

    def taken(self, kind: str) -> bool:
        if self.token.kind != kind:
            return False
        self.take()
        return True

    def note(self, token: Token | Node, code: str, message: str, remedy: str) -> None:
        self.problems.append(Remark(token.offset, max(token.end - token.offset, 1), code, message, remedy))

    def shown(self, token: Token) -> str:
        if token.kind == "end":
            return "the end"
        text = self.text[token.offset : token.end]
        return text if text.startswith(('"', "'")) else f'"{text}"'

    # -- the grammar

    def expression(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            message = f"This is nested deeper than {MAX_DEPTH} levels."
            self.note(self.token, "size", message, "Make it flatter, or make a segment of a part of it.")
            raise _GivenUp
        node = self.logic("or", self.conjunction)
        self.depth -= 1
        return node

    def conjunction(self) -> Node:
        return self.logic("and", self.negation)

    def logic(self, operator: str, operand: Callable[[], Node]) -> Node:
        first = last = operand()
        operands = [*_operands(first, operator)]
        while self.taken(operator):
            last = operand()
            operands += _operands(last, operator)
        return first if first is last else Logic(first.offset, last.end, operator, tuple(operands))

    def negation(self) -> Node:
        nots: list[Token] = []
        while self.token.kind == "not":
            nots.append(self.take())
        node = self.comparison()
        for token in reversed(nots[-2:] if len(nots) > 2 else nots):
            node = Unary(token.offset, node.end, "not", node)
        if len(nots) > 2:
            self.note(nots[0], "nots", "This is negated more than twice.", "Write one not, or none.")
        return node

    def comparison(self) -> Node:
        left = self.sum()
        operator = self.comparing()
        if operator is None:
            return left
        right = self.sum()
        node: Node = Binary(left.offset, right.end, operator, left, right)
        while True:
            again = self.token
            operator = self.comparing()
            if operator is None:
                return node
            message = "Comparisons cannot be chained."
            self.note(again, "chain", message, 'Compare twice, joined by "and": a < b and b < c.')
            self.sum()

    def comparing(self) -> str | None:
        token = self.token
        if token.kind == "=":
            self.note(token, "symbol", '"=" alone compares nothing.', 'Write "==".')
            self.take()
            return "=="
        if token.kind == "not" and self.tokens[self.at + 1].kind == "in":
            self.take()
            self.take()
            return "not in"
        if token.kind in COMPARISONS:
            self.take()
            return token.kind
        return None

    def sum(self) -> Node:
        left = self.product()
        while self.token.kind in ("+", "-"):
            token = self.take()
            if token.kind == "-" and not self._spaced(token):
                message = "A minus stands between spaces, since names may hold hyphens."
                self.note(token, "minus", message, 'Write " - ".')
            right = self.product()
            left = Binary(left.offset, right.end, token.kind, left, right)
        return left

    def _spaced(self, token: Token) -> bool:
        around = self.text[token.offset - 1 : token.offset] + self.text[token.end : token.end + 1]
        return len(around) == 2 and around.isspace()

    def product(self) -> Node:
        left = self.unary()
        while self.token.kind in ("*", "/"):
            token = self.take()
            right = self.unary()
            left = Binary(left.offset, right.end, token.kind, left, right)
        return left

    def unary(self) -> Node:
        token = self.token
        if token.kind != "-":
            return self.primary()
        self.take()
        if self.token.kind == "-":
            self.note(self.token, "minus", "Two minuses cancel each other.", "Remove both.")
            while self.token.kind == "-":
                self.take()
        operand = self.primary()
        if isinstance(operand, Literal) and type(operand.value) in (int, float, timedelta):
            return Literal(token.offset, operand.end, -operand.value)  # type: ignore[operator]
        return Unary(token.offset, operand.end, "-", operand)

    def primary(self) -> Node:
        token = self.token
        match token.kind:
            case "literal":
                self.take()
                return self._joined(Literal(token.offset, token.end, token.value))
            case "word":
                self.take()
                word = str(token.value)
                if self.token.kind == "(":
                    return self._joined(self.call(token, word))
                return self._joined(Name(token.offset, token.end, tuple(word.split("."))))
            case "(":
                self.take()
                inner = self.expression()
                if self.token.kind == ",":
                    self.note(token, "list", "A list stands in [ and ].", 'Write ["a", "b"].')
                    self.take()
                    others = self.items(")")
                    return self._joined(ListOf(token.offset, self.close(")", token), (inner, *others)))
                self.close(")", token)
                return self._joined(inner)
            case "[":
                self.take()
                items = self.items("]")
                end = self.close("]", token)
                return self._joined(ListOf(token.offset, end, tuple(items)))
        return self.missing()

    def missing(self) -> Node:
        token = self.token
        if token.kind == "end":
            if len(self.tokens) == 1:
                self.note(token, "empty", "There is no expression here.", 'Write one, such as traits.country == "NO".')
            else:
                self.note(token, "missing", "Something is missing at the end.", "Complete it, or remove the last word.")
        else:
            message = f"A name, a value or a bracket is missing before {self.shown(token)}."
            self.note(token, "missing", message, f"Write one, or remove {self.shown(token)}.")
        return Broken(token.offset, token.offset)

    def _joined(self, node: Node) -> Node:
        """The node; two things side by side, which is a common slip (`"a" "b"`, `count 3`), are noted once."""
        token = self.token
        if token.kind in ("literal", "word") or (token.kind == "(" and not isinstance(node, Name)):
            message = f"An operator is missing before {self.shown(token)}."
            remedy = 'Write "and", "or", "==" or another one between the two.'
            if token.value in ("is", "equals", "eq"):
                remedy = 'Write "==" instead.'
            self.note(token, "missing", message, remedy)
            while self.token.kind in ("literal", "word"):
                self.take()
        return node

    def call(self, name: Token, function: str) -> Node:
        bracket = self.take()
        arguments: list[Node] = []
        named: list[Argument] = []
        while self.token.kind not in (")", "end"):
            here = self.token
            if here.kind == "word" and self.tokens[self.at + 1].kind == "=":
                self.take()
                self.take()
                value = self.expression()
                named.append(Argument(here.offset, value.end, str(here.value), value))
            else:
                argument = self.expression()
                if named:
                    message = "An argument without a name stands behind one with a name."
                    self.note(argument, "arguments", message, "Put those with a name last.")
                arguments.append(argument)
            if not self.taken(","):
                break
        end = self.close(")", bracket)
        return Call(name.offset, end, function, tuple(arguments), tuple(named))

    def items(self, closing: str) -> list[Node]:
        found: list[Node] = []
        while self.token.kind not in (closing, "end"):
            found.append(self.expression())
            if not self.taken(","):
                break
        return found

    def close(self, closing: str, opened: Token) -> int:
        token = self.token
        if token.kind == closing:
            self.take()
            return token.end
        message = f'The "{opened.kind}" here is not closed.'
        if token.kind != "end":
            message = f'Before {self.shown(token)} a "{closing}" or a comma is missing.'
            self.note(token, "unclosed", message, f'Close the bracket with "{closing}".')
            while self.token.kind not in (closing, "end"):
                self.take()
            self.taken(closing)
        else:
            self.note(opened, "unclosed", message, f'Close it with "{closing}".')
        return token.end

    def whole(self) -> Node:
        node = self.expression()
        token = self.token
        if token.kind != "end":
            if token.kind in (")", "]"):
                message, remedy = f"{self.shown(token)} closes nothing.", "Remove it, or open the bracket before."
            elif token.kind == ",":
                message, remedy = "A comma stands only in lists and between arguments.", "Remove it, or write [a, b]."
            else:
                message, remedy = f"{self.shown(token)} is not expected here.", "Remove it, or what stands before it."
            self.note(token, "unexpected", message, remedy)
        return node


def parse(text: str) -> tuple[Node, list[Remark]]:
    """The tree of a text and every slip in it; with a slip the tree may hold `Broken`, and is good only for finding
    more of them."""
    if len(text) > MAX_LENGTH:
        message = f"This expression is {len(text)} characters long; the most is {MAX_LENGTH}."
        return Broken(0, 0), [Remark(0, 1, "size", message, "Split it, or make a segment of a part of it.")]
    parser = Parser(text)
    try:
        node = parser.whole()
    except _GivenUp:
        node = Broken(0, 0)
    if _height(node) > MAX_HEIGHT:
        message = f"This calculation has more than {MAX_HEIGHT} steps."
        parser.problems.append(Remark(0, len(text), "size", message, "Make it shorter."))
        node = Broken(0, 0)
    return node, first_of_each(parser.problems)


def _operands(node: Node, operator: str) -> tuple[Node, ...]:
    return node.operands if isinstance(node, Logic) and node.operator == operator else (node,)


def _height(node: Node) -> int:
    level, height = [node], 0
    while level:
        level, height = [child for parent in level for child in children(parent)], height + 1
    return height
