"""Wall-clock time as instants. An hour that does not exist in spring is the first instant after the gap; the hour that
exists twice in autumn is the first of the two. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_DAY_TEXT = re.compile(r"(?:(?P<year>\d{4})-|--)?(?P<month>\d{2})-(?P<day>\d{2})(?:$|[T ])")


class Day(NamedTuple):
    """A day of the year, and the year where it is known."""

    month: int
    day: int
    year: int | None

    @property
    def date(self) -> date | None:
        """The very day, where the year is known."""
        return None if self.year is None else date(self.year, self.month, self.day)


def read_day(value: object) -> Day | None:
    """A trait as a day: `1990-02-28`, `1990-02-28T00:00:00Z` (its day as written), `--02-28` or `02-28`.

    None for anything else: a trait is what a shop sent, so it may be any value.
    """
    found = _DAY_TEXT.match(value.strip()) if isinstance(value, str) else None
    if found is None:
        return None
    year = int(found["year"]) if found["year"] else None
    month, day = int(found["month"]), int(found["day"])
    try:
        date(2000 if year is None else year, month, day)
    except ValueError:
        return None
    return Day(month, day, year)


def known_zone(name: object) -> ZoneInfo | None:
    """The timezone with this IANA name, or None where that is none: a trait is whatever a shop sent."""
    return _found(name) if isinstance(name, str) and 0 < len(name) <= 64 else None


@lru_cache(maxsize=2048)
def _found(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        # KeyError: no such zone. The others: names that are no file names, such as "..", "/", or one with a NUL.
        return None


def zone_of(name: str | None, otherwise: str) -> ZoneInfo:
    """The timezone that a customer named, or `otherwise` (the brand's, which is proven) where that is none."""
    return known_zone(name) or ZoneInfo(otherwise)


@lru_cache(4_096)  # the same few nights and birthdays for all mails of a day
def instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    """The first instant (UTC) at which a clock in `zone` shows `at`, or later where it never does, on `day`."""
    local = datetime.combine(day, at, zone)
    found = local.astimezone(UTC)
    if found.astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None):
        return found
    # In a gap, fold=0 reads with the offset before it and fold=1 with the one after: the gap ends between the two.
    early, late = local.replace(fold=1).astimezone(UTC), found
    after = late.astimezone(zone).utcoffset()
    while late - early > _SECOND:
        middle = early + (late - early) // 2
        if middle.astimezone(zone).utcoffset() == after:
            late = middle
        else:
            early = middle
    return late.replace(microsecond=0)


def next_instant(after: datetime, at: time | None, weekdays: Collection[int] | None, zone: ZoneInfo) -> datetime:
    """The first instant (UTC) at or after `after` that shows `at` in `zone`, on one of `weekdays` (0 is Monday).

    Without `at` any time of such a day will do: `after` itself, or the beginning of the next one.
    """
    local = after.astimezone(zone)
    if at is None and (not weekdays or local.weekday() in weekdays):
        return after
    for days in range(-1, 16):
        found = instant(local.date() + days * _DAY, at or time.min, zone)
        if found >= after and (not weekdays or found.astimezone(zone).weekday() in weekdays):
            return found
    raise AssertionError(f"no {at} on {weekdays} after {after} in {zone}")
