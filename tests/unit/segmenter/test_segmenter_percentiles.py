"""Spending as buckets, cut-offs and percentiles."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from services.segmenter.percentiles import NOTHING, bucket_of, cut_offs, least_in, next_night, percentile

amounts = st.decimals(Decimal("0.000001"), Decimal(10**18), allow_nan=False, allow_infinity=False)
spendings = st.lists(st.decimals(0, 5000, places=2), max_size=60)


def percentiles(spent: list[Decimal]) -> list[int]:
    buckets = [bucket_of(amount) for amount in spent]
    found = cut_offs(Counter(buckets))
    return [percentile(found, bucket) for bucket in buckets]


def test_of_a_hundred_buyers_the_best_twenty_are_at_eighty_and_above() -> None:
    found = percentiles([Decimal(10 * number) for number in range(1, 101)])
    assert found == list(range(100))
    assert sum(one >= 80 for one in found) == 20


def test_who_bought_nothing_is_at_zero_and_moves_nobody() -> None:
    assert percentiles([Decimal(0), Decimal(-5), Decimal(10), Decimal(20)]) == [0, 0, 0, 50]


def test_all_who_spent_the_same_are_at_the_same_percentile() -> None:
    assert percentiles([Decimal(10)] * 3 + [Decimal(90)]) == [0, 0, 0, 75]
    assert percentiles([Decimal(10)] * 4) == [0] * 4


def test_before_anybody_has_bought_there_are_no_cut_offs() -> None:
    assert cut_offs({}) == ()
    assert cut_offs({NOTHING: 9, bucket_of(Decimal(10)): 0}) == ()


def test_cut_offs_are_amounts_that_a_person_can_read() -> None:
    spent = [Decimal("19.99"), Decimal("1234.56"), Decimal("49.95"), Decimal(100)]
    found = cut_offs(Counter(map(bucket_of, spent)))
    assert [str(least_in(found[at - 1])) for at in (1, 25, 26, 50, 75)] == ["49.9", "49.9", "100", "100", "1230"]
    assert len(found) == 75


def test_a_night_begins_at_midnight_in_the_shop_also_where_a_day_is_shorter() -> None:
    oslo = ZoneInfo("Europe/Oslo")
    begin = datetime(2026, 3, 28, 23, tzinfo=UTC)
    assert next_night(begin - timedelta(microseconds=1), oslo) == begin
    assert next_night(begin, oslo) == begin + timedelta(hours=23)


@given(amounts)
def test_a_bucket_holds_amounts_less_than_one_per_cent_apart(amount: Decimal) -> None:
    bucket = bucket_of(amount)
    assert least_in(bucket) <= amount < least_in(bucket + 1)
    assert least_in(bucket + 1) <= least_in(bucket) * Decimal("1.01")
    assert bucket_of(least_in(bucket)) == bucket


@given(amounts, amounts)
def test_who_spent_more_is_in_no_lower_bucket(one: Decimal, other: Decimal) -> None:
    assert (one <= other) <= (bucket_of(one) <= bucket_of(other))


@given(spendings)
def test_a_percentile_is_how_many_per_cent_of_the_buyers_spent_less(spent: list[Decimal]) -> None:
    buckets = [bucket_of(amount) for amount in spent]
    buyers = [bucket for bucket in buckets if bucket > NOTHING]
    for bucket, found in zip(buckets, percentiles(spent), strict=True):
        below = sum(other < bucket for other in buyers)
        assert found == (100 * below // len(buyers) if bucket > NOTHING else 0)
