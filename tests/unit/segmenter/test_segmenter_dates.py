"""When birthdays and other dates come: to the minute, in the customer's own time, once a year."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.segmenter.dates import Occasion, in_year, next_occasion, read_day
from shared.language.playbook import DateTrigger

OSLO = ZoneInfo("Europe/Oslo")
NEW_YORK = ZoneInfo("America/New_York")


def yearly(at: str = "09:00", before: int = 0) -> DateTrigger:
    return DateTrigger(("birthday",), "year", time.fromisoformat(at), before)


def once(at: str = "09:00", before: int = 0) -> DateTrigger:
    return DateTrigger(("renewal",), None, time.fromisoformat(at), before)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_birthday_comes_at_nine_in_the_customers_own_time() -> None:
    found = next_occasion(yearly(), "1990-06-15", OSLO, utc("2026-01-01"), None)
    assert found == Occasion(utc("2026-06-15T07:00"), "2026")
    found = next_occasion(yearly(), "1990-06-15", NEW_YORK, utc("2026-01-01"), None)
    assert found == Occasion(utc("2026-06-15T13:00"), "2026")


def test_birthday_without_a_year_of_birth_comes_as_well() -> None:
    for written in ("--06-15", "06-15", "1990-06-15T00:00:00Z", "1990-06-15"):
        found = next_occasion(yearly(), written, OSLO, utc("2026-01-01"), None)
        assert found is not None
        assert found.due == utc("2026-06-15T07:00")


@pytest.mark.parametrize("value", [None, 7, True, "", "soon", "1990-02-30", "1990-13-01", "19900615", ["1990-06-15"]])
def test_trait_that_is_no_date_brings_nothing(value: object) -> None:
    assert next_occasion(yearly(), value, OSLO, utc("2026-01-01"), None) is None


def test_born_on_29_february_is_greeted_on_28_february_in_common_years() -> None:
    dues = []
    after, fired = utc("2027-01-01"), None
    for _ in range(3):
        found = next_occasion(yearly(), "1992-02-29", OSLO, after, fired)
        assert found is not None
        dues.append(found.due)
        after, fired = found.due, found.name
    assert dues == [utc("2027-02-28T08:00"), utc("2028-02-29T08:00"), utc("2029-02-28T08:00")]


def test_three_calendar_days_before_may_lie_in_the_year_before() -> None:
    found = next_occasion(yearly(before=3), "1990-01-02", OSLO, utc("2026-06-01"), None)
    assert found == Occasion(utc("2026-12-30T08:00"), "2027")


def test_days_before_are_calendar_days_even_over_a_change_of_the_clock() -> None:
    # Clocks in Oslo go forward on 29 March 2026: three days before are 71 hours before.
    found = next_occasion(yearly(before=3), "1990-03-30", OSLO, utc("2026-01-01"), None)
    assert found is not None
    assert found.due == utc("2026-03-27T08:00")


def test_hour_that_does_not_exist_is_the_first_instant_after_the_gap() -> None:
    found = next_occasion(yearly("02:30"), "1990-03-29", OSLO, utc("2026-01-01"), None)
    assert found is not None
    assert found.due == utc("2026-03-29T01:00")
    assert found.due.astimezone(OSLO).time() == time(3, 0)


def test_hour_that_exists_twice_is_the_first_of_the_two() -> None:
    found = next_occasion(yearly("02:30"), "1990-10-25", OSLO, utc("2026-01-01"), None)
    assert found is not None
    assert found.due == utc("2026-10-25T00:30")


def test_exactly_now_counts_and_a_moment_later_waits_for_the_next_year() -> None:
    due = utc("2026-06-15T07:00")
    now = next_occasion(yearly(), "1990-06-15", OSLO, due, None)
    later = next_occasion(yearly(), "1990-06-15", OSLO, due + timedelta(microseconds=1), None)
    assert now == Occasion(due, "2026")
    assert later == Occasion(utc("2027-06-15T07:00"), "2027")


def test_birthday_that_was_edited_after_it_came_does_not_come_again_this_year() -> None:
    found = next_occasion(yearly(), "1990-11-15", OSLO, utc("2026-06-16"), "2026")
    assert found == Occasion(utc("2027-11-15T08:00"), "2027")


def test_birth_lies_ahead_so_no_birthday_comes_before_it() -> None:
    found = next_occasion(yearly(), "2030-06-15", OSLO, utc("2026-01-01"), None)
    assert found is not None
    assert found.name == "2030"


def test_single_date_comes_once_and_again_only_when_it_is_moved() -> None:
    found = next_occasion(once(before=1), "2026-06-15", OSLO, utc("2026-01-01"), None)
    assert found == Occasion(utc("2026-06-14T07:00"), "2026-06-15")
    assert next_occasion(once(), "2026-06-15", OSLO, utc("2026-06-15T07:00"), "2026-06-15") is None
    moved = next_occasion(once(), "2026-07-15", OSLO, utc("2026-06-15T07:00"), "2026-06-15")
    assert moved == Occasion(utc("2026-07-15T07:00"), "2026-07-15")
    assert next_occasion(once(), "2025-06-15", OSLO, utc("2026-01-01"), None) is None
    assert next_occasion(once(), "--06-15", OSLO, utc("2026-01-01"), None) is None


births = st.dates(date(1920, 1, 1), date(2020, 12, 31))
zones = st.sampled_from(["Europe/Oslo", "America/New_York", "Pacific/Apia", "Asia/Kathmandu", "Australia/Lord_Howe"])
moments = st.datetimes(datetime(2021, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(births, zones, moments, st.times(), st.integers(0, 30))
def test_each_year_has_exactly_one_birthday(born: date, zone: str, start: datetime, at: time, before: int) -> None:
    trigger = yearly(at.replace(microsecond=0).isoformat(), before)
    after, fired, years = start, None, []
    for _ in range(6):
        found = next_occasion(trigger, born.isoformat(), ZoneInfo(zone), after, fired)
        assert found is not None
        assert found.due >= after
        years.append(int(found.name))
        after, fired = found.due, found.name
    assert years == list(range(years[0], years[0] + 6))
    assert years[0] in (start.year - 1, start.year, start.year + 1, start.year + 2)


@given(births, st.integers(2021, 2100))
def test_anniversary_exists_in_every_year(born: date, year: int) -> None:
    day = read_day(born.isoformat())
    assert day is not None
    found = in_year(day, year)
    assert (found.month, found.day) == (born.month, born.day) or (found.month, found.day) == (2, 28)
