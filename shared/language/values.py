"""What values mean in an expression: their kinds, equality, order, arithmetic, and the plain functions over them.

Null (None) equals only null. Ordering against null or across kinds is false, arithmetic on them is null; nothing here
raises. Numbers are int, float and Decimal and are compared and added as they are written: a float stands for its
shortest decimal text, so `0.1 + 0.2 == 0.3`. Bools are no numbers. Moments are aware datetimes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Final

from shared.language.durations import format_duration

DAY: Final = timedelta(days=1)
MICROSECOND: Final = timedelta(microseconds=1)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Number = int | float | Decimal

NUMBERS: Final = frozenset({int, float, Decimal})
JSON_NUMBERS: Final = frozenset({int, float})
"""Among these two Python's own operators compare correctly, without a detour over Decimal."""

LONGEST_TEXT: Final = 10_000
"""Characters that two texts may have that are put together; more is null, or a text could double in each step."""

# No traps: what overflows or has no result becomes an infinity or NaN, and so null, instead of an exception.
_ARITHMETIC = Context(prec=28, Emin=-999, Emax=999, traps=[])
_ROUNDING = Context(prec=60, Emin=-999, Emax=999, rounding=ROUND_HALF_UP, traps=[])


def decimal(number: Number) -> Decimal:
    """The decimal that a number stands for; a float's is its shortest text that reads back the same."""
    kind = type(number)
    if kind is Decimal:
        return number  # type: ignore[return-value]
    return Decimal(repr(number)) if kind is float else Decimal(number)


def number_or_none(value: Any) -> Number | None:
    """The value where it is a finite number, else None."""
    kind = type(value)
    if kind is int:
        return value  # type: ignore[no-any-return]
    if kind is float:
        return value if math.isfinite(value) else None
    if kind is Decimal:
        return value if value.is_finite() else None
    return None


# --- micro-seconds, the form in which moments are kept in states -----------------------------------------------------


def micros(moment: datetime) -> int:
    """Whole microseconds since 1970 UTC."""
    passed = moment - EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


def from_micros(count: int) -> datetime:
    """The moment that many microseconds after 1970, in UTC."""
    return EPOCH + timedelta(microseconds=count)


# --- equality and order ---------------------------------------------------------------------------------------------


def compare(left: Any, right: Any) -> int | None:
    """-1, 0 or 1 as left is less, equal or greater; None where the two have no order (null, other kinds)."""
    a, b = type(left), type(right)
    if a in NUMBERS and b in NUMBERS:
        if a is not b and (a is Decimal or b is Decimal):
            if number_or_none(left) is None or number_or_none(right) is None:
                return None
            left, right = decimal(left), decimal(right)
        elif left != left or right != right:
            return None
        return -1 if left < right else 1 if left > right else 0
    if _ordered(left, right):
        return -1 if left < right else 1 if left > right else 0
    return None


def _ordered(left: Any, right: Any) -> bool:
    return any(isinstance(left, kind) and isinstance(right, kind) for kind in (str, datetime, timedelta))


def equal(left: Any, right: Any) -> bool:
    a, b = type(left), type(right)
    if a in NUMBERS or b in NUMBERS:
        return compare(left, right) == 0
    if a is list or a is tuple:
        return (b is list or b is tuple) and len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, Mapping):
        return (
            isinstance(right, Mapping)
            and left.keys() == right.keys()
            and all(equal(value, right[name]) for name, value in left.items())
        )
    if a is bool or b is bool:
        return left is right
    return bool(left == right)


def unequal(left: Any, right: Any) -> bool:
    return not equal(left, right)


def less(left: Any, right: Any) -> bool:
    if type(left) in JSON_NUMBERS and type(right) in JSON_NUMBERS:
        return left < right  # type: ignore[no-any-return]
    return compare(left, right) == -1


def at_most(left: Any, right: Any) -> bool:
    if type(left) in JSON_NUMBERS and type(right) in JSON_NUMBERS:
        return left <= right  # type: ignore[no-any-return]
    return compare(left, right) in (-1, 0)


def greater(left: Any, right: Any) -> bool:
    if type(left) in JSON_NUMBERS and type(right) in JSON_NUMBERS:
        return left > right  # type: ignore[no-any-return]
    return compare(left, right) == 1


def at_least(left: Any, right: Any) -> bool:
    if type(left) in JSON_NUMBERS and type(right) in JSON_NUMBERS:
        return left >= right  # type: ignore[no-any-return]
    return compare(left, right) in (0, 1)


def member(item: Any, container: Any) -> bool:
    """Whether a list has the item, or a text the part."""
    kind = type(container)
    if kind is list or kind is tuple or isinstance(container, (frozenset, set)):
        if type(item) is str:
            return item in container  # A text equals nothing but the same text, in Python as here.
        return any(equal(item, other) for other in container)
    if kind is str:
        return type(item) is str and item in container
    return False


