"""How fast one write key may post."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.rates import Bucket, Rate, rate_of

NOW = datetime(2025, 3, 1, 12, 30, tzinfo=UTC)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def test_a_burst_goes_through_at_once_and_then_it_is_the_rate() -> None:
    bucket = Bucket(Rate(events=2, burst=3))
    assert [bucket.take(1, NOW) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take(1, NOW + seconds(0.25)) == 0.25
    assert bucket.take(1, NOW + seconds(0.5)) == 0
    assert bucket.take(1, NOW + seconds(0.5)) == 0.5


def test_a_request_larger_than_the_burst_is_taken_and_waited_off() -> None:
    bucket = Bucket(Rate(events=10, burst=1))
    assert bucket.take(100, NOW) == 0
    assert bucket.take(1, NOW) == 10
    assert bucket.take(1, NOW + seconds(9.9)) == pytest.approx(0.1)
    assert bucket.take(1, NOW + seconds(10)) == 0


def test_asking_costs_nothing() -> None:
    bucket = Bucket(Rate(events=1, burst=1))
    assert [bucket.take(0, NOW) for _ in range(5)] == [0] * 5
    assert bucket.take(1, NOW) == 0
    assert bucket.take(0, NOW) == 1


def test_a_rest_fills_no_more_than_the_burst() -> None:
    bucket = Bucket(Rate(events=1, burst=2))
    bucket.take(2, NOW)
    later = NOW + timedelta(days=400)
    assert [bucket.take(1, later) for _ in range(3)] == [0, 0, 1]


def test_a_clock_that_is_set_back_stops_nobody_for_long() -> None:
    bucket = Bucket(Rate(events=1, burst=1))
    bucket.take(1, NOW)
    assert bucket.take(1, NOW - timedelta(days=1)) == 1
    assert bucket.take(1, NOW - timedelta(days=1) + seconds(1)) == 0


def test_without_a_burst_it_is_what_ten_seconds_bring() -> None:
    assert rate_of(50) == Rate(50, 500)
    assert rate_of(0.01) == Rate(0.01, 1)
    assert rate_of(50, 20) == Rate(50, 20)


requests = st.lists(st.tuples(st.floats(0, 10), st.integers(1, 2500)), min_size=1, max_size=50)


@given(rate=st.builds(Rate, st.floats(0.01, 1e6), st.floats(1, 1e6)), posted=requests)
def test_no_stretch_of_time_brings_more_than_it_may_and_who_waits_as_told_gets_in(
    rate: Rate, posted: list[tuple[float, int]]
) -> None:
    bucket = Bucket(rate)
    now = NOW
    taken: list[tuple[datetime, int]] = []
    for pause, events in posted:
        now += seconds(pause)
        wait = bucket.take(events, now)
        if wait:
            # A microsecond is the finest that our time knows.
            now += seconds(wait) + timedelta(microseconds=1 + 1 / rate.events)
            assert bucket.take(events, now) == 0
        taken.append((now, events))
    for first, (begin, _) in enumerate(taken):
        for last in range(first, len(taken)):
            # The request that goes into debt is the last of its stretch, and may be of any size.
            before = sum(events for _, events in taken[first:last])
            brought = rate.burst + (taken[last][0] - begin).total_seconds() * rate.events
            assert before <= brought + 1e-3 * max(1, brought)
