"""Aggregates: what is kept up over a customer's events, so that a condition never reads history.

A state is plain data (lists, mappings of text, ints, text) and small. Two shapes:

- Without a window it is the *amount*, the sum of what each event gave, in O(1) and the same in whatever order the
  events came.
- With a window it is `[times, amounts]`, two lists of the same length sorted by time (microseconds since 1970): one
  entry per event up to EXACT entries, in whatever order they came. Beyond that, entries of the same bucket of
  `window / 256` are folded into one that keeps the time of its latest event, so that an event may count up to
  `window / 256` too long. `last` and `exists` need only their latest event and are always exact.

`median_gap` and `list` keep the latest entries alone, with a window or without: `median_gap` the times of up to GAPS
events, `list` up to LISTED events as `[microseconds, event id, values]`, both sorted.

An event that happened exactly `window` ago no longer counts: the window holds `now - window < occurred_at`. Events are
de-duplicated before they come here.

Amounts by function:

| function | amount |
|---|---|
| count, exists | how many |
| sum | decimal text per currency, "" where the event names none |
| avg | [decimal text, how many] per currency |
| min, max | the number, or the text where there is no number |
| first, last | [microseconds, event id, value] |
| median_gap | [microseconds] |
| list | [[microseconds, event id, values]] |
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Context, Decimal
from functools import reduce
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from shared.language.durations import format_duration
from shared.language.values import MICROSECOND, compare, decimal, from_micros, get, micros, number_or_none

if TYPE_CHECKING:
    from shared.language.expressions import Expression

Function = Literal["count", "sum", "avg", "min", "max", "first", "last", "exists", "median_gap", "list"]

EXACT: Final = 256
"""So many entries of a window are kept one by one; and so many buckets has a window beyond that."""

VALUE_LIMIT: Final = 1_000
"""Bytes of JSON that a value kept by `min max first last` may have. A longer one counts as null."""

GAPS: Final = 256
"""So many of a customer's latest events count in `median_gap`."""

LISTED: Final = 20
"""Of so many of a customer's latest events `list` gives what they hold."""

LISTED_LIMIT: Final = 2_000
"""Bytes, packed, that one event may bring to a `list`: the first of its values, as long as they fit."""

LARGEST: Final = Decimal(10**18)
"""Numbers from here on are no amounts; sums leave them out."""
SMALLEST: Final = Decimal("1e-9")
"""Numbers are rounded to this before they are added, so that sums are exact and independent of order."""

NO_MONEY: Final = frozenset({"quantity", "items", "count", "position", "points", "score", "rating", "weight"})
"""Fields whose sums are plain numbers, whatever currency their event names. The others may be money."""

_DAY = timedelta(days=1) // MICROSECOND
_EXACT = Context(prec=60)
_RATIO = Context(prec=28)
_NO_RATES: Mapping[str, Decimal] = {}


class Aggregate(msgspec.Struct, frozen=True):
    """One value kept up over a customer's events called `event`.

    `field` is a path into the properties, `where` names only `event` and constants. `id` is a hash of all the rest as
    text, the same wherever and however often the aggregate is written. `width` is the window in microseconds. Made by
    `aggregate_of`.
    """

    id: str
    function: Function
    event: str
    field: tuple[str, ...] | None
    where: Expression | None
    window: timedelta | None
    width: int


def aggregate_of(
    function: Function,
    event: str,
    field: tuple[str, ...] | None = None,
    where: Expression | None = None,
    window: timedelta | None = None,
) -> Aggregate:
    """The aggregate with its id."""
    condition = None if where is None else where.canonical
    written = None if window is None else format_duration(window)
    id = hashlib.sha256(msgspec.json.encode([function, event, field, condition, written])).hexdigest()[:16]
    width = 0 if window is None else window // MICROSECOND
    return Aggregate(id, function, event, field, where, window, width)


SPEND: Final = aggregate_of("sum", "Order Completed", ("total",))
"""What a customer has spent, by which `customer.spend_percentile` ranks them."""


# --- observing ------------------------------------------------------------------------------------------------------


