"""Amounts: what one event gives to an aggregate, and what two amounts come to.

`AMOUNTS` has the first by function, `MERGES` the second, which is associative and commutative, so that it does not
matter in what order events come. Amounts by function:

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

from collections.abc import Callable, Iterable, Mapping
from decimal import Context, Decimal
from functools import reduce
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from shared.language.values import compare, decimal, get, number_or_none

if TYPE_CHECKING:
    from shared.language.aggregates import Aggregate

VALUE_LIMIT: Final = 1_000
"""Bytes, packed, that a value kept by `min max first last` may have. A longer one counts as null."""

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

EXACTLY: Final = Context(prec=60)
"""Digits enough that no sum of amounts is rounded."""


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
    return exact if isinstance(exponent, int) and exponent >= -9 else exact.quantize(SMALLEST, context=EXACTLY)


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
    return {currency_of(aggregate, properties): str(total_of(addends))} if addends else None


def _averaged(aggregate: Aggregate, event_id: str, at: int, properties: Mapping[str, Any]) -> dict[str, Any] | None:
    addends = [addend for value in _values(aggregate, properties) if (addend := _addend(value)) is not None]
    return {currency_of(aggregate, properties): [str(total_of(addends)), len(addends)]} if addends else None


def total_of(addends: Iterable[Decimal]) -> Decimal:
    return reduce(EXACTLY.add, addends)


def _extreme(aggregate: Aggregate, event_id: str, at: int, properties: Mapping[str, Any]) -> Any:
    pick = MERGES[aggregate.function]
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


AMOUNTS: Final[Mapping[str, Callable[[Aggregate, str, int, Mapping[str, Any]], Any]]] = {
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


def _plus(left: int, right: int) -> int:
    return left + right


def _plus_sums(left: Mapping[str, str], right: Mapping[str, str]) -> dict[str, str]:
    merged = dict(left)
    for currency, amount in right.items():
        before = merged.get(currency)
        merged[currency] = amount if before is None else str(EXACTLY.add(Decimal(before), Decimal(amount)))
    return merged if len(merged) == 1 else dict(sorted(merged.items()))


def _plus_averages(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(left)
    for currency, (amount, count) in right.items():
        before = merged.get(currency)
        if before is None:
            merged[currency] = [amount, count]
        else:
            merged[currency] = [str(EXACTLY.add(Decimal(before[0]), Decimal(amount))), before[1] + count]
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


MERGES: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
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
