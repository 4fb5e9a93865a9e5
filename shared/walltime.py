"""Wall-clock time as instants. An hour that does not exist in spring is the first instant after the gap; the hour that
exists twice in autumn is the first of the two. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_SECOND = timedelta(seconds=1)


def zone_of(name: str | None, otherwise: str) -> ZoneInfo:
    """The timezone that a customer named, or `otherwise` (the brand's, which is proven) where that is none."""
    if name:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass  # a trait is whatever a shop sent
    return ZoneInfo(otherwise)


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
