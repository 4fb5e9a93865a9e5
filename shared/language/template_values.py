"""Values in templates: what is missing, how a value is printed and counted through, and what all of that costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from datetime import date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
from jinja2 import ChainableUndefined
from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import Undefined

MAX_WORK = 500_000
"""What one rendering may spend: a unit for each character printed from data or in loops, and each node evaluated."""


class Rendition(msgspec.Struct):
    """One rendering: for whom, and what is left to spend. `link` turns the target of a link into what is printed."""

    locale: str
    timezone: tzinfo
    currency: str
    link: Callable[[str], str]
    left: int = MAX_WORK


rendition_under_way: ContextVar[Rendition | None] = ContextVar("rendition", default=None)


def spend(units: int) -> None:
    """Pays so many units of the rendition under way. Raises TemplateRuntimeError where nothing is left."""
    rendition = rendition_under_way.get()
    if rendition is None:
        # Jinja works out constants as it compiles, which nobody would pay for: so it finds that it cannot.
        raise TemplateRuntimeError("this is worked out only while a mail is rendered")
    rendition.left -= units
    if rendition.left < 0:
        raise TemplateRuntimeError(
            f"the template does more than {MAX_WORK:,} units of work on this data. Loop over fewer, or print less."
        )


def current_rendition() -> Rendition:
    """The one under way. Raises TemplateRuntimeError where there is none."""
    rendition = rendition_under_way.get()
    if rendition is None:
        raise TemplateRuntimeError("this filter works only while a mail is rendered")
    return rendition


class Missing(ChainableUndefined):
    """What is not there: any field of it is missing too, and it is like null in every other way."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, Undefined)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = Undefined.__hash__


def is_null(value: object) -> bool:
    return value is None or isinstance(value, Undefined)


def as_number(value: Any) -> int | float | Decimal | None:
    """Numbers, and text that is one: shops send prices both ways."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float, Decimal)):
        return value
    if isinstance(value, str) and len(value) <= 40:
        try:
            number = Decimal(value.strip())
        except InvalidOperation:
            return None
        return number if number.is_finite() else None
    return None


def measure(value: Any) -> None:
    """Pay for looking at all of a value."""
    if isinstance(value, str):
        spend(1 + (len(value) >> 4))
    elif isinstance(value, dict):
        spend(1 + len(value))
        for each in value.values():
            measure(each)
    elif isinstance(value, (list, tuple)):
        spend(1 + len(value))
        for each in value:
            measure(each)
    else:
        spend(1)


def as_text(value: Any) -> str:
    """A value as it is printed."""
    if isinstance(value, str):
        spend(len(value))
        return value
    if is_null(value) or callable(value):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, (int, Decimal)):
        text = str(value)
        spend(len(text))
        return text
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, (list, tuple, range)):
        if any(isinstance(each, (list, tuple, dict)) for each in value):
            raise TemplateRuntimeError(
                "a list of objects cannot be printed. Loop over it, or pick a field with map(attribute=…)"
            )
        parts = []
        for each in value:
            spend(2)
            parts.append(as_text(each))
        return ", ".join(parts)
    raise TemplateRuntimeError("an object cannot be printed. Pick one of its fields")


def counted(value: Any, weight: int) -> Sequence[Any]:
    """What a loop goes through, paid for; `weight` is what one round costs."""
    if is_null(value) or callable(value):
        return ()
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TemplateRuntimeError("this is not a list, so there is nothing to loop over")
    if isinstance(value, (list, tuple, range)):
        spend(weight * len(value))
        return value
    items = []
    for each in value:
        spend(weight)
        items.append(each)
    return items


def as_decimal(value: int | float | Decimal) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
