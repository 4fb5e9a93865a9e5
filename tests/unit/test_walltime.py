"""Wall clocks: the hours that do not exist, those that exist twice, and time zones that shops make up."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.walltime import instant, known_zone, next_instant, zone_of

OSLO = ZoneInfo("Europe/Oslo")
ZONES = st.sampled_from(
    ["Europe/Oslo", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "Asia/Beirut", "UTC"]
)
MOMENTS = st.integers(0, 27 * 365 * 86_400).map(
    lambda seconds: datetime(2008, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_hour_that_does_not_exist_is_the_first_instant_after_the_gap() -> None:
    # Clocks in Oslo went from 02:00 to 03:00 on 29 March 2026, at 01:00 UTC.
    assert instant(date(2026, 3, 29), time(2, 30), OSLO) == utc("2026-03-29 01:00")
    assert instant(date(2026, 3, 29), time(2, 0), OSLO) == utc("2026-03-29 01:00")
    assert instant(date(2026, 3, 29), time(3, 0), OSLO) == utc("2026-03-29 01:00")
    assert instant(date(2026, 3, 29), time(1, 59), OSLO) == utc("2026-03-29 00:59")


def test_hour_that_exists_twice_is_the_first_of_the_two() -> None:
    assert instant(date(2026, 10, 25), time(2, 30), OSLO) == utc("2026-10-25 00:30")


def test_between_the_two_of_a_doubled_hour_the_next_is_tomorrow() -> None:
    after = utc("2026-10-25 00:45")
    assert next_instant(after, time(2, 30), None, OSLO) == utc("2026-10-26 01:30")


def test_day_that_an_island_skipped_is_the_next_one() -> None:
    # Samoa had no 30 December 2011.
    assert instant(date(2011, 12, 30), time(10, 0), ZoneInfo("Pacific/Apia")) == utc("2011-12-30 10:00")


def test_exactly_now_counts() -> None:
    now = utc("2026-03-02 09:00")
    assert next_instant(now, time(10, 0), None, OSLO) == now
    assert next_instant(now + timedelta(seconds=1), time(10, 0), None, OSLO) == utc("2026-03-03 09:00")


def test_only_on_tuesdays() -> None:
    monday = utc("2026-03-02 12:00")
    assert next_instant(monday, time(10, 0), frozenset({1}), OSLO) == utc("2026-03-03 09:00")
    assert next_instant(monday, None, frozenset({1}), OSLO) == utc("2026-03-02 23:00")
    assert next_instant(monday, None, frozenset({0}), OSLO) == monday


@pytest.mark.parametrize("made_up", ["", "Mars/Olympus", "../etc/passwd", "/", "..", "a\0b", "Europe", "x" * 5000])
def test_time_zone_that_does_not_exist_is_the_brands(made_up: str) -> None:
    assert known_zone(made_up) is None
    assert zone_of(made_up, "Europe/Oslo").key == "Europe/Oslo"


@given(MOMENTS, st.times(), st.frozensets(st.integers(0, 6)), ZONES)
def test_the_next_time_of_day_is_never_before_and_never_over_a_fortnight_away(
    after: datetime, until: time, weekdays: frozenset[int], name: str
) -> None:
    where = ZoneInfo(name)
    found = next_instant(after, until, weekdays, where)
    assert after <= found <= after + timedelta(days=15)
    assert not weekdays or found.astimezone(where).weekday() in weekdays
    shown = found.astimezone(where)
    if shown.time() != until:
        # Only where clocks jumped: an instant earlier they did not show the time yet.
        assert (found - timedelta(microseconds=1)).astimezone(where).utcoffset() != shown.utcoffset()
    assert next_instant(found, until, weekdays, where) == found
