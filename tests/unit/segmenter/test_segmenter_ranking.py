"""Customers between two nights: where they are counted, and the percentile that they have."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segmenter_world import START, Road, activation, at, cut_offs, event, playbook

from services.segmenter.history import Kind
from services.segmenter.percentiles import NOTHING, bucket_of
from services.segmenter.rules import compile_rules
from shared.contracts.events import Activation, CutOffs, Event, EventRecord
from shared.language.aggregates import SPEND, aggregate_of

SEGMENTS = {
    "top": "customer.spend_percentile >= 2",
    "low": "customer.spend_percentile < 2",
    "top-lookers": 'in_segment("top") and exists("Page Viewed")',
}
RANKING = playbook(segments=SEGMENTS, ranks=True, name="ranking")
ABROAD = msgspec.structs.replace(
    RANKING, hash="abroad", brand=msgspec.structs.replace(RANKING.brand, currency="NOK", rates={"EUR": 12})
)
UNTOLD = playbook(segments=SEGMENTS, name="untold")
"""No journey asks for percentiles."""
PAID = aggregate_of("sum", "Order Paid", ("amount",))
PAYING = msgspec.structs.replace(RANKING, hash="paying", spend=PAID, aggregates={**RANKING.aggregates, PAID.id: PAID})
COUNTING = playbook(segments={"buyers": 'count("Order Completed") >= 1'}, name="counting")


def order(moment: datetime, total: Any, key: str = "ann", **about: Any) -> Event:
    return event("Order Completed", moment, key=key, total=total, currency="EUR", **about)


def bucket(amount: int) -> int:
    return bucket_of(Decimal(amount))


def spent(road: Road, key: str = "ann") -> int | None:
    return road.profile(key).spent


def test_customers_are_counted_by_what_they_have_spent() -> None:
    road = Road(RANKING)
    road.take(order(at(1), 100), event("Page Viewed", at(1), key="bob"))
    assert road.spend == {bucket(100): 1}
    road.take(order(at(2), 50), order(at(2), 7, "bob"))
    assert +road.spend == {bucket(150): 1, bucket(7): 1}
    road.take(order(at(3), -150))
    assert +road.spend == {bucket(7): 1}
    assert (spent(road), spent(road, "bob")) == (NOTHING, bucket(7))


def test_nobody_is_counted_where_nothing_asks_for_percentiles() -> None:
    road = Road(playbook())
    road.take(order(at(1), 100), cut_offs(at(2), 10))
    road.take(order(at(3), 100))
    assert not road.spend
    assert (spent(road), road.profile().percentile, road.profile().ranked_at) == (None, None, None)


def test_the_cut_offs_of_a_night_say_the_percentile_until_the_next() -> None:
    road = Road(RANKING)
    road.take(order(at(1), 100), order(at(1), 30, "bob"))
    assert road.profile().percentile is None
    road.take(cut_offs(at(2), 20, 50, 100))
    road.sweep()
    assert (road.profile().percentile, road.profile("bob").percentile) == (3, 1)
    road.take(order(at(2.5), 500, "bob"))
    assert road.profile("bob").percentile == 1
    road.take(cut_offs(at(3), 20, 50, 100, 530))
    road.sweep()
    assert (road.profile().percentile, road.profile("bob").percentile) == (3, 4)


def test_of_two_nights_at_one_instant_the_later_counts() -> None:
    road = Road(RANKING)
    road.take(order(at(1), 30), cut_offs(at(2), 20))
    road.sweep()
    road.take(cut_offs(at(2), 20, 25))
    road.sweep()
    assert road.profile().percentile == 2


def test_an_order_before_the_sweep_comes_too_late_for_the_night() -> None:
    road = Road(RANKING)
    road.take(order(at(1), 30), cut_offs(at(2), 20, 50, 100))
    road.take(order(at(2), 500))
    road.sweep()
    assert road.profile().percentile == 1


def test_a_newcomer_has_none_until_the_next_night() -> None:
    road = Road(RANKING)
    road.take(order(at(1), 30), cut_offs(at(2), 20, 50), order(at(2), 60, "bob"))
    road.sweep()
    assert (road.profile().percentile, road.profile("bob").percentile) == (1, None)
    road.take(cut_offs(at(3), 20, 50))
    road.sweep()
    assert road.profile("bob").percentile == 2


def test_who_has_spent_nothing_is_at_zero() -> None:
    road = Road(RANKING)
    road.take(event("Page Viewed", at(1)), cut_offs(at(2), 20))
    road.sweep()
    assert road.profile().percentile == 0


def test_cut_offs_of_something_else_are_passed_over() -> None:
    road = Road(RANKING)
    road.take(order(at(1), 30), cut_offs(at(2), 20, metric="another"))
    road.sweep()
    assert road.profile().percentile is None


def test_other_rates_and_other_playbooks_count_everybody_anew() -> None:
    road = Road(COUNTING, RANKING, ABROAD)
    road.take(order(at(1), 100))
    assert not road.spend
    road.take(activation(RANKING, at(2)))
    road.sweep()
    assert +road.spend == {bucket(100): 1}
    road.take(activation(ABROAD, at(3)))
    road.sweep()
    assert +road.spend == {bucket(1200): 1}
    road.take(activation(COUNTING, at(4)))
    road.sweep()
    assert not +road.spend


@pytest.mark.parametrize("swept", [False, True])
def test_of_cut_offs_and_a_playbook_what_came_first_comes_first_whenever_the_sweep_comes(swept: bool) -> None:
    def percentile_after(*records: EventRecord) -> int | None:
        road = Road(RANKING, ABROAD)
        road.take(order(at(1), 100))
        for record in records:
            road.take(record)
            if swept:
                road.sweep()
        road.sweep()
        return road.profile().percentile

    # 100 EUR are 1200 NOK.
    assert percentile_after(cut_offs(at(2), 20, 50, 1000), activation(ABROAD, at(3))) == 2
    assert percentile_after(activation(ABROAD, at(2)), cut_offs(at(3), 20, 50, 1000)) == 3


def test_segments_are_asked_again_after_a_night_and_the_first_is_the_playbooks_doing() -> None:
    road = Road(RANKING)
    road.take(order(at(1), 30), event("Page Viewed", at(1)))
    assert road.profile().segments == ()
    road.take(cut_offs(at(2), 20, 50), until=at(2.1))
    road.emitted.clear()
    road.sweep()
    [first] = road.updates
    assert (first.cause, first.entered, first.as_of) == ("definition", ("low",), at(2.1))
    road.take(order(at(2.5), 30), cut_offs(at(3), 20, 50))
    road.emitted.clear()
    road.sweep()
    [second] = road.updates
    assert (second.cause, second.entered, second.left) == ("time", ("top", "top-lookers"), ("low",))
    assert second.customer.spend_percentile == 2
    assert [(row.kind, row.name, row.id) for row in road.rows[-1:]] == [(Kind.TIME, "customer.spend_percentile", "2")]


def test_a_newcomers_first_night_is_the_doing_of_time() -> None:
    road = Road(RANKING)
    road.take(cut_offs(at(2), 20, 50), order(at(2), 60), cut_offs(at(3), 20, 50))
    road.sweep()
    assert [(told.cause, told.entered) for told in road.updates if told.entered] == [("time", ("top",))]


def test_the_first_night_may_be_told_twice() -> None:
    road = Road(RANKING)
    road.take(order(at(1), 60), cut_offs(at(2), 20, 50), cut_offs(at(2, minutes=1), 20, 50))
    road.sweep()
    assert [told.cause for told in road.updates if told.entered] == ["definition"]


def test_a_night_with_nobody_to_rank_is_not_the_first() -> None:
    road = Road(RANKING)
    road.take(
        cut_offs(at(2)), order(at(2.5), 60), cut_offs(at(3), 20, 50), order(at(3.5), -30), cut_offs(at(4), 20, 50)
    )
    road.sweep()
    assert [(told.cause, told.entered) for told in road.updates if told.entered][-2:] == [
        ("definition", ("top",)),
        ("time", ("low",)),
    ]


def test_where_something_else_counts_as_spending_there_is_a_first_night_again() -> None:
    road = Road(RANKING, PAYING)
    road.take(order(at(1), 60), cut_offs(at(2), 20, 70))
    road.sweep()
    road.take(activation(PAYING, at(3)), event("Order Paid", at(3), amount=90, currency="EUR"))
    road.sweep()
    assert (road.profile().spent, road.profile().percentile, road.profile().segments) == (bucket(90), 1, ("low",))
    road.take(cut_offs(at(3.5), 1), cut_offs(at(4), 20, 70, metric=PAID.id))
    road.emitted.clear()
    road.sweep()
    [told] = [told for told in road.updates if told.entered]
    assert (told.cause, told.entered) == ("definition", ("top",))


def test_who_is_ranked_when_something_happens_is_ranked_before_it() -> None:
    road = Road(RANKING)
    road.take(order(at(1), 60), cut_offs(at(2), 20, 50))
    road.emitted.clear()
    road.take(event("Page Viewed", at(2)))
    ranked, viewed = road.updates
    assert (ranked.event, ranked.entered) == (None, ("top",))
    assert viewed.entered == ("top-lookers",)


def test_journeys_that_ask_are_told_of_everybody_whose_percentile_changed() -> None:
    asked, unasked = Road(RANKING), Road(UNTOLD)
    for road in (asked, unasked):
        road.take(order(at(1), 60), cut_offs(at(2), 20, 50))
        road.sweep()
        road.take(cut_offs(at(3), 20, 50, 55))
        road.emitted.clear()
        rows = len(road.rows)
        road.sweep()
        assert len(road.rows) == rows, "it has changed nothing that history tells"
    [told] = asked.updates
    assert (told.customer.spend_percentile, told.entered, told.left) == (3, (), ())
    assert unasked.updates == []


def test_a_journey_of_an_older_playbook_goes_on_asking() -> None:
    rules = compile_rules(COUNTING, [RANKING])
    assert rules.spend == SPEND
    assert rules.aggregates.keys() > COUNTING.aggregates.keys()
    assert rules.percentile_travels
    assert compile_rules(COUNTING, [UNTOLD]).spend is None


def test_a_night_that_changes_nothing_writes_nothing() -> None:
    road = Road(RANKING)
    road.take(order(at(1), 30), cut_offs(at(2), 20))
    road.sweep()
    packed, told = dict(road.packed), len(road.emitted)
    road.take(cut_offs(at(3), 20))
    road.sweep()
    assert (road.packed, len(road.emitted)) == (packed, told)


@st.composite
def stories(draw: st.DrawFn) -> list[EventRecord]:
    """Orders, views, nights and switches."""
    story: list[EventRecord] = []
    now = START
    for number in range(draw(st.integers(1, 20))):
        now += timedelta(hours=draw(st.sampled_from([0, 1, 20])))
        key, n = draw(st.sampled_from(["ann", "bob"])), draw(st.integers(-2, 9))
        match draw(st.sampled_from(["order", "order", "view", "night", "night", "switch"])):
            case "order":
                story.append(order(now, 12.5 * n, key, id=f"e{number}"))
            case "view":
                story.append(event("Page Viewed", now, key=key, id=f"e{number}"))
            case "night":
                story.append(cut_offs(now, *range(10, 20 + 10 * n, 7)))
            case _:
                story.append(activation([RANKING, ABROAD, COUNTING][n % 3], now))
    return story


def settled(road: Road) -> Any:
    road.sweep()
    return road.packed, +road.spend, road.memo


def percentiles_in(road: Road) -> dict[str, int | None]:
    return {key: road.profile(key).percentile for key in road.packed}


@settings(max_examples=60, deadline=None)
@given(stories(), st.lists(st.booleans(), min_size=20, max_size=20))
def test_batches_make_no_difference(story: list[EventRecord], cuts: list[bool]) -> None:
    one_by_one, in_batches = Road(RANKING, ABROAD, COUNTING), Road(RANKING, ABROAD, COUNTING)
    batch: list[EventRecord] = []
    for record, cut in zip(story, cuts, strict=False):
        one_by_one.take(record)
        batch.append(record)
        if cut:
            in_batches.take(*batch)
            batch = []
    in_batches.take(*batch)
    assert settled(in_batches) == settled(one_by_one)
    assert in_batches.emitted == one_by_one.emitted


@settings(max_examples=60, deadline=None)
@given(stories(), st.lists(st.booleans(), min_size=20, max_size=20))
def test_what_is_counted_is_where_the_customers_are(story: list[EventRecord], sweeps: list[bool]) -> None:
    road = Road(RANKING, ABROAD, COUNTING)
    for record, sweeping in zip(story, sweeps, strict=False):
        road.take(record)
        if sweeping:
            road.sweep()
        buckets = [road.profile(key).spent for key in road.packed]
        assert +road.spend == Counter(bucket for bucket in buckets if bucket)


@settings(max_examples=60, deadline=None)
@given(stories(), st.lists(st.booleans(), min_size=20, max_size=20))
def test_when_the_sweep_comes_makes_no_difference_to_a_percentile(story: list[EventRecord], sweeps: list[bool]) -> None:
    at_once, late = Road(RANKING), Road(RANKING)
    for record, sweeping in zip(story, sweeps, strict=False):
        if isinstance(record, Activation):
            continue
        if isinstance(record, CutOffs):
            late.sweep()  # none are sent before everybody has those of the last night
        at_once.take(record)
        at_once.sweep()
        late.take(record)
        if sweeping:
            late.sweep()
    late.sweep()
    assert percentiles_in(late) == percentiles_in(at_once)
