"""Flips: between one and the next nothing changes, and at the very instant it does."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from shared.language.aggregates import observe
from shared.language.analysis import ROOTS
from shared.language.expressions import Expression, ExpressionError, Scope, compile_expression
from shared.language.flips import foreseen, unsolvable

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)


def compiled(text: str) -> Expression:
    return compile_expression(text, allowed=ROOTS).expression


def scope_of(expression: Expression, happened: Iterable[tuple[str, datetime, dict[str, Any]]], **more: Any) -> Scope:
    states: dict[str, Any] = {}
    for aggregate in expression.definitions:
        state = None
        for number, (name, at, properties) in enumerate(happened):
            if name == aggregate.event:
                state = observe(aggregate, state, str(number), at, properties, NOW)
        states[aggregate.id] = state
    return Scope(NOW, aggregates=states, **more)


def next_flip(expression: Expression, scope: Scope) -> datetime | None:
    """None for never."""
    next_after = foreseen(expression)
    return next_after(scope) if next_after is not None else None


def moved(scope: Scope, now: datetime) -> Scope:
    """The same at another time."""
    return replace(scope, now=now)


def order(days_ago: float, total: float = 10) -> tuple[str, datetime, dict[str, Any]]:
    return ("Order", NOW - timedelta(days=days_ago), {"total": total})


# --- stories --------------------------------------------------------------------------------------------------------


def test_a_customer_lapses_180_days_after_the_last_order_to_the_instant() -> None:
    lapsed = compiled('count("Order") >= 1 and count("Order", within=180d) == 0')
    scope = scope_of(lapsed, [order(200), order(30), order(10)])
    assert not lapsed.truth(scope)
    flip = next_flip(lapsed, scope)
    assert flip == NOW + 170 * DAY
    assert not lapsed.truth(moved(scope, flip - INSTANT))
    assert lapsed.truth(moved(scope, flip))
    assert next_flip(lapsed, moved(scope, flip)) is None


def test_a_count_that_time_can_only_lower_has_no_flip_where_it_is_too_low_already() -> None:
    eager = compiled('count("Viewed", within=30d) >= 3')
    assert next_flip(eager, scope_of(eager, [("Viewed", NOW - DAY, {})])) is None
    assert next_flip(eager, scope_of(eager, [])) is None


def test_a_count_flips_when_the_one_too_many_leaves_and_not_with_each_that_leaves() -> None:
    eager = compiled('count("Viewed", within=30d) >= 3')
    views = [("Viewed", NOW - DAY * days, {}) for days in (20, 15, 10, 5, 1)]
    assert next_flip(eager, scope_of(eager, views)) == NOW + 20 * DAY


def test_a_best_customer_is_one_until_an_order_leaves_that_is_missed() -> None:
    best = compiled('sum("Order", "total", within=365d) >= 1000')
    scope = scope_of(best, [order(300, 100), order(200, 900), order(100, 200)])
    assert best.truth(scope)
    assert next_flip(best, scope) == NOW + 165 * DAY


@pytest.mark.parametrize(
    ("operator", "late"), [(">=", timedelta(0)), (">", INSTANT), ("<", timedelta(0)), ("<=", INSTANT)]
)
def test_days_since_passes_a_number_at_the_instant(operator: str, late: timedelta) -> None:
    cooling = compiled(f'days_since(last("Order")) {operator} 30')
    scope = scope_of(cooling, [order(10)])
    assert next_flip(cooling, scope) == NOW + 20 * DAY + late


def test_days_since_a_moment_that_itself_leaves_a_window_flips_before_it_and_with_it() -> None:
    fading = compiled('days_since(first("Order", within=20d)) > 5')
    scope = scope_of(fading, [order(19), order(2)])
    assert list(flips_of(fading, scope)) == [NOW + DAY, NOW + 3 * DAY + INSTANT, NOW + 18 * DAY]


def test_a_date_in_the_traits_is_passed_whether_written_by_now_or_by_days_since() -> None:
    for text in ("now >= date(traits.renewal)", "date(traits.renewal) <= now", "days_since(traits.renewal) >= 0"):
        expression = compiled(text)
        scope = Scope(NOW, traits={"renewal": "2026-04-01T09:30:00+02:00"})
        assert next_flip(expression, scope) == datetime(2026, 4, 1, 7, 30, tzinfo=UTC)
    shifted = compiled("now + 3d > date(traits.renewal)")
    scope = Scope(NOW, traits={"renewal": "2026-04-01"})
    assert next_flip(shifted, scope) == datetime(2026, 3, 29, tzinfo=UTC) + INSTANT


def test_what_is_missing_never_flips() -> None:
    for text in ("days_since(traits.renewal) > 3", "now > date(traits.renewal)", 'days_since(last("Order")) > 3'):
        assert next_flip(compiled(text), Scope(NOW)) is None


def test_a_window_of_many_events_is_answered_with_a_moment_that_is_not_too_late() -> None:
    rich = compiled('sum("Order", "total", within=30d) >= 15')
    scope = scope_of(rich, [order(20 - n / 10, 1) for n in range(100)])
    flips = list(flips_of(rich, scope))
    lost = next(at for at in flips if not rich.truth(moved(scope, at)))
    assert rich.truth(moved(scope, lost - INSTANT))
    assert len(flips) < 15


def test_what_does_not_depend_on_time_never_flips() -> None:
    for text in ('traits.a == "x"', 'count("Order") >= 3', "true", 'in_segment("vip")', 'last("Order", "total") > 3'):
        assert foreseen(compiled(text)) is None
        assert next_flip(compiled(text), Scope(NOW)) is None


def test_a_sum_far_above_its_limit_is_foreseen_in_one_look() -> None:
    best = compiled('sum("Order", "total", within=365d) >= 100')
    scope = scope_of(best, [order(days) for days in range(200)])
    # The ten latest orders hold it up, and the tenth of them leaves the window first.
    assert next_flip(best, scope) == NOW + 356 * DAY


# --- what cannot be solved ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("traits.a or days_since(traits.x) == 3", 12),
        ("days_since(traits.x) != 3", 0),
        ("days_since(traits.x) in [1, 2]", 0),
        ("now == date(traits.x)", 0),
        ("round(days_since(traits.x)) > 3", 0),
        ("days_since(traits.x) > days_since(traits.y)", 0),
        ("days_since(traits.x) - days_since(traits.y) > 1", 0),
        ("days_since(traits.x) * days_since(traits.x) > 4", 0),
        ("10 / days_since(traits.x) > 4", 0),
        ("days_since(now) > 1", 0),
        ("coalesce(days_since(traits.x) > 3, true)", 9),
        ("(days_since(traits.x) > 3) == true", 1),
        ("[now] == [traits.x]", 0),
        ("len(lower(now)) > 3", 4),
    ],
)
def test_what_cannot_be_foreseen_is_named_and_never_guessed(text: str, offset: int) -> None:
    expression = compiled(text)
    found = unsolvable(expression)
    assert found[0].offset == offset
    assert found[0].remedy
    with pytest.raises(ExpressionError):
        next_flip(expression, Scope(NOW))


# --- the law --------------------------------------------------------------------------------------------------------

COMPARE = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
ORDER = st.sampled_from(["<", "<=", ">", ">="])
WINDOW = st.sampled_from(["1d", "5d", "2w", "20d"])
NUMBER = st.sampled_from(["0", "1", "2", "3", "5", "2.5", "0.3333", "-4", "10"])
EVENT = st.sampled_from(['"A"', '"B"'])
WHEN = st.one_of(
    st.builds("last({})".format, EVENT),
    st.builds("first({}, within={})".format, EVENT, WINDOW),
    st.builds("last({}, within={})".format, EVENT, WINDOW),
    st.sampled_from(["traits.soon", "traits.past", "traits.none", "date(traits.soon)"]),
)
COUNTS = st.one_of(
    st.builds("count({}, within={})".format, EVENT, WINDOW),
    st.builds("count({}, within={}, where=event.n > 1)".format, EVENT, WINDOW),
    st.builds('sum({}, "n", within={})'.format, EVENT, WINDOW),
    st.builds('avg({}, "n", within={})'.format, EVENT, WINDOW),
    st.builds('max({}, "n", within={})'.format, EVENT, WINDOW),
    st.builds('min({}, "n", within={})'.format, EVENT, WINDOW),
    st.builds('last({}, "n", within={})'.format, EVENT, WINDOW),
    st.builds("count({})".format, EVENT),
    st.builds("median_gap({})".format, EVENT),
    st.builds("1.5 * median_gap({}, within={})".format, EVENT, WINDOW),
    st.builds('len(list({}, "n", within={}))'.format, EVENT, WINDOW),
)
SLOPES = st.one_of(
    st.builds("days_since({})".format, WHEN),
    st.builds("2 * days_since({})".format, WHEN),
    st.builds("(1 - days_since({}) / 3)".format, WHEN),
    st.builds("coalesce(days_since({}), {})".format, WHEN, NUMBER),
    st.builds("coalesce(days_since({}), days_since({}))".format, WHEN, WHEN),
    st.builds("days_since({}) * {}".format, WHEN, COUNTS),
)
LEAVES = st.one_of(
    st.builds("{} {} {}".format, COUNTS, COMPARE, NUMBER),
    st.builds("{} {} {}".format, NUMBER, COMPARE, COUNTS),
    st.builds("{} {} {}".format, COUNTS, COMPARE, COUNTS),
    st.builds("{} in [0, 2, 4]".format, COUNTS),
    st.builds("exists({}, within={})".format, EVENT, WINDOW),
    st.builds("{} {} {}".format, SLOPES, ORDER, NUMBER),
    st.builds("{} {} {}".format, NUMBER, ORDER, SLOPES),
    st.builds("{} {} {}".format, SLOPES, ORDER, COUNTS),
    st.builds("days_since(first({}, within={})) {} {}".format, EVENT, WINDOW, ORDER, NUMBER),
    st.builds("now {} {}".format, ORDER, st.sampled_from(["date(traits.soon)", 'last("A") + 3d', "date(traits.none)"])),
    st.builds("now - {} {} {}".format, st.sampled_from(['last("A")', "date(traits.soon)"]), ORDER, WINDOW),
    st.just("traits.vip"),
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("not ({})".format, inner),
    ),
    max_leaves=4,
)
HISTORIES = st.lists(
    st.tuples(
        st.sampled_from("AB"), st.sampled_from([0, 1, 7, 24, 30, 100, 119, 120, 121, 300, 400, 479]), st.integers(0, 4)
    ),
    max_size=10,
)
TRAITS = {"soon": "2026-03-05T00:30:00Z", "past": "2026-02-27", "vip": True}
END = NOW + 40 * DAY


def flips_of(expression: Expression, scope: Scope) -> Iterable[datetime]:
    at = scope.now
    for _ in range(500):
        flip = next_flip(expression, moved(scope, at))
        if flip is None:
            return
        assert flip > at
        yield flip
        at = flip
    raise AssertionError("flips without end")


def instants(history: list[tuple[str, datetime, dict[str, Any]]]) -> set[datetime]:
    """A fine grid, and every instant at which something could be thought to happen, with its neighbours."""
    found = {NOW + timedelta(hours=6) * n for n in range(160)}
    begins = [at for _, at, _ in history] + [datetime(2026, 3, 5, 0, 30, tzinfo=UTC), datetime(2026, 2, 27, tzinfo=UTC)]
    for begin in begins:
        for days in (0, 1, 2, 2.5, 3, 4, 5, 10, 14, 20, 1.25, 5 / 6):
            found.add(begin + timedelta(days=days))
    return {at + near for at in found for near in (-INSTANT, timedelta(0), INSTANT) if NOW < at + near < END}


@given(text=CONDITIONS, happened=HISTORIES)
@settings(max_examples=300, deadline=None)
def test_between_two_flips_the_truth_never_changes(text: str, happened: list[tuple[str, int, int]]) -> None:
    expression = compiled(text)
    assert unsolvable(expression) == ()
    history = [(name, NOW - timedelta(hours=hours), {"n": n}) for name, hours, n in happened]
    scope = scope_of(expression, history, traits=TRAITS)
    flips = [at for at in flips_of(expression, scope) if at < END]
    truth, ahead = expression.truth(scope), list(flips)
    for at in sorted(instants(history) | set(flips)):
        if ahead and at >= ahead[0]:
            assert at == ahead.pop(0)
            truth = expression.truth(moved(scope, at))
        assert expression.truth(moved(scope, at)) is truth, f"{text} at {at}"


@given(text=LEAVES, happened=HISTORIES)
@settings(max_examples=200, deadline=None)
def test_a_flip_is_the_exact_instant_of_the_change(text: str, happened: list[tuple[str, int, int]]) -> None:
    expression = compiled(text)
    history = [(name, NOW - timedelta(hours=hours), {"n": n}) for name, hours, n in happened[:6]]
    scope = scope_of(expression, history, traits=TRAITS)
    flip = next_flip(expression, scope)
    if flip is not None and "in [" not in text and "==" not in text and "!=" not in text:
        assert expression.truth(moved(scope, flip - INSTANT)) is expression.truth(scope)
        assert expression.truth(moved(scope, flip)) is not expression.truth(scope)


PURCHASES = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 7, 24, 24, 119, 120, 121, 300, 479]),
        st.sampled_from([0, 0.5, 1, 3, 40, -2]),
        st.sampled_from(["", "EUR", "EUR", "SEK", "USD"]),
    ),
    max_size=14,
)


@given(
    text=st.builds('sum("A", "total", within={}) {} {}'.format, WINDOW, ORDER, NUMBER),
    happened=PURCHASES,
    one_currency=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_the_truth_of_a_sum_never_changes_between_its_flips(
    text: str, happened: list[tuple[int, float, str]], one_currency: bool
) -> None:
    expression = compiled(text)
    history = [
        ("A", NOW - timedelta(hours=hours), {"total": total, "currency": happened[0][2] if one_currency else currency})
        for hours, total, currency in happened
    ]
    scope = scope_of(expression, history, currency="EUR", rates={"SEK": Decimal("0.1")})
    ahead = list(flips_of(expression, scope))
    truth = expression.truth(scope)
    for at in sorted(instants(history) | set(ahead)):
        if ahead and at == ahead[0]:
            ahead.pop(0)
            truth = expression.truth(moved(scope, at))
        assert expression.truth(moved(scope, at)) is truth, f"{text} at {at}"
    assert not ahead
