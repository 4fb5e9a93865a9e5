"""Aggregates: the same in whatever order events came, exact in their windows, honest about money."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from statistics import median
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.language.aggregate_values import expires, falls_to, value
from shared.language.aggregates import EXACT, Aggregate, observe
from shared.language.amounts import GAPS, LISTED
from shared.language.expressions import compile_expression

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def aggregate(text: str) -> Aggregate:
    (found,) = compile_expression(text, allowed=set()).aggregates
    return found


@dataclass(frozen=True)
class Happened:
    id: str
    at: datetime
    properties: Mapping[str, Any]


def state_of(aggregate: Aggregate, events: Iterable[Happened], handled_at: datetime = NOW) -> Any:
    state = None
    for event in events:
        state = observe(aggregate, state, event.id, event.at, event.properties, handled_at)
    return state


def orders(*totals: Any, currency: str | None = None, every: timedelta = DAY) -> list[Happened]:
    """One order a day up to now, the last at NOW."""
    named = {} if currency is None else {"currency": currency}
    first = NOW - every * (len(totals) - 1)
    return [Happened(f"o{n}", first + every * n, {"total": total, **named}) for n, total in enumerate(totals)]


# --- over no events -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", ["", ", within=30d"])
def test_over_no_events_counts_and_sums_are_zero_and_the_rest_is_null(window: str) -> None:
    nothing = {
        f'count("Order Completed"{window})': 0,
        f'exists("Order Completed"{window})': False,
        f'sum("Order Completed", "total"{window})': Decimal(0),
        f'avg("Order Completed", "total"{window})': None,
        f'min("Order Completed", "total"{window})': None,
        f'max("Order Completed", "total"{window})': None,
        f'first("Order Completed"{window})': None,
        f'last("Order Completed", "total"{window})': None,
        f'median_gap("Order Completed"{window})': None,
        f'list("Order Completed", "total"{window})': [],
    }
    assert {text: value(aggregate(text), None, NOW) for text in nothing} == nothing


# --- without a window -----------------------------------------------------------------------------------------------


def test_a_customer_with_three_orders() -> None:
    events = orders(10, 20.5, 30)

    def result(text: str) -> Any:
        return value(aggregate(text), state_of(aggregate(text), events), NOW)

    assert result('count("Order Completed")') == 3
    assert result('exists("Order Completed")') is True
    assert result('sum("Order Completed", "total")') == Decimal("60.5")
    assert result('avg("Order Completed", "total")') == Decimal("60.5") / 3
    assert result('min("Order Completed", "total")') == 10
    assert result('max("Order Completed", "total")') == 30
    assert result('first("Order Completed")') == NOW - 2 * DAY
    assert result('last("Order Completed")') == NOW
    assert result('last("Order Completed", "total")') == 30
    assert result('count("Order Completed", where=event.total > 15)') == 2
    assert result('median_gap("Order Completed")') == 1
    assert result('list("Order Completed", "total")') == [10, 20.5, 30]


def test_a_late_event_is_no_longer_the_last() -> None:
    last = aggregate('last("Order Completed", "total")')
    late = Happened("late", NOW - 400 * DAY, {"total": 99})
    assert value(last, state_of(last, [*orders(10, 20), late]), NOW) == 20


def test_cents_are_added_exactly() -> None:
    total = aggregate('sum("Order Completed", "total")')
    assert value(total, state_of(total, orders(0.1, 0.2)), NOW) == Decimal("0.3")


def test_what_is_no_number_is_left_out_of_sums() -> None:
    events = orders(10, None, "20", True, [5, "x"], {"a": 1}, 1e300, 10**40)
    total, average = aggregate('sum("E", "total")'), aggregate('avg("E", "total")')
    assert value(total, state_of(total, events), NOW) == 15
    assert value(average, state_of(average, events), NOW) == Decimal("7.5")


def test_a_field_inside_a_list_counts_every_item() -> None:
    events = [Happened("1", NOW, {"products": [{"price": 5, "quantity": 2}, {"price": 7.5}, {}]})]
    total, dearest = aggregate('sum("E", "products.price")'), aggregate('max("E", "products.price")')
    assert value(total, state_of(total, events), NOW) == Decimal("12.5")
    assert value(dearest, state_of(dearest, events), NOW) == 7.5


def test_a_value_too_large_to_carry_along_is_null_and_not_cut() -> None:
    last = aggregate('last("E", "note")')
    assert value(last, state_of(last, [Happened("1", NOW, {"note": "x" * 2_000})]), NOW) is None


def test_a_value_that_no_profile_can_hold_is_null() -> None:
    last = aggregate('last("E", "ids")')
    assert value(last, state_of(last, [Happened("1", NOW, {"ids": [2**64]})]), NOW) is None


def test_the_median_gap_is_the_middle_of_the_days_from_one_order_to_the_next() -> None:
    gap = aggregate('median_gap("Order Completed")')

    def after(*days: float) -> Any:
        return value(gap, state_of(gap, [Happened(str(n), NOW + DAY * at, {}) for n, at in enumerate(days)]), NOW)

    assert after(0) is None
    assert after(0, 5) == 5
    assert after(0, 1, 3, 6) == 2
    assert after(0, 1, 3) == 1.5
    assert after(0, 0, 0.5) == 0.25


def test_a_median_gap_is_over_the_latest_256_events() -> None:
    gap = aggregate('median_gap("E")')
    often = [Happened(f"a{n}", NOW - 900 * DAY + timedelta(hours=n), {}) for n in range(400)]
    seldom = [Happened(f"b{n}", NOW - DAY * n, {}) for n in range(GAPS)]
    assert value(gap, state_of(gap, often), NOW) == 1 / 24
    assert value(gap, state_of(gap, [*often, *seldom]), NOW) == 1
    assert len(state_of(gap, [*often, *seldom])) == GAPS


def test_a_list_holds_what_the_latest_events_brought_the_oldest_first() -> None:
    viewed = aggregate('list("Product Viewed", "name")')
    events = [Happened(f"v{n:02}", NOW - DAY * (40 - n), {"name": f"lamp {n}"}) for n in range(40)]
    assert value(viewed, state_of(viewed, events), NOW) == [f"lamp {n}" for n in range(40 - LISTED, 40)]


def test_a_list_without_a_field_holds_the_events_and_one_of_a_list_all_its_items() -> None:
    events = [Happened("1", NOW, {"sku": "a", "parts": [{"n": 1}, {"n": 2}]}), Happened("2", NOW, {"sku": "b"})]
    whole, parts, numbers = (aggregate(text) for text in ('list("E")', 'list("E", "parts")', 'list("E", "parts.n")'))
    assert value(whole, state_of(whole, events), NOW) == [event.properties for event in events]
    assert value(parts, state_of(parts, events), NOW) == [{"n": 1}, {"n": 2}]
    assert value(numbers, state_of(numbers, events), NOW) == [1, 2]


def test_one_event_brings_a_list_as_much_as_fits() -> None:
    viewed = aggregate('list("E", "products.name")')
    events = [
        Happened(
            "1", NOW, {"products": [{"name": "x" * 900}, {"name": None}, {"name": "y" * 900}, {"name": "z" * 300}]}
        )
    ]
    assert value(viewed, state_of(viewed, events), NOW) == ["x" * 900, "y" * 900]
    assert value(viewed, state_of(viewed, [Happened("1", NOW, {"products": [{"name": 10**30}]})]), NOW) == []


# --- money ----------------------------------------------------------------------------------------------------------


def test_amounts_of_one_currency_without_a_rate_are_given_as_they_are() -> None:
    total = aggregate('sum("E", "total")')
    assert value(total, state_of(total, orders(10, 20, currency="EUR")), NOW, "NOK") == 30


def test_amounts_without_a_currency_are_the_brands() -> None:
    total = aggregate('sum("E", "total")')
    assert value(total, state_of(total, [*orders(10), *orders(20, currency="NOK")]), NOW, "NOK") == 30


def test_different_currencies_are_never_added_without_a_rate() -> None:
    total = aggregate('sum("E", "total")')
    state = state_of(total, [*orders(10, currency="EUR"), *orders(20, currency="NOK")])
    assert value(total, state, NOW, "NOK") is None


def test_with_a_rate_the_total_is_in_the_brands_currency() -> None:
    total, average = aggregate('sum("E", "total")'), aggregate('avg("E", "total")')
    events = [*orders(10, currency="eur"), *orders(20, currency="NOK")]
    rates = {"EUR": Decimal("11.5")}
    assert value(total, state_of(total, events), NOW, "NOK", rates) == 135
    assert value(average, state_of(average, events), NOW, "NOK", rates) == Decimal("67.5")
    assert value(total, state_of(total, events[:1]), NOW, "NOK", rates) == 115


def test_pieces_are_no_money_whatever_the_orders_currency() -> None:
    pieces = aggregate('sum("E", "quantity")')
    events = [Happened(c, NOW, {"quantity": 2, "currency": c}) for c in ("EUR", "NOK", "SEK")]
    assert value(pieces, state_of(pieces, events), NOW, "NOK") == 6


# --- identity -------------------------------------------------------------------------------------------------------


def test_an_aggregate_is_the_same_however_it_is_written() -> None:
    first = aggregate('count("E", within=30d, where=event.a == "x" and event.b > 3)')
    second = aggregate("""count( 'E',where=(event.a=='x') and event.b>3,  within=720h)""")
    assert first.id == second.id
    assert first == second


@pytest.mark.parametrize(
    "other",
    [
        'count("E")',
        'count("F", within=30d)',
        'count("E", within=31d)',
        'exists("E", within=30d)',
        'count("E", within=30d, where=event.a == 1)',
    ],
)
def test_an_aggregate_that_differs_in_anything_is_another(other: str) -> None:
    assert aggregate('count("E", within=30d)').id != aggregate(other).id


def test_ids_stay_the_same_over_versions_since_states_are_kept_under_them() -> None:
    assert aggregate('count("Order Completed")').id == "0190024e5bd63de5"
    assert aggregate('sum("Order Completed", "total", within=365d, where=event.total > 0)').id == "6d3ad48ab8d09fc2"


# --- windows --------------------------------------------------------------------------------------------------------


def test_an_event_exactly_the_window_ago_is_out() -> None:
    recent = aggregate('count("E", within=30d)')
    state = state_of(recent, [Happened("1", NOW, {})])
    assert value(recent, state, NOW + 30 * DAY - timedelta(microseconds=1)) == 1
    assert value(recent, state, NOW + 30 * DAY) == 0
    assert expires(recent, state, NOW) == NOW + 30 * DAY
    assert expires(recent, state, NOW + 30 * DAY) is None


def test_a_late_event_inside_the_window_is_inserted_where_it_belongs() -> None:
    recent = aggregate('first("E", "total", within=30d)')
    state = state_of(recent, [*orders(1, 2, 3), Happened("late", NOW - 20 * DAY, {"total": 9})])
    assert value(recent, state, NOW) == 9
    assert expires(recent, state, NOW) == NOW + 10 * DAY


def test_an_event_older_than_the_window_leaves_no_trace_in_it() -> None:
    recent = aggregate('count("E", within=30d)')
    assert state_of(recent, [Happened("old", NOW - 30 * DAY, {})]) is None


def test_what_left_the_window_leaves_the_state_with_the_next_event() -> None:
    recent = aggregate('count("E", within=1d)')
    state = state_of(recent, [Happened("1", NOW, {})])
    later = NOW + 5 * DAY
    assert observe(recent, state, "2", later, {}, later) == state_of(recent, [Happened("2", later, {})], later)


def test_the_state_before_is_left_as_it_was() -> None:
    for text in ('sum("E", "total", within=30d)', 'avg("E", "total")', 'count("E", within=30d)'):
        kept = aggregate(text)
        before = state_of(kept, orders(*range(300), every=timedelta(minutes=1)))
        copy = msgspec.json.decode(msgspec.json.encode(before))
        state_of(kept, [Happened("more", NOW, {"total": 5})])
        observe(kept, before, "more", NOW, {"total": 5}, NOW)
        assert before == copy


# --- laws -----------------------------------------------------------------------------------------------------------

TEXTS = [
    'count("E"{})',
    'count("E"{}, where=event.total > 5)',
    'exists("E"{})',
    'sum("E", "total"{})',
    'avg("E", "total"{})',
    'min("E", "total"{})',
    'max("E", "total"{})',
    'first("E"{})',
    'first("E", "total"{})',
    'last("E"{})',
    'last("E", "total"{})',
    'median_gap("E"{})',
    'list("E", "total"{})',
]

TOTALS = st.one_of(
    st.none(),
    st.integers(-(10**19), 10**19),
    st.integers(-9, 9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(0, 1000, places=2).map(float),
    st.text(max_size=3),
    st.lists(st.integers(0, 3), max_size=3),
)


@st.composite
def happenings(draw: st.DrawFn, most: int = 12) -> list[Happened]:
    """Events within the hundred days before NOW, some at the same instant."""
    made = draw(
        st.lists(
            st.tuples(st.integers(0, 100 * 24), TOTALS, st.sampled_from([None, "EUR", "NOK", "nok", "x"])),
            max_size=most,
        )
    )
    return [
        Happened(f"e{n}", NOW - timedelta(hours=hours), {"total": total, "currency": currency})
        for n, (hours, total, currency) in enumerate(made)
    ]


RATES = {"EUR": Decimal("11.5")}


def storable(value: Any) -> bool:
    return value is not None and not (type(value) is int and not -(2**63) <= value < 2**64)


def naive(aggregate: Aggregate, events: list[Happened], now: datetime) -> Any:
    """The aggregate worked out anew over all events, in the plainest way: one lifetime observation after another."""
    inside = [e for e in events if aggregate.window is None or e.at > now - aggregate.window]
    function = aggregate.function
    if aggregate.where is not None:
        inside = [e for e in inside if aggregate.where.matches(e.properties)]
    if function == "count":
        return len(inside)
    if function == "exists":
        return bool(inside)
    if function in ("first", "last"):
        if not inside:
            return None
        pick = min if function == "first" else max
        chosen = pick(inside, key=lambda e: (e.at, e.id))
        if aggregate.field is None:
            return chosen.at
        return chosen.properties["total"] if storable(chosen.properties["total"]) else None
    if function == "median_gap":
        times = sorted(e.at for e in inside)
        gaps = [(later - earlier) / DAY for earlier, later in pairwise(times)]
        return median(gaps) if gaps else None
    if function == "list":
        totals = [e.properties["total"] for e in sorted(inside, key=lambda e: (e.at, e.id))]
        return [one for t in totals for one in (t if isinstance(t, list) else [t]) if storable(one)]
    numbers: list[tuple[Decimal, str]] = []
    texts: list[str] = []
    for event in inside:
        total = event.properties["total"]
        currency = event.properties["currency"]
        for one in total if isinstance(total, list) else [total]:
            if isinstance(one, str):
                texts.append(one)
            elif one is not None and -(10**18) < one < 10**18:
                exact = Decimal(repr(one))
                numbers.append((exact, "NOK" if currency in (None, "x") else currency.upper()))
    if function in ("min", "max"):
        pick_one = min if function == "min" else max
        if numbers:
            return pick_one(number for number, _ in numbers)
        return pick_one(texts) if texts else None
    if not numbers:
        return Decimal(0) if function == "sum" else None
    total_amount = sum((round(n, 9) * (RATES["EUR"] if c == "EUR" else 1) for n, c in numbers), Decimal(0))
    return total_amount if function == "sum" else total_amount / len(numbers)


def same(left: Any, right: Any) -> bool:
    if isinstance(left, Decimal) and isinstance(right, Decimal):
        return abs(left - right) <= max(abs(left), abs(right)) * Decimal("1e-20")
    if isinstance(left, float) and isinstance(right, float):
        return left == pytest.approx(right, rel=1e-12)
    if isinstance(left, (int, float, Decimal)) and isinstance(right, (int, float, Decimal)):
        return Decimal(repr(left) if isinstance(left, float) else left) == Decimal(
            repr(right) if isinstance(right, float) else right
        )
    return bool(left == right)


@pytest.mark.parametrize("text", [text.format("") for text in TEXTS])
@given(events=happenings(), seed=st.integers())
@settings(max_examples=60)
def test_without_a_window_the_order_of_arrival_does_not_matter(text: str, events: list[Happened], seed: int) -> None:
    kept = aggregate(text)
    shuffled = list(events)
    random.Random(seed).shuffle(shuffled)
    state = state_of(kept, events)
    assert msgspec.json.encode(state) == msgspec.json.encode(state_of(kept, shuffled))
    assert same(value(kept, state, NOW, "NOK", RATES), naive(kept, events, NOW))


@pytest.mark.parametrize("text", [text.format(", within=60d") for text in TEXTS])
@given(events=happenings(), seed=st.integers())
@example([Happened("e0", NOW, {"total": 2, "currency": None}), Happened("e1", NOW, {"total": 1, "currency": None})], 2)
@settings(max_examples=60)
def test_neither_does_it_in_a_window_of_few_events(text: str, events: list[Happened], seed: int) -> None:
    kept = aggregate(text)
    shuffled = list(events)
    random.Random(seed).shuffle(shuffled)
    assert msgspec.json.encode(state_of(kept, events)) == msgspec.json.encode(state_of(kept, shuffled))


@pytest.mark.parametrize("text", [text.format(", within=20d") for text in TEXTS])
@given(events=happenings(), later=st.integers(0, 30 * 24))
@settings(max_examples=60)
def test_in_a_window_the_value_is_that_of_the_events_inside(text: str, events: list[Happened], later: int) -> None:
    kept = aggregate(text)
    state = msgspec.json.decode(msgspec.json.encode(state_of(kept, events)))
    now = NOW + timedelta(hours=later)
    assert same(value(kept, state, now, "NOK", RATES), naive(kept, events, now))


@pytest.mark.parametrize("text", [text.format(", within=20d") for text in TEXTS])
@given(events=happenings(most=6))
@settings(max_examples=30)
def test_until_it_expires_a_value_stays_and_the_last_expiry_leaves_nothing(text: str, events: list[Happened]) -> None:
    kept = aggregate(text)
    state, now = state_of(kept, events), NOW
    while (moment := expires(kept, state, now)) is not None:
        assert moment > now
        before = value(kept, state, now, "NOK", RATES)
        assert same(value(kept, state, moment - timedelta(microseconds=1), "NOK", RATES), before)
        assert same(value(kept, state, moment, "NOK", RATES), naive(kept, events, moment))
        now = moment
    assert same(value(kept, state, now + 1000 * DAY, "NOK", RATES), value(kept, None, now))


@given(events=happenings(most=20), target=st.integers(0, 12))
def test_a_count_falls_to_a_number_at_the_very_moment_it_says(events: list[Happened], target: int) -> None:
    kept = aggregate('count("E", within=20d)')
    state = state_of(kept, events)
    moment = falls_to(kept, state, NOW, target)
    if moment is None:
        assert value(kept, state, NOW) <= target
    else:
        assert value(kept, state, moment) <= target < value(kept, state, moment - timedelta(microseconds=1))


# --- many events ----------------------------------------------------------------------------------------------------


def test_a_window_is_exact_up_to_its_256th_event() -> None:
    kept = aggregate('count("E", within=30d)')
    events = [Happened(str(n), NOW - timedelta(minutes=EXACT - n), {}) for n in range(EXACT)]
    state = state_of(kept, events)
    assert len(state[0]) == EXACT
    for later in (timedelta(days=29, hours=22), timedelta(days=29, hours=23, minutes=7)):
        assert value(kept, state, NOW + later) == naive(kept, events, NOW + later)


@given(seed=st.integers(), count=st.integers(257, 3_000))
@settings(max_examples=25, deadline=None)
def test_beyond_that_an_event_counts_at_most_a_256th_of_the_window_too_long(seed: int, count: int) -> None:
    kept, total = aggregate('count("E", within=32d)'), aggregate('sum("E", "n", within=32d)')
    chance = random.Random(seed)
    width = timedelta(days=32)
    events = sorted(
        (Happened(str(n), NOW - timedelta(seconds=chance.randrange(3 * 24 * 3600)), {"n": 1}) for n in range(count)),
        key=lambda event: event.at + timedelta(hours=chance.randrange(6)),
    )
    state, sums = state_of(kept, events), state_of(total, events)
    assert len(state[0]) <= EXACT + 2
    assert len(msgspec.json.encode(state)) < 10_000
    for hours in range(0, 33 * 24, 37):
        now = NOW + timedelta(hours=hours)
        counted = value(kept, state, now)
        assert naive(kept, events, now) <= counted <= sum(e.at > now - width - width / EXACT for e in events)
        assert value(total, sums, now) == counted


def test_a_year_of_page_views_stays_small_and_the_count_right() -> None:
    kept = aggregate('count("Page", within=30d)')
    state, at = None, NOW - 60 * DAY
    while at <= NOW:
        state = observe(kept, state, "id", at, {}, at)
        at += timedelta(minutes=20)
    assert len(state[0]) <= EXACT + 2
    assert value(kept, state, NOW) == pytest.approx(30 * 72, abs=72 * 30 / EXACT + 1)
