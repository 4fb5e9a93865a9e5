"""The filters, tests and names that every template knows, each paid for by what it does."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import jinja2.filters
import jinja2.tests
from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import Context
from jinja2.utils import Namespace, pass_context
from markupsafe import Markup, escape

from shared.language import locales
from shared.language.template_values import (
    Missing,
    Rendition,
    as_decimal,
    as_number,
    as_text,
    counted,
    current_rendition,
    is_null,
    measure,
    spend,
)

_MAX_RANGE = 1_000
LINK = "_link"
"""The filter that a link's target passes through; the mailer puts it around each `href`."""


@pass_context
def _link(context: Context, value: str) -> str:
    return current_rendition().link(value)


@pass_context
def money(context: Context, value: Any, currency: Any = None) -> str:
    """`{{ 1234.5 | money("EUR") }}`: €1,234.50 or 1 234,50 €, as the reader's language has it."""
    number = as_number(value)
    if number is None:
        return ""
    here = current_rendition()
    code = currency if isinstance(currency, str) and currency else here.currency
    if isinstance(number, int) and number.bit_length() > 64:
        return ""
    text = _written_money(number, code[:8], here.locale)
    if text:
        spend(40)
    return text


@functools.lru_cache(4096, typed=True)
def _written_money(number: int | float | Decimal, currency: str, locale: str) -> str:
    """Kept, since prices come again from one mail to the next. Empty where nobody has so much."""
    amount = as_decimal(number)
    if not amount.is_finite() or abs(amount) >= Decimal(10) ** 18:
        return ""
    return locales.money(amount, currency, locale)


@pass_context
def written_date(context: Context, value: Any, style: str = "long") -> str:
    """`{{ trigger.shipped_at | date }}`: 2 March 2026, in the customer's timezone. Styles: short, long, full."""
    style = as_text(style)
    if style not in locales.DATE_STYLES:
        raise TemplateRuntimeError(f'date has no style "{style}". Use short, long or full')
    here = current_rendition()
    day: date
    if isinstance(value, str) and len(value) <= 40:
        try:
            day = date.fromisoformat(value) if len(value) == 10 else _local(datetime.fromisoformat(value), here)
        except (ValueError, OverflowError):
            return ""
    elif isinstance(value, datetime):
        day = _local(value, here)
    elif isinstance(value, date):
        day = value
    else:
        return ""
    spend(40)
    return locales.written_date(day, style, here.locale)


def _local(moment: datetime, here: Rendition) -> date:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(here.timezone).date()


def _default(value: Any, default: Any = "", boolean: bool = False) -> Any:
    return default if is_null(value) or (boolean and not value) else value


def _join(value: Any, separator: str = "", attribute: str | int | None = None) -> str:
    items = counted(value, 1)
    if attribute is not None:
        items = [_field(item, attribute) for item in items]
    separator = as_text(separator)
    texts = [as_text(item) for item in items]
    spend(len(separator) * len(texts))
    if isinstance(separator, Markup) or any(isinstance(text, Markup) for text in texts):
        return Markup(escape(separator)).join(texts)
    return separator.join(texts)


def _field(item: Any, path: str | int) -> Any:
    for part in path.split(".") if isinstance(path, str) else (path,):
        if isinstance(item, dict):
            item = item.get(part)
        elif isinstance(item, (list, tuple)):
            index = int(part) if isinstance(part, int) or part.isdigit() else -1
            item = item[index] if 0 <= index < len(item) else None
        else:
            return None
    return item


def _replace(value: Any, old: str, new: str) -> str:
    text, old, new = as_text(value), as_text(old), as_text(new)
    spend(len(text) + (text.count(old) if old else len(text) + 1) * len(new))
    return text.replace(old, new)


def _round(value: Any, precision: int = 0) -> Any:
    number = as_number(value)
    if number is None:
        return None
    if not 0 <= precision <= 6:
        raise TemplateRuntimeError("round takes 0 to 6 digits")
    amount = as_decimal(number)
    if not amount.is_finite() or abs(amount) >= Decimal(10) ** 18:
        return None
    rounded = amount.quantize(Decimal(1).scaleb(-precision), rounding=ROUND_HALF_UP)
    return int(rounded) if precision == 0 else rounded