# --- arithmetic -----------------------------------------------------------------------------------------------------


def _finite(number: Decimal) -> Decimal | None:
    return number if number.is_finite() else None


def _arithmetic(left: Any, right: Any, operation: Callable[[Decimal, Decimal], Decimal]) -> Decimal | None:
    if number_or_none(left) is None or number_or_none(right) is None:
        return None
    return _finite(operation(decimal(left), decimal(right)))


def add(left: Any, right: Any) -> Any:
    a, b = type(left), type(right)
    if a is int and b is int:
        return left + right
    if a in NUMBERS:
        return _arithmetic(left, right, _ARITHMETIC.add)
    if a is str and b is str:
        return left + right if len(left) + len(right) <= LONGEST_TEXT else None
    if (a is timedelta and b in (timedelta, datetime)) or (a is datetime and b is timedelta):
        try:
            return left + right
        except OverflowError:
            return None
    return None


def subtract(left: Any, right: Any) -> Any:
    a, b = type(left), type(right)
    if a is int and b is int:
        return left - right
    if a in NUMBERS:
        return _arithmetic(left, right, _ARITHMETIC.subtract)
    if (a is datetime and b in (datetime, timedelta)) or (a is timedelta and b is timedelta):
        try:
            return left - right
        except OverflowError:
            return None
    return None


def multiply(left: Any, right: Any) -> Any:
    a, b = type(left), type(right)
    if a is int and b is int:
        return left * right
    if a is timedelta:
        return _scaled(left, right, _ARITHMETIC.multiply)
    if b is timedelta:
        return _scaled(right, left, _ARITHMETIC.multiply)
    return _arithmetic(left, right, _ARITHMETIC.multiply)


def divide(left: Any, right: Any) -> Any:
    if type(left) is timedelta:
        if type(right) is timedelta:
            return _arithmetic(left // MICROSECOND, right // MICROSECOND, _ARITHMETIC.divide)
        return _scaled(left, right, _ARITHMETIC.divide)
    return _arithmetic(left, right, _ARITHMETIC.divide)


def negate(value: Any) -> Any:
    if type(value) is timedelta:
        return -value
    number = number_or_none(value)
    return None if number is None else -number


def _scaled(duration: timedelta, by: Any, operation: Callable[[Decimal, Decimal], Decimal]) -> timedelta | None:
    count = _arithmetic(duration // MICROSECOND, by, operation)
    if count is None:
        return None
    try:
        return timedelta(microseconds=int(count.to_integral_value()))
    except OverflowError:
        return None


# --- fields ---------------------------------------------------------------------------------------------------------


def get(value: Any, name: str) -> Any:
    """A field of a mapping; of a list, the field of each element, in one flat list. Null where there is none."""
    kind = type(value)
    if kind is dict:
        return value.get(name)
    if kind is list or kind is tuple:
        found: list[Any] = []
        for item in value:
            field: Any = item.get(name) if type(item) is dict else get(item, name)
            kind = type(field)
            if kind is list or kind is tuple:
                found.extend(field)
            else:
                found.append(field)
        return found
    return value.get(name) if isinstance(value, Mapping) else None


def reach(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = get(value, name)
    return value


# --- functions ------------------------------------------------------------------------------------------------------


def moment(value: Any) -> datetime | None:
    """`date(x)`: the moment that an RFC 3339 text or a date stands for. Without an offset it is UTC; a day begins at
    midnight."""
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if type(value) is not str or not 10 <= len(value) <= 40:
        return None
    try:
        parsed = datetime.fromisoformat(value)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def days_between(value: Any, now: datetime) -> float | None:
    """`days_since(x)`: elapsed days (24 h each) from x to now, with fractions; negative where x lies ahead."""
    begin = moment(value)
    return None if begin is None else (now - begin) / DAY


def lower(value: Any) -> str | None:
    return value.lower() if type(value) is str else None


def contains(container: Any, item: Any) -> bool:
    return member(item, container)


def starts_with(text: Any, beginning: Any) -> bool:
    return type(text) is str and type(beginning) is str and text.startswith(beginning)


def length(value: Any) -> int | None:
    """Characters of a text, elements of a list, fields of a mapping."""
    return len(value) if isinstance(value, (str, list, tuple, frozenset, set, Mapping)) else None


def rounded(value: Any, digits: Any = 0) -> int | Decimal | None:
    """To so many decimals (none unless said), halves away from zero, as on an invoice."""
    number = number_or_none(value)
    if number is None or type(digits) is not int or not 0 <= digits <= 9:
        return None
    result = decimal(number).quantize(Decimal(1).scaleb(-digits), context=_ROUNDING)
    if not result.is_finite():
        return None
    return result if digits else int(result)


def plain(value: Any) -> Any:
    """A value as JSON carries it: decimals as numbers, moments as RFC 3339 text in UTC, durations as `2d`."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return value