def observe(
    aggregate: Aggregate,
    state: Any,
    event_id: str,
    occurred_at: datetime,
    properties: Mapping[str, Any],
    received_at: datetime,
) -> Any:
    """The state after one more event called `aggregate.event`; `state` is None at first, and is not changed in place.

    `received_at` is the time at which the event is handled; what is older than the window then is not kept.
    """
    at = micros(occurred_at)
    window = aggregate.window
    if window is not None:
        width = aggregate.width
        # What a shop sends at once has one time for both, the same object.
        oldest = (at if received_at is occurred_at else micros(received_at)) - width
        if at <= oldest:
            return state
    where = aggregate.where
    if where is not None and not where.matches(properties):
        return state
    function = aggregate.function
    amount = 1 if function == "count" else _AMOUNTS[function](aggregate, event_id, at, properties)
    if amount is None:
        return state
    if window is None or function == "last":
        return amount if state is None else _MERGES[function](state, amount)
    if function == "exists":
        return at if state is None else max(state, at)
    if function in _LATEST:
        return amount if state is None else _MERGES[function](state[_begin(state, oldest) :], amount)
    if state is None:
        return [[at], [amount]]
    times, amounts = state
    if times[0] > oldest and times[-1] < at and len(times) < EXACT:
        return [[*times, at], [*amounts, amount]]
    return _insert(function, state, at, amount, width, oldest)