def _sum(value: Any, attribute: str | int | None = None) -> Any:
    total: int | Decimal = 0
    for item in counted(value, 2):
        number = as_number(item if attribute is None else _field(item, attribute))
        if number is not None:
            total = as_decimal(total) + as_decimal(number)
    return total


def _length(value: Any) -> int:
    if isinstance(value, (str, dict)):
        return len(value)
    return len(counted(value, 1))


def _batch(value: Any, size: int) -> list[Sequence[Any]]:
    items = list(counted(value, 1))
    if not 1 <= size <= 100:
        raise TemplateRuntimeError("batch takes rows of 1 to 100")
    return [items[at : at + size] for at in range(0, len(items), size)]


def _string(value: Any) -> str:
    return as_text(value)


def _nl2br(value: Any) -> Markup:
    """Line ends as `<br>`, everything else escaped."""
    text = as_text(value)
    spend(4 * text.count("\n"))
    return Markup("<br>").join(text.splitlines())


def _urlencode(value: Any) -> str:
    """A text as a part of an address, or the fields of an object as its query."""
    if isinstance(value, dict):
        return jinja2.filters.do_urlencode({as_text(name): as_text(each) for name, each in value.items()})
    return jinja2.filters.do_urlencode(as_text(value))


def _of_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """One of Jinja's own filters of text; what is none, it gets as it would be printed."""
    at = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        return function(*args[:at], as_text(args[at]), *args[at + 1 :], **kwargs)

    return filtered


def _metered(function: Callable[..., Any], *, compares: bool = False) -> Callable[..., Any]:
    """One of Jinja's own filters whose work and result are linear in its input, paid for by the input's size. One that
    compares looks at all that is in it."""
    at = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        value = args[at]
        if isinstance(value, str):
            spend(1 + len(value))
        elif isinstance(value, (list, tuple, range, dict)):
            spend(1 + 4 * len(value))
        elif value is None:
            value = Missing()
        elif isinstance(value, Iterator):
            value = counted(value, 4)
        else:
            spend(1)
        if compares:
            measure(value)
        return function(*args[:at], value, *args[at + 1 :], **kwargs)

    return filtered


_TAKEN = "abs first float int items last list map reject rejectattr reverse select selectattr"
_THAT_COMPARE = "dictsort groupby max min sort unique"
_OF_TEXT = "capitalize e escape lower striptags title trim truncate upper wordcount"

FILTERS: Mapping[str, Callable[..., Any]] = {
    **{name: _metered(jinja2.filters.FILTERS[name]) for name in _TAKEN.split()},
    **{name: _metered(jinja2.filters.FILTERS[name], compares=True) for name in _THAT_COMPARE.split()},
    **{name: _of_text(jinja2.filters.FILTERS[name]) for name in _OF_TEXT.split()},
    "batch": _batch,
    "count": _length,
    "d": _default,
    "date": written_date,
    "default": _default,
    "join": _join,
    "length": _length,
    "money": money,
    "nl2br": _nl2br,
    "replace": _replace,
    "round": _round,
    "string": _string,
    "sum": _sum,
    "urlencode": _urlencode,
    LINK: _link,
}
"""Every filter that a template may use."""

_TESTS_TAKEN = (
    "boolean defined divisibleby even false float integer iterable mapping number odd sequence string true undefined"
)

TESTS: Mapping[str, Any] = {
    **{name: jinja2.tests.TESTS[name] for name in _TESTS_TAKEN.split()},
    "none": is_null,
}
"""Every test (`is …`) that a template may use."""


def bounded_range(*args: int) -> range:
    numbers = range(*args)
    if len(numbers) > _MAX_RANGE:
        raise TemplateRuntimeError(f"range gives at most {_MAX_RANGE:,} numbers")
    return numbers


GLOBALS: Mapping[str, Any] = {"range": bounded_range, "namespace": Namespace}
"""Names that every template knows beside its variables."""
