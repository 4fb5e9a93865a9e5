"""What expressions mean: evaluated over plain data, null and mixed kinds included, always as a plain reading would."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.language.aggregates import observe
from shared.language.analysis import ROOTS
from shared.language.expressions import ExpressionError, Scope, compile_expression
from shared.language.functions import FUNCTIONS
from shared.language.problems import Remark
from shared.language.syntax import MAX_DEPTH, parse
from shared.language.tree import Binary, Call, ListOf, Literal, Logic, Name, Node, Unary, render, walk
from shared.language.values import plain

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TRAITS = {
    "country": "NO",
    "age": 34,
    "score": 0.5,
    "tags": ["new", "lamps"],
    "vip": True,
    "city": "Oslo",
    "birthday": "1990-05-17",
    "renewal": "2026-02-24T12:00:00Z",
    "first-name": "Åse",
    "in": {"not": 1},
    "nothing": None,
}
EVENT = {
    "total": 49.9,
    "currency": "EUR",
    "products": [
        {"sku": "sku-1", "price": 20, "tags": ["a", "b"]},
        {"sku": "sku-2", "price": 29.9, "tags": ["c"]},
        {"price": 1},
    ],
}


def evaluate(text: str, **scope: Any) -> Any:
    expression = compile_expression(text, allowed=ROOTS).expression
    given: dict[str, Any] = {
        "traits": TRAITS,
        "event": EVENT,
        "trigger": {"cart_id": "c1"},
        "key": "c1",
        "steps": {"cart-10": {"code": "X7"}, "2-days": {"event": {"score": 9}}},
        "vars": {"tone": "warm"},
        "customer": {"key": "u1", "stage": "retain", "segments": ("vip", "nordic"), "first_seen": NOW, "locale": None},
        "segments": ("vip", "nordic"),
        "consented": lambda topic: topic == "newsletter",
    }
    return expression.evaluate(Scope(NOW, **{**given, **scope}))


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        'traits.country in ["NO", "SE", "DK", "FI", "IS"]',
        "traits.country not in ['SE']",
        '"sku-1" in event.products.sku',
        '"c" in event.products.tags',
        "event.total >= 20 and event.currency == 'EUR'",
        "traits.first-name == 'Åse'",
        "traits.in.not == 1",
        'steps.cart-10.code == "X7"',
        "steps.2-days.event.score > 8",
        'vars.tone == "warm"',
        "trigger.cart_id == key",
        'customer.stage == "retain"',
        '"vip" in customer.segments',
        'in_segment("vip")',
        'not in_segment("lapsed")',
        'consented("newsletter") and not consented("cart-reminders")',
        "traits.vip",
        "traits.vip == true",
        "now > date(traits.renewal)",
        "now - date(traits.renewal) == 5d",
        "days_since(traits.renewal) == 5",
        "days_since(date(traits.renewal)) == 5",
        'date("2026-03-01") + 12h == now',
        'date("2026-03-01T13:00:00+01:00") == now',
        "1d == 24h",
        "1w / 2 == 84h",
        "2 * 30m <= 1h",
        "1 + 2 * 3 == 7",
        "(1 + 2) * 3 == 9",
        "10 - 2 - 3 == 5",
        "100 / 10 / 5 == 2",
        "-traits.age + 34 == 0",
        "0.1 + 0.2 == 0.3",
        "not false or true",
        "not (false or true) == false",
        "1 == 1 or 1 == 2 and 1 == 3",
        'lower(traits.city) == "oslo"',
        'contains(traits.city, "sl")',
        'contains(traits.tags, "lamps")',
        'starts_with(traits.city, "Os")',
        "len(event.products) == 3",
        "len(traits.city) == 4",
        "round(2.5) == 3",
        "round(-2.5) == -3",
        "round(event.total) == 50",
        "round(1.005, 2) == 1.01",
        'coalesce(traits.nickname, traits.first-name, "you") == "Åse"',
        'coalesce(traits.nickname, "you") == "you"',
        '"o" in traits.city',
        '"it\\\'s \\"quoted\\"" == \'it\\\'s "quoted"\'',
        "[1, 2] == [1.0, 2]",
        '"Dear " + traits.first-name == "Dear Åse"',
        "traits.city + null == null",
        "1 in [1.0, 2]",
        "event.products.sku == ['sku-1', 'sku-2', null]",
    ],
)
def test_this_is_true(text: str) -> None:
    assert evaluate(text) is True


@pytest.mark.parametrize(
    "text",
    [
        "traits.nickname == 'x'",
        "traits.nickname > 3",
        "traits.nickname < 3",
        "traits.nickname >= null",
        "null <= null",
        "traits.city > 3",
        "traits.city < 3",
        "traits.age == '34'",
        "traits.age > '30'",
        "traits.vip == 1",
        "true == 1",
        "1 == true",
        "false == 0",
        "true in [1, 2]",
        "1 in [true]",
        "true > false",
        "traits.tags > 1",
        "days_since(traits.city) > 0",
        "days_since(traits.age) > 0",
        "days_since(traits.renewal) > 3d",
        "traits.renewal < now",
        "1 / 0 > 0",
        "traits.age / 0 == 0",
        "traits.city + 1 > 0",
        "traits.nickname + 1 > 0",
        "traits.vip + 1 > 0",
        "'x' in traits.nickname",
        "'x' in 5",
        "5 in traits.city",
        "contains(traits.nickname, 'x')",
        "starts_with(traits.age, '3')",
        "len(traits.age) > 0",
        "date('2026-13-01') < now",
        "date('yesterday') < now",
        "traits.city.name == 'x'",
        "traits.age and true",
        "'true' and true",
    ],
)
def test_this_is_false(text: str) -> None:
    assert evaluate(text) is False


@pytest.mark.parametrize(
    "text",
    [
        "traits.nickname",
        "traits.nickname + 1",
        "event.nothing.at.all",
        "1 / 0",
        "traits.city - 1",
        "-traits.city",
        "null * 2",
        "1d + 1",
        "1d * 1d",
        "now + now",
        "now * 2",
        "lower(3)",
        "date(3)",
        "round(traits.city)",
    ],
)
def test_this_is_null(text: str) -> None:
    assert evaluate(text) is None


def test_null_equals_only_null() -> None:
    assert evaluate("traits.nickname == null") is True
    assert evaluate("traits.nothing == traits.nickname") is True
    assert evaluate("traits.nickname != null") is False
    assert evaluate("traits.age == null") is False
    assert evaluate("null in [1, null]") is True


def test_only_true_is_true() -> None:
    for text, truth in (
        ("traits.vip", True),
        ("traits.age", False),
        ("traits.city", False),
        ("traits.nickname", False),
    ):
        assert compile_expression(text, allowed=ROOTS).expression.truth(Scope(NOW, traits=TRAITS)) is truth


def test_without_an_event_at_hand_its_properties_are_null() -> None:
    assert evaluate("event.total == null", event=None) is True


def test_decimals_compare_with_the_number_that_was_written() -> None:
    traits = {"total": Decimal("19.99")}
    assert evaluate("traits.total == 19.99", traits=traits) is True
    assert evaluate("19.99 <= traits.total", traits=traits) is True
    assert evaluate("traits.total > 19", traits=traits) is True
    assert evaluate("traits.total in [19.99]", traits=traits) is True


def test_an_aggregate_reads_the_state_under_its_id() -> None:
    compiled = compile_expression('sum("Order Completed", "total", within=365d) >= 1000', allowed=ROOTS)
    (total,) = compiled.aggregates
    assert compiled.expression.aggregates == {total.id}
    state = observe(total, None, "1", NOW, {"total": 100, "currency": "EUR"}, NOW)
    scope = Scope(NOW, aggregates={total.id: state}, currency="NOK", rates={"EUR": Decimal(11)})
    assert compiled.expression.truth(scope) is True
    assert compiled.expression.truth(Scope(NOW, aggregates={total.id: state}, currency="NOK")) is False
    assert compiled.expression.truth(Scope(NOW)) is False


def test_the_where_of_a_trigger_matches_an_event_alone() -> None:
    where = compile_expression("event.total >= 20", allowed={"event"}, condition=True).expression
    assert where.matches({"total": 20})
    assert not where.matches({"total": 19.99})
    assert not where.matches({})
    assert where.truth(Scope(NOW, event={"total": 20}))


def test_an_expression_knows_what_it_reads() -> None:
    expression = compile_expression(
        'traits.country == "NO" and count("Order Completed", where=event.total > 3) >= 1 and in_segment("vip") '
        'and consented("news") and customer.stage == "retain"',
        allowed=ROOTS,
    ).expression
    assert expression.names == {("traits", "country"), ("customer", "stage")}
    assert len(expression.aggregates) == 1
    assert expression.segments == {"vip"}
    assert expression.topics == {"news"}


def test_two_that_mean_the_same_are_equal() -> None:
    first = compile_expression('(traits.a == "x")   and not  (traits.b)', allowed=ROOTS).expression
    second = compile_expression("traits.a == 'x' and not traits.b", allowed=ROOTS).expression
    assert first == second
    assert hash(first) == hash(second)
    assert first.source != second.source


def test_a_value_becomes_plain_json() -> None:
    assert plain(Decimal("12.50")) == 12.5
    assert plain(Decimal("12.00")) == 12
    assert isinstance(plain(Decimal("12.00")), int)
    assert plain(NOW) == "2026-03-01T12:00:00Z"
    assert plain(timedelta(hours=36)) == "36h"
    assert plain({"a": (1, [Decimal(1)])}) == {"a": [1, [1]]}


def test_text_of_the_playbook_is_never_code() -> None:
    hostile = '__import__("os").system("true")'
    assert evaluate(f"lower('{hostile}') == '{hostile}'") is True
    assert evaluate(r"'\"); raise SystemExit; (\"' != 'x'") is True
    assert evaluate("traits.__class__ == null") is True
    assert evaluate("traits.items.x == null") is True


# --- laws -----------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-20, 20)
    | st.integers(-40, 40).map(lambda n: n / 4)
    | st.sampled_from(["", "a", "b", "ab", "NO", "2026-02-24", "2026-03-01T12:00:00Z", "é"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=4,
)

LITERALS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-20, 20),
    st.integers(-40, 40).map(lambda n: n / 4),
    st.text(max_size=4).filter(lambda text: "\r" not in text),
    st.sampled_from(["a", "b", "ab"]),
    st.integers(-300, 300).map(lambda n: timedelta(minutes=n)),
).map(lambda value: Literal(0, 0, value))

NAMES = st.sampled_from(
    [
        "traits.a",
        "traits.b",
        "traits.a.b",
        "event.a",
        "event.a.c",
        "event.a-1",
        "trigger.b.a",
        "vars.a",
        "key",
        "now",
        "customer.stage",
        "customer.segments",
    ]
).map(lambda path: Name(0, 0, tuple(path.split("."))))


def _compound(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    def call(function: str, *arguments: Node) -> Node:
        return Call(0, 0, function, arguments, ())

    def logic(operator: str, operands: list[Node]) -> Node:
        flat: list[Node] = []
        for operand in operands:
            flat += operand.operands if isinstance(operand, Logic) and operand.operator == operator else [operand]
        return Logic(0, 0, operator, tuple(flat))

    def negated(operand: Node) -> Node:
        if isinstance(operand, Literal) and type(operand.value) in (int, float, timedelta):
            return Literal(0, 0, -operand.value)  # type: ignore[operator]
        return operand if isinstance(operand, Unary) and operand.operator == "-" else Unary(0, 0, "-", operand)

    def refused(operand: Node) -> Node:
        twice = isinstance(operand, Unary) and isinstance(operand.operand, Unary)
        return operand if twice else Unary(0, 0, "not", operand)

    comparing = st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "not in"])
    return st.one_of(
        st.builds(logic, st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3)),
        st.builds(refused, inner),
        st.builds(negated, inner),
        st.builds(lambda operator, a, b: Binary(0, 0, operator, a, b), comparing, inner, inner),
        st.builds(lambda operator, a, b: Binary(0, 0, operator, a, b), st.sampled_from("+-*/"), inner, inner),
        st.lists(inner, max_size=3).map(lambda items: ListOf(0, 0, tuple(items))),
        st.builds(call, st.sampled_from(["date", "days_since", "lower", "len", "round"]), inner),
        st.builds(call, st.sampled_from(["contains", "starts_with", "coalesce"]), inner, inner),
        st.sampled_from(["vip", "lapsed"]).map(lambda name: call("in_segment", Literal(0, 0, name))),
        st.sampled_from(["news", "offers"]).map(lambda name: call("consented", Literal(0, 0, name))),
    )


TREES = st.recursive(LITERALS | NAMES, _compound, max_leaves=12)


@given(TREES)
@settings(max_examples=400)
def test_what_is_rendered_parses_to_the_same_tree(tree: Node) -> None:
    parsed, problems = parse(render(tree))
    assert problems == []
    assert parsed == tree
    assert render(parsed) == render(tree)


class Plainly:
    """The tree read aloud: slow, and with nothing of the compiler's in it. Numbers are fractions."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def __call__(self, node: Node) -> Any:
        match node:
            case Literal(value=value):
                return self.lifted(value)
            case Name(path=path):
                value = getattr(self.scope, path[0])
                for name in path[1:]:
                    value = self.field(value, name)
                return self.lifted(value)
            case ListOf(items=items):
                return [self(item) for item in items]
            case Logic(operator="and", operands=operands):
                return all(self(operand) is True for operand in operands)
            case Logic(operands=operands):
                return any(self(operand) is True for operand in operands)
            case Unary(operator="not", operand=operand):
                return self(operand) is not True
            case Unary(operand=operand):
                value = self(operand)
                return -value if isinstance(value, (Fraction, timedelta)) else None
            case Binary(operator="!=", left=left, right=right):
                return not self.same(self(left), self(right))
            case Binary(operator="not in", left=left, right=right):
                return not self.within(self(left), self(right))
            case Binary(operator=operator, left=left, right=right):
                return self.binary(operator, self(left), self(right))
            case Call(function=function, arguments=arguments):
                return self.call(function, [self(argument) for argument in arguments])
        raise AssertionError(node)

    def lifted(self, value: Any) -> Any:
        if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
            return Fraction(repr(value) if isinstance(value, float) else value)
        if isinstance(value, (list, tuple)):
            return [self.lifted(item) for item in value]
        if isinstance(value, Mapping):
            return {name: self.lifted(item) for name, item in value.items()}
        return value

    def field(self, value: Any, name: str) -> Any:
        if isinstance(value, Mapping):
            return value.get(name)
        if not isinstance(value, (list, tuple)):
            return None
        found = []
        for item in value:
            inner = self.field(item, name)
            found += inner if isinstance(inner, list) else [inner]
        return found

    def same(self, a: Any, b: Any) -> bool:
        if isinstance(a, list) and isinstance(b, list):
            return len(a) == len(b) and all(self.same(x, y) for x, y in zip(a, b, strict=True))
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(self.same(a[name], b[name]) for name in a)
        return type(a) is type(b) and a == b

    def within(self, a: Any, b: Any) -> bool:
        if isinstance(b, list):
            return any(self.same(a, item) for item in b)
        return isinstance(a, str) and isinstance(b, str) and b.find(a) >= 0

    def binary(self, operator: str, a: Any, b: Any) -> Any:
        kinds = (type(a), type(b))
        number, moment, duration = Fraction, datetime, timedelta
        match operator:
            case "==":
                return self.same(a, b)
            case "in":
                return self.within(a, b)
            case "<" | "<=" | ">" | ">=":
                if kinds[0] is not kinds[1] or kinds[0] not in (number, moment, duration, str):
                    return False
                return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[operator]
            case "+":
                allowed = {(number, number), (duration, duration), (moment, duration), (duration, moment), (str, str)}
                return a + b if kinds in allowed else None
            case "-":
                allowed = {(number, number), (duration, duration), (moment, duration), (moment, moment)}
                return a - b if kinds in allowed else None
            case "*":
                if kinds == (number, duration):
                    a, b, kinds = b, a, (duration, number)
                if kinds == (duration, number):
                    return timedelta(microseconds=round(b * (a // timedelta(microseconds=1))))
                return a * b if kinds == (number, number) else None
        if kinds == (duration, duration):
            return Fraction(a // timedelta(microseconds=1), b // timedelta(microseconds=1)) if b else None
        if kinds == (duration, number):
            return self.binary("*", a, 1 / b) if b else None
        return a / b if kinds == (number, number) and b else None

    def call(self, function: str, given: list[Any]) -> Any:
        first = given[0]
        match function:
            case "coalesce":
                return next((value for value in given if value is not None), None)
            case "lower":
                return first.lower() if isinstance(first, str) else None
            case "len":
                return Fraction(len(first)) if isinstance(first, (str, list, dict)) else None
            case "contains":
                return self.within(given[1], first)
            case "starts_with":
                return isinstance(first, str) and isinstance(given[1], str) and first[: len(given[1])] == given[1]
            case "round":
                if not isinstance(first, Fraction):
                    return None
                half = (abs(first) * 2 + 1) // 2
                return Fraction(half if first >= 0 else -half)
            case "in_segment":
                return first in self.scope.segments
            case "consented":
                return self.scope.consented(first)
            case "date":
                return self.date(first)
            case "days_since":
                begin = self.date(first)
                return None if begin is None else Fraction(repr((self.scope.now - begin) / timedelta(days=1)))
        raise AssertionError(function)

    def date(self, value: Any) -> datetime | None:
        known = {"2026-02-24": datetime(2026, 2, 24, tzinfo=UTC), "2026-03-01T12:00:00Z": NOW}
        return value if isinstance(value, datetime) else known.get(value) if isinstance(value, str) else None


def close(compiled: Any, plainly: Any) -> bool:
    if isinstance(plainly, Fraction):
        if isinstance(compiled, bool) or not isinstance(compiled, (int, float, Decimal)):
            return False
        exact = Fraction(repr(compiled) if isinstance(compiled, float) else compiled)
        return abs(exact - plainly) <= abs(plainly) / 10**20
    if isinstance(plainly, timedelta):
        return isinstance(compiled, timedelta) and abs(compiled - plainly) <= timedelta(microseconds=2)
    if isinstance(plainly, list):
        return (
            isinstance(compiled, (list, tuple)) and len(compiled) == len(plainly) and all(map(close, compiled, plainly))
        )
    if isinstance(plainly, dict):
        return isinstance(compiled, Mapping) and all(close(compiled[name], plainly[name]) for name in plainly)
    return type(compiled) is type(plainly) and bool(compiled == plainly)


def has_inexact_division(node: Node) -> bool:
    """A third has no end as a decimal, so comparing after such a division may differ in the 28th digit."""
    return any(isinstance(part, Binary) and part.operator == "/" for part in walk(node))


@given(TREES, st.fixed_dictionaries(dict.fromkeys(("a", "b", "c", "key"), JSON)))
@settings(max_examples=600)
@example(Binary(0, 0, "==", Name(0, 0, ("traits", "a")), Literal(0, 0, 1)), {"a": True, "b": 0, "c": 0, "key": 0})
@example(Binary(0, 0, "in", Name(0, 0, ("traits", "a")), ListOf(0, 0, ())), {"a": [], "b": 0, "c": 0, "key": 0})
def test_compiled_it_gives_what_a_plain_reading_gives(tree: Node, data: dict[str, Any]) -> None:
    scope = Scope(
        NOW,
        traits=data,
        event={"a": data["b"], "a-1": data["c"]},
        trigger={"b": data["a"]},
        key=data["key"],
        vars=data,
        customer={"stage": "retain", "segments": ("vip",)},
        segments=("vip",),
        consented=lambda topic: topic == "news",
    )
    compiled = compile_expression(render(tree), allowed=ROOTS).expression
    if has_inexact_division(tree):
        compiled.evaluate(scope)  # it never raises
    else:
        assert close(compiled.evaluate(scope), Plainly(scope)(tree))


@given(
    st.text(alphabet="ab.-+*/()[]<>=!\"'\\ 0129mhdwtraits,event notinandor&|%\n", max_size=60) | st.text(max_size=30)
)
@settings(max_examples=400)
@example("(" * (MAX_DEPTH + 5))
def test_any_text_compiles_or_is_refused_with_places_inside_it(text: str) -> None:
    problems = problems_of(text)
    assert all(0 <= p.offset <= len(text) and p.length >= 1 and p.message and p.remedy for p in problems)


def problems_of(text: str) -> list[Remark]:
    try:
        compiled = compile_expression(text, allowed=ROOTS, functions=FUNCTIONS, condition=True)
        assert compiled.expression.truth(Scope(NOW)) in (True, False)
    except ExpressionError as error:
        return error.problems
    return []
