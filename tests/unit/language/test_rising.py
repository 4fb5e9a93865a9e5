"""Which counts only make a condition truer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.language.aggregates import observe
from shared.language.analysis import ROOTS
from shared.language.expressions import Expression, Scope, compile_expression
from shared.language.rising import least_counts, needed_counts, rising

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
TEXTS = [
    'count("A") >= 2',
    '2 < count("A", within=3d)',
    'exists("A")',
    'count("A") >= 1 and count("A", within=2d) == 0',
    'count("A") >= 1 or count("B") == 1',
    'not exists("A")',
    'not (count("A") < 2)',
    'count("A") - count("B") > 0',
    'count("A", where=event.x == 1) > 1 and traits.y == null',
    'sum("A", "x") >= 1',
]


def condition(text: str) -> Expression:
    return compile_expression(text, allowed=ROOTS).expression


def rises(text: str) -> int:
    return len(rising(condition(text)))


@pytest.mark.parametrize(
    ("text", "count"), [(TEXTS[0], 1), (TEXTS[1], 1), (TEXTS[2], 1), (TEXTS[5], 0), (TEXTS[7], 0), (TEXTS[9], 0)]
)
def test_a_count_that_has_to_reach_a_number_rises(text: str, count: int) -> None:
    assert rises(text) == count


def test_what_is_read_both_ways_does_not_rise_with_what_it_is_to_stay_below() -> None:
    names = {aggregate.id: aggregate.window for aggregate in condition(TEXTS[3]).definitions}
    assert [names[id] for id in rising(condition(TEXTS[3]))] == [None]


@pytest.mark.parametrize(
    ("text", "least"), [(TEXTS[0], [2]), (TEXTS[1], [3]), (TEXTS[3], [1]), (TEXTS[4], []), (TEXTS[7], [])]
)
def test_a_count_that_everything_waits_for_has_to_reach_its_number(text: str, least: list[int]) -> None:
    assert list(least_counts(condition(text)).values()) == least


def test_a_count_that_is_read_twice_is_not_waited_for() -> None:
    assert not least_counts(condition('count("A", within=2d) >= 3 and count("A", within=2d) < 9'))


@pytest.mark.parametrize(
    ("text", "holding"),
    [
        ('count("A") == 1 and count("B", within=2d) >= 1', [[1]]),
        ('3 > count("A") and 1 <= count("B") and traits.y', [[0, 1, 2], [1, 2, 3, 4]]),
        ('count("A") != 2', [[0, 1, 3, 4]]),
        ('count("A") == 1 or count("B") == 1', []),
        ('not (count("A") == 1)', []),
        ('count("A") == true and count("A") >= 0.5 and count("A") == count("B")', []),
    ],
)
def test_a_count_that_only_events_change_is_needed_as_it_is_asked_for(text: str, holding: list[list[int]]) -> None:
    needed = needed_counts(condition(text))
    assert [[n for n in range(5) if compare(n, number)] for _, compare, number in needed] == holding


@given(
    st.sampled_from(TEXTS), st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 5), st.integers(0, 2)), max_size=8)
)
def test_while_it_holds_an_event_that_makes_it_rise_leaves_it_true(
    text: str, happened: list[tuple[str, int, int]]
) -> None:
    expression = condition(text)
    states: dict[str, object] = {}
    for number, (name, days, x) in enumerate(happened):
        before = expression.truth(Scope(now=NOON, aggregates=states))
        fed = [aggregate for aggregate in expression.definitions if aggregate.event == name]
        for aggregate in fed:
            at = NOON - timedelta(days=days)
            states[aggregate.id] = observe(aggregate, states.get(aggregate.id), str(number), at, {"x": x}, NOON)
        if before and all(aggregate.id in rising(expression) for aggregate in fed):
            assert expression.truth(Scope(now=NOON, aggregates=states))
