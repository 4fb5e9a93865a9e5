"""How people of a language write money and dates. Small on purpose: the languages that shops mail in most.

Forms follow the Unicode CLDR (https://cldr.unicode.org), shortened to what a mail needs.
"""

from __future__ import annotations

from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Literal, NamedTuple

DateStyle = Literal["short", "long", "full"]
DATE_STYLES: tuple[DateStyle, ...] = ("short", "long", "full")

_NBSP = "\u00a0"
_NARROW = "\u202f"


class _Language(NamedTuple):
    """`money`: `{amount}` and `{symbol}`; dates: `{d} {dd} {m} {mm} {month} {weekday} {y}`."""

    decimal: str
    group: str
    money: str
    short: str
    long: str
    full: str
    months: tuple[str, ...]
    weekdays: tuple[str, ...]
    group_from: int = 4
    """How many digits a whole number has at least where its thousands are set apart."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_AFTER = "{amount}" + _NBSP + "{symbol}"
_BEFORE = "{symbol}{amount}"
_EN_MONTHS = _words("January February March April May June July August September October November December")
_EN_DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
_NB_MONTHS = _words("januar februar mars april mai juni juli august september oktober november desember")

_LANGUAGES: dict[str, _Language] = {
    "en": _Language(
        ".", ",", _BEFORE, "{dd}/{mm}/{y}", "{d} {month} {y}", "{weekday} {d} {month} {y}", _EN_MONTHS, _EN_DAYS
    ),
    "en-US": _Language(
        ".", ",", _BEFORE, "{m}/{d}/{y}", "{month} {d}, {y}", "{weekday}, {month} {d}, {y}", _EN_MONTHS, _EN_DAYS
    ),
    "nb": _Language(
        ",",
        _NBSP,
        _AFTER,
        "{dd}.{mm}.{y}",
        "{d}. {month} {y}",
        "{weekday} {d}. {month} {y}",
        _NB_MONTHS,
        _words("mandag tirsdag onsdag torsdag fredag lørdag søndag"),
    ),
    "nn": _Language(
        ",",
        _NBSP,
        _AFTER,
        "{dd}.{mm}.{y}",
        "{d}. {month} {y}",
        "{weekday} {d}. {month} {y}",
        _NB_MONTHS,
        _words("måndag tysdag onsdag torsdag fredag laurdag søndag"),
    ),
    "sv": _Language(
        ",",
        _NBSP,
        _AFTER,
        "{y}-{mm}-{dd}",
        "{d} {month} {y}",
        "{weekday} {d} {month} {y}",
        _words("januari februari mars april maj juni juli augusti september oktober november december"),
        _words("måndag tisdag onsdag torsdag fredag lördag söndag"),
    ),
    "da": _Language(
        ",",
        ".",
        _AFTER,
        "{dd}.{mm}.{y}",
        "{d}. {month} {y}",
        "{weekday} den {d}. {month} {y}",
        _words("januar februar marts april maj juni juli august september oktober november december"),
        _words("mandag tirsdag onsdag torsdag fredag lørdag søndag"),
    ),
    "fi": _Language(
        ",",
        _NBSP,
        _AFTER,
        "{d}.{m}.{y}",
        "{d}. {month} {y}",
        "{weekday} {d}. {month} {y}",
        _words(
            "tammikuuta helmikuuta maaliskuuta huhtikuuta toukokuuta kesäkuuta heinäkuuta elokuuta syyskuuta lokakuuta "
            "marraskuuta joulukuuta"
        ),
        _words("maanantaina tiistaina keskiviikkona torstaina perjantaina lauantaina sunnuntaina"),
    ),
    "de": _Language(
        ",",
        ".",
        _AFTER,
        "{dd}.{mm}.{y}",
        "{d}. {month} {y}",
        "{weekday}, {d}. {month} {y}",
        _words("Januar Februar März April Mai Juni Juli August September Oktober November Dezember"),
        _words("Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag"),
    ),
    "nl": _Language(
        ",",
        ".",
        "{symbol}" + _NBSP + "{amount}",
        "{dd}-{mm}-{y}",
        "{d} {month} {y}",
        "{weekday} {d} {month} {y}",
        _words("januari februari maart april mei juni juli augustus september oktober november december"),
        _words("maandag dinsdag woensdag donderdag vrijdag zaterdag zondag"),
    ),
    "fr": _Language(
        ",",
        _NARROW,
        _AFTER,
        "{dd}/{mm}/{y}",
        "{d} {month} {y}",
        "{weekday} {d} {month} {y}",
        _words("janvier février mars avril mai juin juillet août septembre octobre novembre décembre"),
        _words("lundi mardi mercredi jeudi vendredi samedi dimanche"),
    ),
    "es": _Language(
        ",",
        ".",
        _AFTER,
        "{d}/{m}/{y}",
        "{d} de {month} de {y}",
        "{weekday}, {d} de {month} de {y}",
        _words("enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"),
        _words("lunes martes miércoles jueves viernes sábado domingo"),
        group_from=5,
    ),
    "it": _Language(
        ",",
        ".",
        _AFTER,
        "{dd}/{mm}/{y}",
        "{d} {month} {y}",
        "{weekday} {d} {month} {y}",
        _words("gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre"),
        _words("lunedì martedì mercoledì giovedì venerdì sabato domenica"),
    ),
    "pt": _Language(
        ",",
        ".",
        _AFTER,
        "{dd}/{mm}/{y}",
        "{d} de {month} de {y}",
        "{weekday}, {d} de {month} de {y}",
        _words("janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro"),
        _words("segunda-feira terça-feira quarta-feira quinta-feira sexta-feira sábado domingo"),
        group_from=5,
    ),
    "pl": _Language(
        ",",
        _NBSP,
        _AFTER,
        "{d}.{mm}.{y}",
        "{d} {month} {y}",
        "{weekday}, {d} {month} {y}",
        _words("stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada grudnia"),
        _words("poniedziałek wtorek środa czwartek piątek sobota niedziela"),
        group_from=5,
    ),
}
_LANGUAGES["no"] = _LANGUAGES["nb"]

_SYMBOLS = {
    "EUR": "€", "USD": "$", "GBP": "£", "NOK": "kr", "SEK": "kr", "DKK": "kr.", "ISK": "kr", "JPY": "¥", "CNY": "CN¥",
    "INR": "₹", "PLN": "zł", "CZK": "Kč", "UAH": "₴", "BRL": "R$", "CAD": "CA$", "AUD": "A$", "NZD": "NZ$",
}  # fmt: skip

# Digits after the decimal mark where they are not two (ISO 4217).
_DIGITS = {"JPY": 0, "KRW": 0, "ISK": 0, "CLP": 0, "VND": 0, "HUF": 2, "BHD": 3, "KWD": 3, "OMR": 3, "TND": 3, "JOD": 3}


@lru_cache(1024)
def tidy(locale: str) -> str:
    """`nb_no` and `NB-no` are both `nb-NO`."""
    language, *rest = locale.replace("_", "-").split("-")
    return "-".join([language.lower(), *(part.upper() if len(part) == 2 else part.title() for part in rest)])


def fallbacks(locale: str | None) -> tuple[str, ...]:
    """The locale and what it falls back to, most special first: `nb-NO`, `nb`. Nothing for what is none."""
    return _fallbacks(locale) if locale and len(locale) <= _LONGEST else ()


_LONGEST = 35
"""Characters of a language tag that everybody takes (RFC 5646, 4.4.1)."""


@lru_cache(1024)
def _fallbacks(locale: str) -> tuple[str, ...]:
    parts = tidy(locale).split("-")
    return tuple("-".join(parts[:end]) for end in range(len(parts), 0, -1))


@lru_cache(256)
def language_of(locale: str) -> _Language:
    for name in fallbacks(locale):
        if name in _LANGUAGES:
            return _LANGUAGES[name]
    return _LANGUAGES["en"]


def money(amount: Decimal, currency: str, locale: str) -> str:
    """An amount as people of `locale` write it: `€1,234.50`, `1 234,50 kr`. Never breaks over a line."""
    language = language_of(locale)
    currency = currency.upper()
    digits = _DIGITS.get(currency, 2)
    rounded = amount.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
    whole, _, fraction = f"{abs(rounded):f}".partition(".")
    if len(whole) >= language.group_from:
        head = len(whole) % 3
        groups = [whole[:head]] if head else []
        groups += [whole[at : at + 3] for at in range(head, len(whole), 3)]
        whole = language.group.join(groups)
    number = whole + (language.decimal + fraction if fraction else "")
    symbol = _SYMBOLS.get(currency, currency)
    pattern = language.money
    if pattern == _BEFORE and symbol[-1:].isalpha():
        pattern = "{symbol}" + _NBSP + "{amount}"
    sign = "-" if rounded < 0 else ""
    return sign + pattern.format(amount=number, symbol=symbol)


def written_date(day: date, style: DateStyle, locale: str) -> str:
    """A day as people of `locale` write it: `2 March 2026`, `2. mars 2026`."""
    language = language_of(locale)
    pattern: str = getattr(language, style)
    return pattern.format(
        d=day.day,
        dd=f"{day.day:02}",
        m=day.month,
        mm=f"{day.month:02}",
        y=day.year,
        month=language.months[day.month - 1],
        weekday=language.weekdays[day.weekday()],
    )
