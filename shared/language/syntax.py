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

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from shared.language.durations import UNITS, DurationError, format_duration, parse_duration

MAX_LENGTH: Final = 4_000
"""Characters of one expression."""
MAX_DEPTH: Final = 24
"""How deep brackets and calls may be nested."""
MAX_HEIGHT: Final = 60
"""How high a tree may be: brackets, and a level for each term of a sum."""
MAX_NODES: Final = 600
"""Names, values and operators in one expression."""
MAX_PROBLEMS: Final = 20
"""More would be noise: one slip early in a text tends to be followed by others that are none."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something wrong or doubtful in an expression: where (0-based, in characters), what, and what to do."""

    offset: int
    length: int
    code: str
    message: str
    remedy: str


# --- the tree -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Node:
    """`offset` and `end` say where it stands in the text, and do not count when two trees are compared."""

    offset: int = field(compare=False)
    end: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Literal(Node):
    value: bool | int | float | str | timedelta | None


@dataclass(frozen=True, slots=True)
class ListOf(Node):
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Name(Node):
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """`not` or `-`."""

    operator: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Logic(Node):
    """`and` or `or` between two and more."""

    operator: str
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """A comparison or arithmetic."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Argument(Node):
    """An argument by name, `within=30d`."""

    name: str
    value: Node


@dataclass(frozen=True, slots=True)
class Call(Node):
    function: str
    arguments: tuple[Node, ...]
    named: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Broken(Node):
    """Where something was expected and not found; the problem has been noted."""


def children(node: Node) -> tuple[Node, ...]:
    match node:
        case ListOf(items=items):
            return items
        case Unary(operand=operand):
            return (operand,)
        case Logic(operands=operands):
            return operands
        case Binary(left=left, right=right):
            return (left, right)
        case Argument(value=value):
            return (value,)
        case Call(arguments=arguments, named=named):
            return (*arguments, *named)
    return ()


def walk(node: Node) -> Iterator[Node]:
    yield node
    for child in children(node):
        yield from walk(child)


# --- back to text ---------------------------------------------------------------------------------------------------

COMPARISONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">=", "in", "not in"})
_STRENGTH: Final = {"or": 1, "and": 2, "not": 3} | dict.fromkeys(COMPARISONS, 4) | {"+": 5, "-": 5, "*": 6, "/": 6}
_NEGATION: Final = 7


def render(node: Node) -> str:
    """The one way to write a tree: equal trees give equal texts, and the text parses to the tree."""
    match node:
        case Literal(value=value):
            return _render_literal(value)
        case ListOf(items=items):
            return "[" + ", ".join(map(render, items)) + "]"
        case Name(path=path):
            return ".".join(path)
        case Unary(operator=operator, operand=operand):
            strength = _STRENGTH["not"] if operator == "not" else _NEGATION
            space = " " if operator == "not" else ""
            return operator + space + _bracketed(operand, strength)
        case Logic(operator=operator, operands=operands):
            return f" {operator} ".join(_bracketed(operand, _STRENGTH[operator] + 1) for operand in operands)
        case Binary(operator=operator, left=left, right=right):
            strength = _STRENGTH[operator]
            compared = operator in COMPARISONS
            return f"{_bracketed(left, strength + compared)} {operator} {_bracketed(right, strength + 1)}"
        case Argument(name=name, value=value):
            return f"{name}={render(value)}"
        case Call(function=function, arguments=arguments, named=named):
            ordered = sorted(named, key=lambda argument: argument.name)
            return f"{function}({', '.join(map(render, (*arguments, *ordered)))})"
    raise TypeError(f"{type(node).__name__} has no text")


def _bracketed(node: Node, least: int) -> str:
    match node:
        case Binary(operator=operator) | Logic(operator=operator):
            strength = _STRENGTH[operator]
        case Unary(operator="not"):
            strength = _STRENGTH["not"]
        case Unary():
            strength = _NEGATION
        case _:
            return render(node)
    return render(node) if strength >= least else f"({render(node)})"


def _render_literal(value: bool | int | float | str | timedelta | None) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, float):
        return f"{value:f}" if "e" in repr(value) else repr(value)
    return str(value)


def _operands(node: Node, operator: str) -> tuple[Node, ...]:
    return node.operands if isinstance(node, Logic) and node.operator == operator else (node,)


# --- words ----------------------------------------------------------------------------------------------------------

KEYWORDS: Final = frozenset({"and", "or", "not", "in", "true", "false", "null"})

_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"[^\W\d][\w]*(?:-\w+)*(?:\.\w+(?:-\w+)*)*")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9:.+Z-]*)?")
_AFTER_NUMBER = re.compile(r"[\w.%]+")
_QUOTED = {quote: re.compile(rf"{quote}((?:[^{quote}\\]|\\.)*){quote}", re.DOTALL) for quote in "\"'"}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "t": "\t"}
_MEANT = {
    "&&": "and",
    "&": "and",
    "||": "or",
    "|": "or",
    "!": "not",
    "===": "==",
    "!==": "!=",
    "<>": "!=",
    "≠": "!=",
    "=>": ">=",
    "≥": ">=",
    "=<": "<=",
    "≤": "<=",
    "×": "*",
    "÷": "/",
    "//": "/",
    "**": "*",
    "−": "-",
    "–": "-",
}
"""Signs of other languages and keyboards, and ours."""
_SIGNS = {"==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "(", ")", "[", "]", ",", "="} | _MEANT.keys()
_SYMBOL = re.compile("|".join(re.escape(sign) for sign in sorted(_SIGNS, key=len, reverse=True)))
_CURLY = re.compile("[“”„«»]([^“”„«»]*)[“”„«»]|[‘’‚]([^‘’‚]*)[‘’‚]")


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is `literal`, `word`, the keyword or symbol itself, or `end`."""

    kind: str
    offset: int
    end: int
    value: bool | int | float | str | timedelta | None = None


