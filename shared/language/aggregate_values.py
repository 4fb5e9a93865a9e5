"""What an aggregate's state amounts to at a moment, and when that changes by the passing of time alone."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Context, Decimal
from itertools import pairwise
from typing import Any, Final

from shared.language.aggregates import LATEST, Aggregate, first_after, time_of
from shared.language.amounts import EXACTLY, MERGES, total_of
from shared.language.values import MICROSECOND, from_micros, micros

_DAY = timedelta(days=1) // MICROSECOND
_RATIO = Context(prec=28)
_NO_RATES: Mapping[str, Decimal] = {}


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
    width = aggregate.width
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
    if aggregate.function in LATEST:

        def read_latest(state: Any, now: datetime, currency: str, rates: Mapping[str, Decimal]) -> Any:
            return finish(state and state[first_after(state, micros(now) - width) :], now, currency, rates)

        return read_latest
    if aggregate.function == "first" and aggregate.field is None:
        finish = _time
    merge = MERGES[aggregate.function]

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
            return in_one_currency({next(iter(amounts[-1])): total_of(map(Decimal, texts))}, currency, rates)
        totals: dict[str, Decimal] = {}
        for amount in amounts:
            for name, text in amount.items():
                before = totals.get(name)
                totals[name] = Decimal(text) if before is None else EXACTLY.add(before, Decimal(text))
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
        total = EXACTLY.add(total, amount if rate is None else EXACTLY.multiply(amount, rate))
    return total


_TIMES: Final = frozenset({"first", "last"})

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
    oldest = micros(now) - aggregate.width
    if aggregate.function == "exists":
        at = state
    elif aggregate.function == "last":
        at = state[0]
    else:
        times = state if aggregate.function in LATEST else state[0]
        place = bisect_right(times, oldest, key=time_of)
        if place == len(times):
            return None
        at = time_of(times[place])
    return from_micros(at) + window if at > oldest else None


def falls_to(aggregate: Aggregate, state: Any, now: datetime, count: int) -> datetime | None:
    """The earliest moment after `now` at which a windowed count is `count` or less; None where it is so already."""
    if state is None or aggregate.window is None:
        return None
    times, counts = state
    left = 0
    oldest = micros(now) - aggregate.width
    for place in range(len(times) - 1, bisect_left(times, oldest + 1) - 1, -1):
        left += counts[place]
        if left > count:
            return from_micros(times[place]) + aggregate.window
    return None


def only_adds(aggregate: Aggregate, state: Any, now: datetime) -> bool:
    """Whether all amounts of a windowed sum at `now` are of one currency, and none takes away."""
    amounts = _living_amounts(state, micros(now) - aggregate.width)
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
    amounts = _living_amounts(state, micros(now) - aggregate.width)
    for back, amount in enumerate(reversed(amounts), 1):
        ((name, text),) = amount.items()
        total = EXACTLY.add(total, Decimal(text))
        worth = in_one_currency({name: total}, currency, rates)
        if worth is not None and enough(worth):
            return from_micros(state[0][-back]) + aggregate.window
    return None
