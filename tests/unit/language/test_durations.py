"""Durations as text."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.language.durations import LONGEST, DurationError, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0m", timedelta(0)),
        ("30m", timedelta(minutes=30)),
        ("1h", timedelta(hours=1)),
        ("2d", timedelta(hours=48)),
        ("1w", timedelta(days=7)),
    ],
)
def test_a_duration_is_elapsed_time(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "30", "m", "30 m", "30s", "1.5h", "-1h", "1h30m", "٣d"])
def test_what_is_no_duration_is_refused_with_what_one_looks_like(text: str) -> None:
    with pytest.raises(DurationError, match="30m, 1h, 2d, 1w"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("2 days", "2d"), ("1H", "1h"), ("90min", "90m"), ("1 month", "30d"), ("1 day, 12 hours", "36h")],
)
def test_what_a_person_would_take_for_a_duration_is_answered_with_it(text: str, meant: str) -> None:
    with pytest.raises(DurationError, match=f'Did you mean "{meant}"'):
        parse_duration(text)


def test_a_duration_beyond_a_hundred_years_is_refused_with_the_most_that_can_be_said() -> None:
    with pytest.raises(DurationError, match="at most 36500d"):
        parse_duration("36501d")


@given(st.integers(min_value=0, max_value=LONGEST // timedelta(minutes=1)))
def test_every_whole_minute_survives_being_written_and_read(minutes: int) -> None:
    duration = timedelta(minutes=minutes)
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(hours=24), "1d"),
        (timedelta(minutes=90), "90m"),
        (timedelta(days=14), "2w"),
        (timedelta(seconds=90.5), "90.5s"),
        (timedelta(0), "0m"),
    ],
)
def test_a_duration_is_shown_in_the_largest_unit_that_divides_it(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text