def closest(word: str, known: Collection[str]) -> str | None:
    """What the writer may have meant."""
    matches = difflib.get_close_matches(word.lower(), sorted(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


class Lexer:
    """Text to tokens; what is no token is noted in `problems` and passed over."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.problems: list[Remark] = []

    def note(self, offset: int, end: int, code: str, message: str, remedy: str) -> None:
        self.problems.append(Remark(offset, max(end - offset, 1), code, message, remedy))

    def tokens(self) -> list[Token]:
        found: list[Token] = []
        at, text = 0, self.text
        while at < len(text):
            if space := _SPACE.match(text, at):
                at = space.end()
                continue
            token = self._word(at) or self._quoted(at) or self._number(at) or self._symbol(at)
            if token is None:
                at = self._skip(at)
            else:
                at = token.end
                found.append(token)
        found.append(Token("end", len(text), len(text)))
        return found

    def _word(self, at: int) -> Token | None:
        shape = _WORD.match(self.text, at)
        if shape is None:
            return None
        word = shape[0]
        if word in ("true", "false"):
            return Token("literal", at, shape.end(), word == "true")
        if word == "null":
            return Token("literal", at, shape.end(), None)
        if word in KEYWORDS:
            return Token(word, at, shape.end())
        if word.lower() in KEYWORDS or word in ("None", "nil", "undefined"):
            meant = word.lower() if word.lower() in KEYWORDS else "null"
            self.note(at, shape.end(), "keyword", f'"{word}" is not known.', f'Write "{meant}".')
            return self._meant(meant, at, shape.end())
        return Token("word", at, shape.end(), word)

    def _meant(self, keyword: str, at: int, end: int) -> Token:
        if keyword in ("true", "false", "null"):
            return Token("literal", at, end, {"true": True, "false": False, "null": None}[keyword])
        return Token(keyword, at, end)

    def _quoted(self, at: int) -> Token | None:
        if curly := _CURLY.match(self.text, at):
            content = curly[1] or curly[2] or ""
            message, remedy = f"{curly[0][0]} is no quotation mark for text.", f"Write '{content}'."
            self.note(at, curly.end(), "symbol", message, remedy)
            return Token("literal", at, curly.end(), content)
        quote = self.text[at]
        if quote not in _QUOTED:
            return None
        shape = _QUOTED[quote].match(self.text, at)
        if shape is None:
            self.note(at, len(self.text), "unclosed-text", "This quotation is not closed.", f"Close it with {quote} .")
            return Token("literal", at, len(self.text), self.text[at + 1 :])
        for escape in _ESCAPE.finditer(shape[1]):
            if escape[1] not in _ESCAPED:
                begin = at + 1 + escape.start()
                self.note(begin, begin + 2, "escape", f'"{escape[0]}" means nothing.', 'For a backslash write "\\\\".')
        content = _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[1]), shape[1])
        return Token("literal", at, shape.end(), content)

    def _number(self, at: int) -> Token | None:
        if day := _DAY.match(self.text, at):
            self.note(at, day.end(), "date", "A date stands in quotation marks.", f'Write date("{day[0]}").')
            return Token("literal", at, day.end(), day[0])
        shape = _NUMBER.match(self.text, at)
        if shape is None:
            return None
        tail = _AFTER_NUMBER.match(self.text, shape.end())
        if tail is not None:
            return self._duration(at, shape[0], tail[0], tail.end())
        digits = shape[0]
        if len(digits) > 15:
            self.note(at, shape.end(), "number", "This number is too long.", "Use at most 15 digits.")
            return Token("literal", at, shape.end(), 0)
        return Token("literal", at, shape.end(), float(digits) if "." in digits else int(digits))

    def _duration(self, at: int, digits: str, tail: str, end: int) -> Token:
        try:
            return Token("literal", at, end, parse_duration(digits + tail))
        except DurationError:
            pass
        word = digits + tail
        if len(tail) == 1 and tail in UNITS:
            self.note(at, end, "duration", f'"{word}" is longer than a hundred years.', "Write a shorter one.")
        elif tail == "%":
            share = f"{float(digits) / 100:g}"
            self.note(at, end, "number", f'"{word}" is not known in an expression.', f"Write {share}.")
        elif tail[0] in ".,_" or tail[0].isdigit() or re.fullmatch(r"e\d+", tail, re.IGNORECASE):
            self.note(
                at, end, "number", f'"{word}" is no number.', "Write digits, and a point before decimals: 1000.50"
            )
        else:
            remedy = "Write a whole number and one of m, h, d, w, such as 30m, 1h, 2d, 1w."
            self.note(at, end, "duration", f'"{word}" is neither a number nor a duration.', remedy)
        return Token("literal", at, end, timedelta(days=1) if tail[0].isalpha() else 1)

    def _symbol(self, at: int) -> Token | None:
        shape = _SYMBOL.match(self.text, at)
        if shape is None:
            return None
        sign = shape[0]
        meant = _MEANT.get(sign, sign)
        if meant != sign:
            self.note(at, shape.end(), "symbol", f'"{sign}" is not known.', f'Write "{meant}".')
        return Token(meant, at, shape.end())

    def _skip(self, at: int) -> int:
        """Note what stands here and is nothing; the offset after it."""
        character = self.text[at]
        if character == ".":
            message = "A point joins two names, or a number and its decimals."
            self.note(at, at + 1, "symbol", message, "Write traits.country, or 0.5.")
        else:
            self.note(at, at + 1, "symbol", f'"{character}" is not known.', "Remove it.")
        return at + 1


# --- the parser -----------------------------------------------------------------------------------------------------


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


def _height(node: Node) -> int:
    level, height = [node], 0
    while level:
        level, height = [child for parent in level for child in children(parent)], height + 1
    return height


def first_of_each(problems: Iterable[Remark]) -> list[Remark]:
    """In order of place, one for each place, and not more than a person reads."""
    by_place: dict[int, Remark] = {}
    for problem in problems:
        by_place.setdefault(problem.offset, problem)
    return [by_place[offset] for offset in sorted(by_place)][:MAX_PROBLEMS]
