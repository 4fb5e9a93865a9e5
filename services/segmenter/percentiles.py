"""How many of the others a customer has outspent (`customer.spend_percentile`): histograms, and cut-offs of them. Pure.

What a customer has spent falls into a *bucket*: its first three digits and its size, so that amounts of one bucket are
less than 1 % apart. Bucket 0 is for who has spent nothing, or took all of it back, and is not counted.

The *cut-off* of a percentage p, from 1 to 99, is the smallest amount that somebody has spent such that p % of those who
have spent anything have spent less, by buckets. The list ends where nobody is above so many. A customer's percentile is
how many cut-offs they reach: 0 to 99, the same for all who spent as much, and never more than 100 - p % of them at p.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from shared.contracts.events import CutOffs
from shared.walltime import instant

NOTHING = 0
"""The bucket of who has spent nothing."""

_DAY = timedelta(days=1)
_DIGITS = 3
_FIRST = 100
"""The smallest number of so many digits."""
_STEPS = 9 * _FIRST
"""Buckets between an amount and its tenfold."""
_LEAST = -9
"""The exponent of the smallest amount that sums keep; what a rate makes of less is taken for that."""


def bucket_of(amount: Decimal) -> int:
    """The bucket of an amount: larger ones for larger amounts."""
    if amount <= 0:
        return NOTHING
    exponent = amount.adjusted()
    if exponent < _LEAST:
        return NOTHING + 1
    digits = int(amount.scaleb(_DIGITS - 1 - exponent))
    return (exponent - _LEAST) * _STEPS + digits - _FIRST + 1


def least_in(bucket: int) -> Decimal:
    """The smallest amount of a bucket."""
    if bucket <= NOTHING:
        return Decimal(0)
    size, step = divmod(bucket - 1, _STEPS)
    digits, exponent = step + _FIRST, size + _LEAST - _DIGITS + 1
    return Decimal(digits * 10**exponent) if exponent >= 0 else Decimal(digits).scaleb(exponent)


def cut_offs(histogram: Mapping[int, int]) -> tuple[int, ...]:
    """The buckets of the cut-offs of 1 %, 2 % and so on, where so many customers are in each bucket; none where nobody
    has spent anything."""
    counted = sorted((bucket, count) for bucket, count in histogram.items() if bucket > NOTHING and count > 0)
    total = sum(count for _, count in counted)
    found: list[int] = []
    below = 0
    for bucket, count in counted:
        reached = 100 * below // total
        found += [bucket] * (reached - len(found))
        below += count
    return tuple(found)


def as_record(histogram: Mapping[int, int], metric: str, now: datetime) -> CutOffs:
    """What to tell every partition, where `metric` is the id of the aggregate that was counted."""
    customers = sum(count for bucket, count in histogram.items() if bucket > NOTHING)
    amounts = tuple(map(least_in, cut_offs(histogram)))
    return CutOffs(metric=metric, amounts=amounts, customers=customers, received_at=now, v=3)


def percentile(cut_offs: Sequence[int], bucket: int) -> int:
    """The percentile of who stands in this bucket."""
    return bisect_right(cut_offs, bucket)


def next_night(after: datetime, zone: ZoneInfo) -> datetime:
    """When the next day begins in `zone` (UTC)."""
    return instant(after.astimezone(zone).date() + _DAY, time.min, zone)
