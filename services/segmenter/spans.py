"""The days and months that tables are partitioned by. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

DAY = timedelta(days=1)


class Span(NamedTuple):
    """A day or a month (UTC) of a table: `[begin, end)`."""

    table: str
    name: str
    begin: datetime
    end: datetime


def day(table: str, moment: datetime) -> Span:
    return _day(table, moment.astimezone(UTC).date())


def month(table: str, moment: datetime) -> Span:
    moment = moment.astimezone(UTC)
    return _month(table, moment.year, moment.month)


# Each transaction asks, and hardly ever of another day.
@lru_cache(maxsize=256)
def _day(table: str, of: date) -> Span:
    begin = datetime(of.year, of.month, of.day, tzinfo=UTC)
    return Span(table, f"{table}_{begin:%Y%m%d}", begin, begin + DAY)


@lru_cache(maxsize=256)
def _month(table: str, year: int, of_year: int) -> Span:
    begin = datetime(year, of_year, 1, tzinfo=UTC)
    return Span(table, f"{table}_{begin:%Y%m}", begin, (begin + 31 * DAY).replace(day=1))


def months(table: str, moments: Iterable[datetime], since: datetime, until: datetime) -> set[Span]:
    """The months that have any of `moments` (UTC) and lie, even in part, between `since` and `until`."""
    found = {_month(table, *of) for of in {(moment.year, moment.month) for moment in moments}}
    return {span for span in found if span.end > since and span.begin <= until}
