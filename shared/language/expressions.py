"""Expressions of the playbook: text to a condition or value that is checked once and evaluated millions of times.

    compiled = compile_expression('count("Order Completed") >= 3', allowed={"traits", "customer"})
    compiled.expression.truth(Scope(now=now, aggregates=states))

A tree (`syntax`) that has been found right (`analysis`) becomes a Python code object. That object is built from our own
nodes as a syntax tree of Python's; no text of the playbook is ever Python source, and its constants are bound as
globals. What operators and functions mean stands in `values`, what aggregates mean in `aggregates`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import msgspec

from shared.contracts.events import MAIL_USES
from shared.errors import RapportError
from shared.language import values
from shared.language.aggregate_values import reader
from shared.language.aggregates import Aggregate, Function, aggregate_of
from shared.language.analysis import Analysis, Catalogue, Mention, Surroundings
from shared.language.functions import AGGREGATES, FUNCTIONS
from shared.language.problems import Remark, first_of_each
from shared.language.syntax import parse
from shared.language.tree import COMPARISONS, Binary, Call, ListOf, Literal, Logic, Name, Node, Unary, render, walk


def _no_consent(topic: str) -> bool:
    return False


class Scope(msgspec.Struct):
    """What an expression is evaluated in. Only `now` is always needed; what is absent is null.

    `customer` maps `key stage segments first_seen last_seen locale timezone`. `event` and `trigger` are decoded
    properties. `aggregates` maps an aggregate's id to its state. `currency` is the brand's, `rates` what one unit of
    another is worth in it.
    """

    now: datetime
    traits: Mapping[str, Any] = {}
    customer: Mapping[str, Any] = {}
    event: Mapping[str, Any] | None = None
    trigger: Mapping[str, Any] | None = None
    key: Any = None
    item: Any = None
    steps: Mapping[str, Any] = {}
    vars: Mapping[str, Any] = {}
    aggregates: Mapping[str, Any] = {}
    consented: Callable[[str], bool] = _no_consent
    segments: Collection[str] = ()
    currency: str = ""
    rates: Mapping[str, Decimal] = {}


class _OnlyEvent(msgspec.Struct):
    """As much of a scope as the `where` of an aggregate needs."""

    event: Mapping[str, Any]


class ExpressionError(RapportError):
    """An expression that cannot be compiled; `problems` are all that were found, in order of their place."""

    def __init__(self, problems: Iterable[Remark]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.offset)
        super().__init__(" ".join(f"{p.offset + 1}: {p.message} {p.remedy}" for p in self.problems))


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """A compiled expression. Two are equal where they mean the same (`canonical`), however they were written.

    - `source`: the text as it was written; `canonical`: the one way to write it
    - `definitions`: the aggregates that it evaluates; `aggregates`: their ids
    - `names`: the paths it reads, such as `("traits", "country")`, apart from those inside an aggregate's `where`
    - `segments`, `topics`: those it asks for by `in_segment` and `consented`
    """

    source: str
    canonical: str
    definitions: tuple[Aggregate, ...]
    aggregates: frozenset[str]
    names: frozenset[tuple[str, ...]]
    segments: frozenset[str]
    topics: frozenset[str]
    tree: Node = field(repr=False)
    run: Callable[[Any], Any] = field(repr=False, init=False)
    """From a scope to the value."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """`run` is made when it is first asked for, since to check a playbook needs none."""
            if name != "run":
                raise AttributeError(name)
            object.__setattr__(self, name, code_of(self.tree))
            return self.run

    def evaluate(self, scope: Scope) -> Any:
        """Its value. Null is None; numbers are int, float or Decimal; points in time are aware datetimes.

        `plain` makes JSON of it.
        """
        return self.run(scope)

    def truth(self, scope: Scope) -> bool:
        """Whether it holds: only true is true; null and everything else is not."""
        return self.run(scope) is True

    def matches(self, properties: Mapping[str, Any]) -> bool:
        """`truth` of an expression that names only `event`, for an event with these properties."""
        return self.run(_OnlyEvent(properties)) is True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.canonical == other.canonical

    def __hash__(self) -> int:
        return hash(self.canonical)


class Compiled(msgspec.Struct, frozen=True):
    """An expression with what was learned about it: its aggregates, what it mentions, and what is doubtful in it."""

    expression: Expression
    aggregates: tuple[Aggregate, ...]
    mentions: tuple[Mention, ...]
    warnings: tuple[Remark, ...]


def compile_expression(
    text: str,
    *,
    allowed: Collection[str],
    functions: Collection[str] = FUNCTIONS,
    place: str = "here",
    condition: bool = False,
    event: str | None = None,
    trigger: str | None = None,
    each: tuple[str, ...] = (),
    catalogue: Catalogue | None = None,
) -> Compiled:
    """Text to a compiled expression. Raises ExpressionError with all problems at once.

    `allowed` are the roots (of ROOTS) that are known where the text stands, `functions` what may be called there, and
    `place` says where that is, in a message ("in a step"). With `condition` a value that can be neither true nor false
    is an error. `event` and `trigger` name the events that `event.` and `trigger.` refer to; `each` is the path, in the
    latter, of the list whose element is `item`. `catalogue` maps an event's name to its properties, each a JSON Schema;
    only warnings come of it.
    """
    tree, problems = parse(text)
    analysis = Analysis(Surroundings(allowed, functions, place, event, trigger, catalogue or {}, each))
    if condition:
        analysis.condition(tree)
    else:
        analysis.kind(tree)
    if problems or analysis.problems:
        raise ExpressionError(first_of_each([*problems, *analysis.problems]))
    expression = _expression(text, tree)
    warnings = tuple(first_of_each(analysis.warnings))
    return Compiled(expression, expression.definitions, tuple(analysis.mentions), warnings)


def _expression(source: str, tree: Node) -> Expression:
    """The expression of a tree that has been found right."""
    definitions = {aggregate.id: aggregate for aggregate in map(aggregate_from, aggregate_calls(tree))}
    asked = [node for node in _outside_aggregates(tree) if isinstance(node, Call)]
    return Expression(
        source=source,
        canonical=render(tree),
        definitions=tuple(definitions.values()),
        aggregates=frozenset(definitions),
        names=frozenset(node.path for node in _outside_aggregates(tree) if isinstance(node, Name)),
        segments=frozenset(_text(node.arguments[0]) for node in asked if node.function == "in_segment"),
        topics=frozenset(_text(node.arguments[0]) for node in asked if node.function == "consented"),
        tree=tree,
    )


def both(one: Expression, other: Expression | None) -> Expression:
    """What holds where both do."""
    if other is None:
        return one
    return _of_tree(Logic(0, 0, "and", (one.tree, other.tree)))


def by_people(event: str, where: Expression | None) -> Expression | None:
    """The `where` of an event as it is meant: machines use mails, too, and count only where they are asked about."""
    asked = where.tree if where is not None else None
    meant = _by_people(event, asked)
    return where if meant is asked or meant is None else _of_tree(meant)


def _by_people(event: str, where: Node | None) -> Node | None:
    if event not in MAIL_USES:
        return where
    if where is None:
        return _BY_PEOPLE
    if any(isinstance(node, Name) and node.path[:2] == ("event", "machine") for node in walk(where)):
        return where
    return Logic(0, 0, "and", (where, _BY_PEOPLE))


_BY_PEOPLE: Final = Binary(0, 0, "!=", Name(0, 0, ("event", "machine")), Literal(0, 0, True))


def _of_tree(tree: Node) -> Expression:
    return _expression(render(tree), tree)


def _outside_aggregates(tree: Node) -> Iterable[Node]:
    if isinstance(tree, Call) and tree.function in AGGREGATES:
        return [tree]
    match tree:
        case Call(arguments=parts) | ListOf(items=parts) | Logic(operands=parts):
            pass
        case Binary(left=left, right=right):
            parts = (left, right)
        case Unary(operand=operand):
            parts = (operand,)
        case _:
            parts = ()
    return [tree, *(node for part in parts for node in _outside_aggregates(part))]


def aggregate_calls(tree: Node) -> list[Call]:
    """The aggregates that a tree evaluates, as they are written."""
    return [node for node in walk(tree) if isinstance(node, Call) and node.function in AGGREGATES]


def aggregate_from(call: Call) -> Aggregate:
    """The aggregate that a call, which has been found right, asks for."""
    window: timedelta | None = None
    asked: Node | None = None
    for named in call.named:
        if named.name == "where":
            asked = named.value
        elif isinstance(named.value, Literal) and isinstance(named.value.value, timedelta):
            window = named.value.value
    function: Function = call.function  # type: ignore[assignment]
    event = _text(call.arguments[0])
    path = tuple(_text(call.arguments[1]).split(".")) if len(call.arguments) > 1 else None
    meant = _by_people(event, asked)
    return aggregate_of(function, event, path, None if meant is None else _of_tree(meant), window)


def _text(node: Node) -> str:
    if isinstance(node, Literal) and isinstance(node.value, str):
        return node.value
    raise TypeError("this argument was to be proven a text")


# --- tree to code ---------------------------------------------------------------------------------------------------

_COMPARE: Final[Mapping[str, tuple[type[ast.cmpop], Callable[[Any, Any], bool]]]] = {
    "==": (ast.Eq, values.equal),
    "!=": (ast.NotEq, values.unequal),
    "<": (ast.Lt, values.less),
    "<=": (ast.LtE, values.at_most),
    ">": (ast.Gt, values.greater),
    ">=": (ast.GtE, values.at_least),
}
_MIRRORED: Final = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_CALCULATE: Final = {"+": values.add, "-": values.subtract, "*": values.multiply, "/": values.divide}
_CALLS: Final[Mapping[str, Callable[..., Any]]] = {
    "date": values.moment,
    "lower": values.lower,
    "contains": values.contains,
    "starts_with": values.starts_with,
    "len": values.length,
    "round": values.rounded,
}
_TRUE_OR_FALSE: Final = frozenset({"contains", "starts_with", "consented", "in_segment", "exists"})


def code_of(tree: Node) -> Callable[[Any], Any]:
    """A function from a scope to the tree's value."""
    generator = _Generator()
    scope = ast.arguments(posonlyargs=[], args=[ast.arg("scope")], kwonlyargs=[], kw_defaults=[], defaults=[])
    body: list[ast.stmt] = [ast.Return(generator.value(tree))]
    function = ast.FunctionDef("evaluate", scope, body, [])
    module = ast.fix_missing_locations(ast.Module([function], []))
    bound: dict[str, Any] = {"__builtins__": {"type": type, "True": True}, **generator.bound}
    exec(compile(module, "<expression>", "exec"), bound)
    made: Callable[[Any], Any] = bound["evaluate"]
    return made


