"""When a date that a journey waits for comes next: birthdays, anniversaries, renewals. Pure.

Wall clock is the customer's timezone, else the brand's (see `shared.walltime`). 29 February is 28 February in common
years.
"""

from __future__ import annotations

from calendar import isleap
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from shared.language.playbook import DateTrigger
from shared.walltime import Day, instant, read_day

_TWO_DAYS = timedelta(days=2)


class Occasion(NamedTuple):
    """The next time that a date trigger fires: when, and which one it is (the year; the date of a single one)."""

    due: datetime
    name: str


def in_year(day: Day, year: int) -> date:
    """The anniversary of `day` in `year`."""
    if (day.month, day.day) == (2, 29) and not isleap(year):
        return date(year, 2, 28)
    return date(year, day.month, day.day)


def next_occasion(
    trigger: DateTrigger, value: Any, zone: ZoneInfo, after: datetime, fired: str | None
) -> Occasion | None:
    """The first occasion due at or after `after` that comes later than the one that `fired` last.

    Yearly ones count by the year of the anniversary, so whatever is edited there is one for each calendar year.
    """
    day = read_day(value)
    if day is None:
        return None
    lead = timedelta(days=trigger.before)
    if trigger.every is None:
        once = day.date
        if once is None:
            return None
        due = instant(once - lead, trigger.at, zone)
        return Occasion(due, once.isoformat()) if due >= after and once.isoformat() != fired else None
    year = max(after.year - 1, day.year or 1, int(fired) + 1 if fired else 1)
    # No clock is two days from another.
    over = after.date() - _TWO_DAYS
    while year < 9999:
        on = in_year(day, year) - lead
        if on >= over and (due := instant(on, trigger.at, zone)) >= after:
            return Occasion(due, str(year))
        year += 1
    return None
