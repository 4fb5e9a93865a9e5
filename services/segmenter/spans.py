"""The days and months that tables are partitioned by. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

DAY = timedelta(days=1)


class Span(NamedTuple):
    """A day or a month (UTC) of a table: `[begin, end)`."""

    table: str
    name: str
    begin: datetime
    end: datetime


def day(table: str, moment: datetime) -> Span:
    begin = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return Span(table, f"{table}_{begin:%Y%m%d}", begin, begin + DAY)


def month(table: str, moment: datetime) -> Span:
    begin = moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return Span(table, f"{table}_{begin:%Y%m}", begin, (begin + 31 * DAY).replace(day=1))


def months(table: str, moments: Iterable[datetime], since: datetime, until: datetime) -> set[Span]:
    """The months that have any of `moments` (UTC) and lie, even in part, between `since` and `until`."""
    days = {(moment.year, moment.month) for moment in moments}
    found = {month(table, datetime(year, of_year, 1, tzinfo=UTC)) for year, of_year in days}
    return {span for span in found if span.end > since and span.begin <= until}