class _Generator:
    """Python's syntax tree for ours. Whatever comes from the playbook goes into `bound` and is known by a number."""

    def __init__(self) -> None:
        self.bound: dict[str, Any] = {}
        self.temporaries = 0

    # -- pieces

    def constant(self, value: Any) -> ast.expr:
        name = f"k{len(self.bound)}"
        self.bound[name] = value
        return ast.Name(name, ast.Load())

    def scope(self, attribute: str) -> ast.expr:
        return ast.Attribute(ast.Name("scope", ast.Load()), attribute, ast.Load())

    def called(self, function: Callable[..., Any], *arguments: ast.expr) -> ast.expr:
        return ast.Call(self.constant(function), list(arguments), [])

    def kept(self, value: ast.expr) -> tuple[ast.expr, ast.expr]:
        """The value, and a name under which it is known once it has been evaluated."""
        name = f"t{self.temporaries}"
        self.temporaries += 1
        return ast.NamedExpr(ast.Name(name, ast.Store()), value), ast.Name(name, ast.Load())

    # -- nodes

    def value(self, node: Node) -> ast.expr:
        match node:
            case Literal(value=value):
                return self.constant(value)
            case ListOf(items=items):
                constants = _constants(items)
                if constants is not None:
                    return self.constant(constants)
                return ast.Tuple([self.value(item) for item in items], ast.Load())
            case Name(path=path):
                return self.name(path)
            case Unary(operator="not", operand=operand):
                return ast.UnaryOp(ast.Not(), self.truth(operand))
            case Unary(operand=operand):
                return self.called(values.negate, self.value(operand))
            case Logic(operator=operator, operands=operands):
                joined = ast.And() if operator == "and" else ast.Or()
                return ast.BoolOp(joined, [self.truth(operand) for operand in operands])
            case Binary(operator="in" | "not in" as operator, left=left, right=right):
                found = self.membership(left, right)
                return found if operator == "in" else ast.UnaryOp(ast.Not(), found)
            case Binary(operator=operator, left=left, right=right) if operator in _COMPARE:
                return self.comparison(operator, left, right)
            case Binary(operator=operator, left=left, right=right):
                return self.called(_CALCULATE[operator], self.value(left), self.value(right))
            case Call():
                return self.call(node)
        raise TypeError(f"{type(node).__name__} cannot be evaluated")

    def truth(self, node: Node) -> ast.expr:
        """Python's True where the node is true, else False."""
        if _is_true_or_false(node):
            return self.value(node)
        return ast.Compare(self.value(node), [ast.Is()], [self.constant(True)])

    def name(self, path: tuple[str, ...]) -> ast.expr:
        root, *fields = path
        found = self.scope(root)
        if fields and root in ("traits", "customer", "steps", "vars"):
            get = ast.Attribute(found, "get", ast.Load())
            found = ast.Call(get, [self.constant(fields.pop(0))], [])
        for one in fields:
            found = self.called(values.get, found, self.constant(one))
        return found

    def comparison(self, operator: str, left: Node, right: Node) -> ast.expr:
        if isinstance(left, Literal) and not isinstance(right, Literal):
            operator, left, right = _MIRRORED[operator], right, left
        python, general = _COMPARE[operator]
        given = self.value(left)
        if not isinstance(right, Literal):
            return self.called(general, given, self.value(right))
        constant = right.value
        if operator in ("==", "!="):
            if constant is None or isinstance(constant, bool):
                same: ast.cmpop = ast.Is() if operator == "==" else ast.IsNot()
                return ast.Compare(given, [same], [self.constant(constant)])
            if isinstance(constant, str):
                return ast.Compare(given, [python()], [self.constant(constant)])
        if type(constant) in values.JSON_NUMBERS:
            # Most conditions compare a number with a constant: Python's operator does, unless it is a Decimal.
            kept, known = self.kept(given)
            kind = ast.Call(ast.Name("type", ast.Load()), [kept], [])
            usual = ast.Compare(kind, [ast.In()], [self.constant(values.JSON_NUMBERS)])
            quick = ast.Compare(known, [python()], [self.constant(constant)])
            return ast.IfExp(usual, quick, self.called(general, known, self.constant(constant)))
        return self.called(general, given, self.constant(constant))

    def membership(self, left: Node, right: Node) -> ast.expr:
        item = self.value(left)
        if isinstance(right, ListOf):
            constants = _constants(right.items)
            if constants and all(isinstance(constant, str) for constant in constants):
                return ast.Compare(item, [ast.In()], [self.constant(constants)])
        return self.called(values.member, item, self.value(right))

    def call(self, node: Call) -> ast.expr:
        if node.function in AGGREGATES:
            return self.aggregate(aggregate_from(node))
        match node.function:
            case "days_since":
                return self.called(values.days_between, self.value(node.arguments[0]), self.scope("now"))
            case "coalesce":
                *others, last = node.arguments
                found = self.value(last)
                for other in reversed(others):
                    kept, known = self.kept(self.value(other))
                    found = ast.IfExp(ast.Compare(kept, [ast.IsNot()], [self.constant(None)]), known, found)
                return found
            case "consented":
                return ast.Call(self.scope("consented"), [self.constant(_text(node.arguments[0]))], [])
            case "in_segment":
                segment = self.constant(_text(node.arguments[0]))
                return ast.Compare(segment, [ast.In()], [self.scope("segments")])
        return self.called(_CALLS[node.function], *map(self.value, node.arguments))

    def aggregate(self, aggregate: Aggregate) -> ast.expr:
        get = ast.Attribute(self.scope("aggregates"), "get", ast.Load())
        state = ast.Call(get, [self.constant(aggregate.id)], [])
        if aggregate.function == "count" and aggregate.window is None:
            return ast.BoolOp(ast.Or(), [state, self.constant(0)])
        return self.called(reader(aggregate), state, self.scope("now"), self.scope("currency"), self.scope("rates"))


def _constants(items: Iterable[Node]) -> tuple[Any, ...] | None:
    found = []
    for item in items:
        if not isinstance(item, Literal):
            return None
        found.append(item.value)
    return tuple(found)


def _is_true_or_false(node: Node) -> bool:
    match node:
        case Literal(value=value):
            return isinstance(value, bool)
        case Unary(operator="not") | Logic():
            return True
        case Binary(operator=operator):
            return operator in COMPARISONS
        case Call(function=function):
            return function in _TRUE_OR_FALSE
    return False
