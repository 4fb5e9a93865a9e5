"""History that is not in order is sorted, whatever its size."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.backtest.ordering import OutOfOrder, in_order, merge, sort
from services.backtest.reading import Refusal
from shared.contracts.events import Event

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def events(minutes: Sequence[int], source: str = "shop") -> list[Event]:
    return [
        Event(id=str(number), source=source, key="ann", occurred_at=at, received_at=at)
        for number, minute in enumerate(minutes)
        for at in [NOON + timedelta(minutes=minute)]
    ]


def test_what_is_in_order_passes() -> None:
    told = [*events([1, 1, 2]), Refusal((0, 4), "x:4", "invalid_json", "no"), *events([3])]
    assert list(in_order(told)) == told


def test_what_is_not_in_order_is_noticed() -> None:
    with pytest.raises(OutOfOrder):
        list(in_order(events([1, 3, 2])))


@given(st.lists(st.integers(0, 20), max_size=40), st.integers(1, 10))
def test_sorting_is_stable_however_little_is_held(minutes: list[int], held: int) -> None:
    told = events(minutes)
    assert list(sort(told, held)) == sorted(told, key=lambda event: event.received_at)


def test_refusals_are_not_lost_in_sorting() -> None:
    refusal = Refusal((0, 4), "x:4", "invalid_json", "no")
    assert refusal in list(sort([*events([2]), refusal, *events([1])], 1))


def test_two_histories_are_taken_as_one() -> None:
    one, other = events([1, 3, 5], "a"), events([2, 3, 4], "b")
    assert [event.source for event in merge([one, other]) if isinstance(event, Event)] == list("ababba")