def _insert(function: str, state: Any, at: int, amount: Any, width: int, oldest: int) -> Any:
    times, amounts = state
    if times[0] <= oldest:
        living = bisect_right(times, oldest)
        times, amounts = times[living:], amounts[living:]
    later = not times or at > times[-1] or (at == times[-1] and amounts[-1] == amount)
    if later and len(times) < EXACT:
        return [[*times, at], [*amounts, amount]]
    times, amounts = list(times), list(amounts)
    if len(times) >= EXACT:
        bucket_width = max(width // EXACT, 1)
        if _joins(function, times, amounts, at, amount, bucket_width):
            return [times, amounts]
        times, amounts = _folded(function, times, amounts, bucket_width)
    place = bisect_right(times, at)
    # Entries of one instant have an order of their own, so that it does not matter which came first.
    while place and times[place - 1] == at and repr(amounts[place - 1]) > repr(amount):
        place -= 1
    times.insert(place, at)
    amounts.insert(place, amount)
    return [times, amounts]


def _joins(function: str, times: list[int], amounts: list[Any], at: int, amount: Any, bucket_width: int) -> bool:
    """Put the amount into an entry of its own bucket, where there is one."""
    bucket = at // bucket_width
    after = bisect_right(times, at)
    for place in (after - 1, after):
        if 0 <= place < len(times) and times[place] // bucket_width == bucket:
            times[place] = max(times[place], at)
            amounts[place] = _MERGES[function](amounts[place], amount)
            return True
    return False


def _folded(function: str, times: list[int], amounts: list[Any], bucket_width: int) -> tuple[list[int], list[Any]]:
    """One entry for each bucket, at the time of its latest event."""
    merge = _MERGES[function]
    kept_times: list[int] = []
    kept_amounts: list[Any] = []
    for at, amount in zip(times, amounts, strict=True):
        if kept_times and kept_times[-1] // bucket_width == at // bucket_width:
            kept_times[-1] = at
            kept_amounts[-1] = merge(kept_amounts[-1], amount)
        else:
            kept_times.append(at)
            kept_amounts.append(amount)
    return kept_times, kept_amounts


# --- what one event gives -------------------------------------------------------------------------------------------


def _values(aggregate: Aggregate, properties: Mapping[str, Any]) -> list[Any]:
    """What the field holds: one value, or several where it lies in a list."""
    value: Any = properties
    for name in aggregate.field or ():
        value = get(value, name)
    return value if type(value) is list else [value]


def _addend(value: Any) -> Decimal | None:
    if type(value) is float:
        text = repr(value)
        # Nearly every price: in so few characters there is room for nine decimals at most, and for no large number.
        if len(text) <= 11 and text[-1].isdecimal() and "e" not in text:
            return Decimal(text)
    number = number_or_none(value)
    if number is None:
        return None
    exact = decimal(number)
    if not -LARGEST < exact < LARGEST:
        return None
    exponent = exact.as_tuple().exponent
    return exact if isinstance(exponent, int) and exponent >= -9 else exact.quantize(SMALLEST, context=_EXACT)


def currency_of(aggregate: Aggregate, properties: Mapping[str, Any]) -> str:
    """The event's currency, "" where it names none or the field is no money."""
    return "" if aggregate.field and aggregate.field[-1] in NO_MONEY else currency_named(properties)


def currency_named(properties: Mapping[str, Any]) -> str:
    """The currency (ISO 4217) that an event names, or ""."""
    currency = properties.get("currency")
    if type(currency) is not str or len(currency) != 3 or not currency.isascii() or not currency.isalpha():
        return ""
    return currency.upper()


def _one(aggregate: Aggregate, event_id: str, at: int, properties: Mapping[str, Any]) -> int:
    return 1


def _added(aggregate: Aggregate, event_id: str, at: int, properties: Mapping[str, Any]) -> dict[str, str] | None:
    addends = [addend for value in _values(aggregate, properties) if (addend := _addend(value)) is not None]
    return {currency_of(aggregate, properties): str(_total(addends))} if addends else None


def _averaged(aggregate: Aggregate, event_id: str, at: int, properties: Mapping[str, Any]) -> dict[str, Any] | None:
    addends = [addend for value in _values(aggregate, properties) if (addend := _addend(value)) is not None]
    return {currency_of(aggregate, properties): [str(_total(addends)), len(addends)]} if addends else None


def _total(addends: Iterable[Decimal]) -> Decimal:
    return reduce(_EXACT.add, addends)


def _extreme(aggregate: Aggregate, event_id: str, at: int, properties: Mapping[str, Any]) -> Any:
    pick = _MERGES[aggregate.function]
    found = None
    for value in _values(aggregate, properties):
        candidate = _orderable(value)
        if candidate is not None:
            found = candidate if found is None else pick(found, candidate)
    return found


def _orderable(value: Any) -> int | float | str | None:
    if type(value) is str:
        return value if _fits(value) else None
    number = number_or_none(value)
    if number is None:
        return None
    if not -LARGEST < number < LARGEST:
        return None
    # 2 and 2.0 are the same number and must leave the same state, whichever came first.
    if type(number) is float and not number.is_integer():
        return number
    exact = decimal(number)
    return int(exact) if exact == exact.to_integral_value() else float(number)


def _moment(aggregate: Aggregate, event_id: str, at: int, properties: Mapping[str, Any]) -> list[Any]:
    if aggregate.field is None:
        return [at, event_id, None]
    value: Any = properties
    for name in aggregate.field:
        value = get(value, name)
    return [at, event_id, value if _fits(value) else None]


def _instant(aggregate: Aggregate, event_id: str, at: int, properties: Mapping[str, Any]) -> list[int]:
    return [at]


def _entry(aggregate: Aggregate, event_id: str, at: int, properties: Mapping[str, Any]) -> list[Any] | None:
    fitting: list[Any] = []
    room = LISTED_LIMIT
    for value in _values(aggregate, properties):
        if value is None:
            continue
        try:
            room -= len(msgspec.msgpack.encode(value))
        except OverflowError:  # an integer of more than 64 bits
            continue
        if room < 0:
            break
        fitting.append(value)
    return [[at, event_id, fitting]] if fitting else None


def _fits(value: Any) -> bool:
    kind = type(value)
    if value is None or kind is bool or kind is float or (kind is str and len(value) * 6 < VALUE_LIMIT):
        return True
    try:
        return len(msgspec.msgpack.encode(value)) <= VALUE_LIMIT  # as the profile keeps it
    except OverflowError:  # an integer of more than 64 bits
        return False


_AMOUNTS: Final[Mapping[str, Callable[[Aggregate, str, int, Mapping[str, Any]], Any]]] = {
    "count": _one,
    "exists": _one,
    "sum": _added,
    "avg": _averaged,
    "min": _extreme,
    "max": _extreme,
    "first": _moment,
    "last": _moment,
    "median_gap": _instant,
    "list": _entry,
}


# --- putting two amounts together: associative and commutative -----------------------------------------------------


def _plus(left: int, right: int) -> int:
    return left + right


def _plus_sums(left: Mapping[str, str], right: Mapping[str, str]) -> dict[str, str]:
    merged = dict(left)
    for currency, amount in right.items():
        before = merged.get(currency)
        merged[currency] = amount if before is None else str(_EXACT.add(Decimal(before), Decimal(amount)))
    return merged if len(merged) == 1 else dict(sorted(merged.items()))


def _plus_averages(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(left)
    for currency, (amount, count) in right.items():
        before = merged.get(currency)
        if before is None:
            merged[currency] = [amount, count]
        else:
            merged[currency] = [str(_EXACT.add(Decimal(before[0]), Decimal(amount))), before[1] + count]
    return merged if len(merged) == 1 else dict(sorted(merged.items()))


def _smaller(left: Any, right: Any) -> Any:
    order = compare(left, right)
    if order is None:  # a number and a text: numbers count, texts only among themselves
        return right if type(left) is str else left
    return right if order > 0 else left


def _larger(left: Any, right: Any) -> Any:
    order = compare(left, right)
    if order is None:
        return right if type(left) is str else left
    return right if order < 0 else left


def _earlier(left: list[Any], right: list[Any]) -> list[Any]:
    return right if (right[0], right[1]) < (left[0], left[1]) else left


def _later(left: list[Any], right: list[Any]) -> list[Any]:
    return right if (right[0], right[1]) > (left[0], left[1]) else left


def _latest_times(left: list[int], right: list[int]) -> list[int]:
    return sorted([*left, *right])[-GAPS:]


def _latest_entries(left: list[Any], right: list[Any]) -> list[Any]:
    return sorted([*left, *right], key=itemgetter(0, 1))[-LISTED:]


_MERGES: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "count": _plus,
    "exists": _plus,
    "sum": _plus_sums,
    "avg": _plus_averages,
    "min": _smaller,
    "max": _larger,
    "first": _earlier,
    "last": _later,
    "median_gap": _latest_times,
    "list": _latest_entries,
}


# --- reading --------------------------------------------------------------------------------------------------------


def value(
    aggregate: Aggregate, state: Any, now: datetime, currency: str = "", rates: Mapping[str, Decimal] | None = None
) -> Any:
    """What the aggregate amounts to at `now`.

    `count` is an int, `sum` and `avg` a Decimal, `exists` a bool, `first` and `last` without a field a datetime, with
    a field its value. `median_gap` is in days, from one event to the next; `list` is a list, the oldest first. Over no
    events `count` and `sum` are 0, `exists` is false, `list` is empty, the others are null.

    `currency` is the brand's, and that of amounts whose event names none; `rates` maps a currency to what one unit of
    it is worth in the brand's. Amounts with a rate are given in the brand's currency. Amounts of one currency without
    a rate are given as they are; of several, of which one has no rate, there is no sum: null.
    """
    return reader(aggregate)(state, now, currency, _NO_RATES if rates is None else rates)


Reader = Callable[[Any, datetime, str, Mapping[str, Decimal]], Any]
"""(state, now, the brand's currency, its rates) to a value."""


def reader(aggregate: Aggregate) -> Reader:
    """`value` for one aggregate, with what does not change looked up once."""
    finish = _RESULTS[aggregate.function]
    window = aggregate.window
    if window is None:
        return finish if aggregate.field is not None or aggregate.function not in _TIMES else _time
    width = window // MICROSECOND
    if aggregate.function == "exists":
        return lambda state, now, currency, rates: state is not None and state > micros(now) - width
    if aggregate.function == "last":
        read = finish if aggregate.field is not None else _time

        def read_last(state: Any, now: datetime, currency: str, rates: Mapping[str, Decimal]) -> Any:
            return None if state is None or state[0] <= micros(now) - width else read(state, now, currency, rates)

        return read_last
    if aggregate.function == "count":

        def read_count(state: Any, now: datetime, currency: str, rates: Mapping[str, Decimal]) -> int:
            return 0 if state is None else living(state, micros(now) - width)

        return read_count
    if aggregate.function == "sum":
        return _sum_reader(width)
    if aggregate.function in _LATEST:

        def read_latest(state: Any, now: datetime, currency: str, rates: Mapping[str, Decimal]) -> Any:
            return finish(state and state[_begin(state, micros(now) - width) :], now, currency, rates)

        return read_latest
    if aggregate.function == "first" and aggregate.field is None:
        finish = _time
    merge = _MERGES[aggregate.function]

    def read_window(state: Any, now: datetime, currency: str, rates: Mapping[str, Decimal]) -> Any:
        amount = None
        if state is not None:
            times, amounts = state
            for place in range(bisect_right(times, micros(now) - width), len(times)):
                amount = amounts[place] if amount is None else merge(amount, amounts[place])
        return finish(amount, now, currency, rates)

    return read_window


def _sum_reader(width: int) -> Reader:
    """As putting the amounts together and reading the result would, without writing each partial sum as text."""

    def read_sum(state: Any, now: datetime, currency: str, rates: Mapping[str, Decimal]) -> Decimal | None:
        if state is None:
            return Decimal(0)
        amounts = _living_amounts(state, micros(now) - width)
        texts = _of_one_currency(amounts)
        if texts is not None:
            return in_one_currency({next(iter(amounts[-1])): _total(map(Decimal, texts))}, currency, rates)
        totals: dict[str, Decimal] = {}
        for amount in amounts:
            for name, text in amount.items():
                before = totals.get(name)
                totals[name] = Decimal(text) if before is None else _EXACT.add(before, Decimal(text))
        return in_one_currency(totals, currency, rates)

    return read_sum


def living(state: Any, oldest: int) -> int:
    """How many events a windowed count holds after `oldest` (microseconds)."""
    times, counts = state
    if times[0] > oldest:
        return sum(counts)
    return sum(counts[bisect_right(times, oldest) :])


def _living_amounts(state: Any, oldest: int) -> list[Any]:
    """What a window holds after `oldest`, in the order of time."""
    times, amounts = state
    found: list[Any] = amounts if times[0] > oldest else amounts[bisect_right(times, oldest) :]
    return found


def _of_one_currency(amounts: list[Any]) -> list[str] | None:
    """The texts of a sum's amounts, where there are any and all name the same currency and no other."""
    if not amounts or sum(map(len, amounts)) != len(amounts):
        return None
    (name,) = amounts[-1]
    try:
        return [amount[name] for amount in amounts]
    except KeyError:
        return None


def _begin(state: list[Any], oldest: int) -> int:
    """Where, among the latest entries, those after `oldest` begin."""
    return bisect_right(state, oldest, key=_time_of)


def _time_of(entry: Any) -> int:
    at: int = entry if type(entry) is int else entry[0]
    return at


def _count(amount: Any, now: datetime, currency: str, rates: Mapping[str, Decimal]) -> int:
    return amount or 0


def _exists(amount: Any, now: datetime, currency: str, rates: Mapping[str, Decimal]) -> bool:
    return amount is not None


def _as_is(amount: Any, now: datetime, currency: str, rates: Mapping[str, Decimal]) -> Any:
    return amount


def _time(amount: Any, now: datetime, currency: str, rates: Mapping[str, Decimal]) -> datetime | None:
    return None if amount is None else from_micros(amount[0])


def _kept(amount: Any, now: datetime, currency: str, rates: Mapping[str, Decimal]) -> Any:
    return None if amount is None else amount[2]


def _sum(amount: Any, now: datetime, currency: str, rates: Mapping[str, Decimal]) -> Decimal | None:
    if amount is None:
        return Decimal(0)
    return in_one_currency({name: Decimal(text) for name, text in amount.items()}, currency, rates)


def _average(amount: Any, now: datetime, currency: str, rates: Mapping[str, Decimal]) -> Decimal | None:
    if amount is None:
        return None
    total = in_one_currency({name: Decimal(text) for name, (text, _) in amount.items()}, currency, rates)
    return None if total is None else _RATIO.divide(total, Decimal(sum(count for _, count in amount.values())))


def _median_gap(times: Any, now: datetime, currency: str, rates: Mapping[str, Decimal]) -> float | None:
    gaps: list[int] = sorted(later - earlier for earlier, later in pairwise(times or ()))
    if not gaps:
        return None
    upper = len(gaps) // 2
    lower = upper if len(gaps) % 2 else upper - 1
    return (gaps[lower] + gaps[upper]) / (2 * _DAY)


def _listed(entries: Any, now: datetime, currency: str, rates: Mapping[str, Decimal]) -> list[Any]:
    return [value for _, _, values in entries or () for value in values]


def in_one_currency(amounts: Mapping[str, Decimal], currency: str, rates: Mapping[str, Decimal]) -> Decimal | None:
    """The total of amounts by currency ("" is the brand's), converted where there are rates; see `value`."""
    total = Decimal(0)
    for name, amount in amounts.items():
        if name in ("", currency):
            rate = None
        else:
            rate = rates.get(name)
            if rate is None and len(amounts) > 1:
                return None
        total = _EXACT.add(total, amount if rate is None else _EXACT.multiply(amount, rate))
    return total


_TIMES: Final = frozenset({"first", "last"})
_LATEST: Final = frozenset({"median_gap", "list"})

_RESULTS: Final[Mapping[str, Reader]] = {
    "count": _count,
    "exists": _exists,
    "sum": _sum,
    "avg": _average,
    "min": _as_is,
    "max": _as_is,
    "first": _kept,
    "last": _kept,
    "median_gap": _median_gap,
    "list": _listed,
}


# --- the passing of time --------------------------------------------------------------------------------------------


def expires(aggregate: Aggregate, state: Any, now: datetime) -> datetime | None:
    """The earliest moment after `now` at which an event leaves the window; None where none will.

    Until then `value` is the same at every moment, and at that moment it is the new one.
    """
    window = aggregate.window
    if window is None or state is None:
        return None
    oldest = micros(now) - window // MICROSECOND
    if aggregate.function == "exists":
        at = state
    elif aggregate.function == "last":
        at = state[0]
    else:
        times = state if aggregate.function in _LATEST else state[0]
        place = bisect_right(times, oldest, key=_time_of)
        if place == len(times):
            return None
        at = _time_of(times[place])
    return from_micros(at) + window if at > oldest else None


def falls_to(aggregate: Aggregate, state: Any, now: datetime, count: int) -> datetime | None:
    """The earliest moment after `now` at which a windowed count is `count` or less; None where it is so already."""
    if state is None or aggregate.window is None:
        return None
    times, counts = state
    left = 0
    oldest = micros(now) - aggregate.window // MICROSECOND
    for place in range(len(times) - 1, bisect_left(times, oldest + 1) - 1, -1):
        left += counts[place]
        if left > count:
            return from_micros(times[place]) + aggregate.window
    return None


def only_adds(aggregate: Aggregate, state: Any, now: datetime) -> bool:
    """Whether all amounts of a windowed sum at `now` are of one currency, and none takes away."""
    assert aggregate.window is not None
    amounts = _living_amounts(state, micros(now) - aggregate.window // MICROSECOND)
    texts = _of_one_currency(amounts)
    return not amounts or (texts is not None and "-" not in "".join(texts))


def sum_falls(
    aggregate: Aggregate,
    state: Any,
    now: datetime,
    currency: str,
    rates: Mapping[str, Decimal],
    enough: Callable[[Decimal], bool],
) -> datetime | None:
    """The earliest moment after `now` at which a windowed sum that `only_adds` is not `enough` any more, which more
    would be all the same; None where it is not now, or always will be."""
    assert aggregate.window is not None
    total = Decimal(0)
    if enough(total):
        return None
    amounts = _living_amounts(state, micros(now) - aggregate.window // MICROSECOND)
    for back, amount in enumerate(reversed(amounts), 1):
        ((name, text),) = amount.items()
        total = _EXACT.add(total, Decimal(text))
        worth = in_one_currency({name: total}, currency, rates)
        if worth is not None and enough(worth):
            return from_micros(state[0][-back]) + aggregate.window
    return None
