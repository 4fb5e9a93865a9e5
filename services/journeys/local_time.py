"""Wall clocks: the instant of a time of day at a place. Pure.

The hour that does not exist in spring is the first instant after the gap; the hour that exists twice in autumn is the
first of the two.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

_DAY = timedelta(days=1)


def zone_name(customer: str | None, brand: str) -> str:
    """The customer's timezone where it is one that exists, else the brand's."""
    return customer if customer and _zone(customer) is not None else brand


def zone(name: str) -> ZoneInfo:
    """A timezone by its IANA name; UTC for a name that this machine does not know."""
    return _zone(name) or ZoneInfo("UTC")


@lru_cache(maxsize=2048)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        # KeyError: no such zone. The others: names that are no file names, such as "..", "/", or one with a NUL.
        return None


def instant(day: date, at: time, where: ZoneInfo) -> datetime:
    """The instant (UTC) at which clocks there show this date and time."""
    wall = datetime.combine(day, at)
    first = wall.replace(tzinfo=where, fold=0).astimezone(UTC)
    if first.astimezone(where).replace(tzinfo=None) == wall:
        return first
    # In a gap: read with the offset from before it, `first` lies after the change; with the one from after it, before.
    before, after = wall.replace(tzinfo=where, fold=1).astimezone(UTC), first
    offset = after.astimezone(where).utcoffset()
    while after - before > timedelta(microseconds=1):
        middle = before + (after - before) / 2
        if middle.astimezone(where).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after


def next_instant(after: datetime, until: time | None, weekdays: Collection[int] | None, where: ZoneInfo) -> datetime:
    """The first instant (UTC) at or after `after` that shows `until` there, on one of `weekdays` (0 is Monday).

    Without `until` any time of such a day will do: `after` itself, or the beginning of the next one.
    """
    local = after.astimezone(where)
    if until is None and (not weekdays or local.weekday() in weekdays):
        return after
    for days in range(-1, 16):
        found = instant(local.date() + days * _DAY, until or time.min, where)
        if found >= after and (not weekdays or found.astimezone(where).weekday() in weekdays):
            return found
    raise AssertionError(f"no {until} on {weekdays} after {after} in {where}")
