"""What may stand in a field of a playbook's files, and how it is said that something else does."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import time, timedelta
from decimal import Decimal
from email.utils import parseaddr
from importlib.resources import files
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BeforeValidator,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from shared.language.durations import DurationError, parse_duration
from shared.language.playbook import NAME, QuietHours
from shared.language.problems import nearest, quoted

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MAX_TEXT = 4000


# What stands in a field, and how it is said that something else does


def refusal(message: str, remedy: str) -> PydanticCustomError:
    """What a field's own check raises: whole sentences, which `report_shape` takes as they are."""
    return PydanticCustomError("refused", "{message}", {"message": message, "remedy": remedy})


def _text_of(value: object) -> object:
    """An expression may look like a YAML boolean or number (`attract: true`); it is text all the same."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | Decimal) else value


def _duration(value: object) -> timedelta:
    if isinstance(value, str):
        try:
            return parse_duration(value)
        except DurationError as error:
            message, _, remedy = str(error).partition(". ")
            raise refusal(f"{message}.", remedy) from None
    found = f"{value}" if isinstance(value, int | Decimal) and not isinstance(value, bool) else "this"
    raise refusal(f"{found} is no duration.", "Write a whole number and one of m, h, d, w: 30m, 1h, 2d, 1w.")


def _longer_than_nothing(value: timedelta) -> timedelta:
    if not value:
        raise refusal("this takes no time at all.", "Write at least 1m, or leave it out.")
    return value


def _days(value: object) -> int:
    found = re.fullmatch(r"(0|[1-9][0-9]{0,2})(d|w)", value) if isinstance(value, str) else None
    if found is None:
        raise refusal("before counts whole calendar days.", "Write 1d, 3d or 1w.")
    days = int(found[1]) * (7 if found[2] == "w" else 1)
    if days > 365:
        raise refusal("before is at most a year.", "Write 365d or less.")
    return days


def clock_time(value: object) -> time:
    """A time of day, as `09:00`."""
    found = re.fullmatch(r"([01][0-9]|2[0-3]):([0-5][0-9])", value) if isinstance(value, str) else None
    if found is None:
        shown = quoted(value) if isinstance(value, str) else "this"
        short = re.fullmatch(r"[0-9]:[0-5][0-9]", value) if isinstance(value, str) else None
        remedy = f'Write "0{value}".' if short else 'Write hours and minutes, from "00:00" to "23:59".'
        raise refusal(f"{shown} is no time of day.", remedy)
    return time(int(found[1]), int(found[2]))


def _until(value: object) -> time | str:
    return _trait_path(value) if isinstance(value, str) and value.startswith("traits") else clock_time(value)


def _quiet_hours(value: object) -> QuietHours:
    found = re.fullmatch(r"(\S+?)\s*[-–]\s*(\S+)", value) if isinstance(value, str) else None
    if found is None:
        raise refusal("quiet hours are two times of day.", "Write them as 21:00-08:00.")
    hours = QuietHours(clock_time(found[1]), clock_time(found[2]))
    if hours.start == hours.end:
        raise refusal("these quiet hours begin and end at the same time.", "Write them as 21:00-08:00.")
    return hours


def slug(value: str) -> str:
    """A text as a name could have it: small letters, digits, hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        better = slug(value)[:64].strip("-")
        remedy = "Use small letters, digits and single hyphens, 64 at most"
        raise refusal(f"{quoted(value)} cannot be a name.", f"{remedy}: {better}." if better else f"{remedy}.")
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", value):
        better = re.sub(r"\W+", "_", value).strip("_")
        remedy = "Use letters, digits and underscores"
        raise refusal(
            f"{quoted(value)} cannot be written in a template.", f"{remedy}: {better}." if better else f"{remedy}."
        )
    return value


def _one_line(value: str) -> str:
    if any(character in value for character in "\r\n"):
        raise refusal("this goes on over several lines.", "Write it on one line.")
    if not value.strip():
        raise refusal("this is empty.", "Write some text.")
    return value


PLAIN_ADDRESS = re.compile(
    r"[A-Za-z0-9_+-]{1,32}(?:\.[A-Za-z0-9_+-]{1,20})?@(?:[a-z0-9]+(?:-[a-z0-9]+)?\.){1,3}(?:com|net|org|example|[a-z]{2})"
)
"""What most shops send from: nobody who knows all addresses would say that this is none."""


def mailbox(value: str) -> str:
    name, address = parseaddr(_one_line(value))
    if PLAIN_ADDRESS.fullmatch(address) and len(address) < 64:
        return value

    # Imported for the others only: it takes longer than to read a playbook's own files.
    from email.headerregistry import Address

    from email_validator import EmailNotValidError, validate_email

    try:
        checked = validate_email(address, check_deliverability=False, test_environment=True)
        Address(display_name=name, username=checked.local_part, domain=checked.ascii_domain)
    except (EmailNotValidError, ValueError) as error:
        said = str(error).rstrip(".") if address else "no address was found"
        raise refusal(f"{quoted(value)} is no mail address: {said}.", "Write Name <name@shop.example>.") from None
    return value


def _timezone(value: str) -> str:
    if value not in (files("tzdata") / "zones").read_text().splitlines():
        return _elsewhere(value)
    ZoneInfo(value)
    return value


def _elsewhere(value: str) -> str:
    """A timezone that this machine alone knows. To list those, hundreds of files are opened."""
    zones = available_timezones()
    if value not in zones:
        by_city = {zone.rsplit("/", 1)[-1]: zone for zone in sorted(zones, reverse=True)}
        found = nearest(value, zones) or by_city.get(nearest(value.rsplit("/", 1)[-1], by_city) or "")
        remedy = f'Did you mean "{found}"?' if found else "Write one such as Europe/Oslo."
        raise refusal(f"{quoted(value)} is no timezone.", remedy)
    ZoneInfo(value)
    return value


LOCALE = re.compile(r"[a-z]{2,3}(?:-[A-Z][a-z]{3})?(?:-(?:[A-Z]{2}|[0-9]{3}))?")


def _currency(value: str) -> str:
    if not re.fullmatch(r"[A-Z]{3}", value):
        better = value.upper() if re.fullmatch(r"[A-Za-z]{3}", value) else "EUR"
        raise refusal(f"{quoted(value)} is no currency.", f"Write its three capital letters: {better}.")
    return value


def _url(value: str) -> str:
    try:
        parts = urlsplit(_one_line(value).strip())
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"\s", value)
    except ValueError:
        sound = False
    if not sound:
        raise refusal(f"{quoted(value)} is no web address.", "Begin it with https://.")
    return value


def _rate(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or value <= 0:
        raise refusal("a rate is a number above zero.", "Write what one unit is worth in your currency: SEK: 0.087.")
    return Decimal(value)


def _share(value: object) -> Decimal:
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,2})?) ?%", value) if isinstance(value, str) else None
    if found is None or Decimal(found[1]) > 100:
        raise refusal("a share is a percentage.", "Write it from 0% to 100%: 50%.")
    return Decimal(found[1]) / 100


def _variable_or_trait(value: str) -> str:
    if not re.fullmatch(r"(?:vars|traits)\.[A-Za-z_][\w-]*", value):
        raise refusal(f"{quoted(value)} cannot be set.", "Set a trait, or a name of this enrollment's own: vars.score.")
    if value == "traits.consent":
        message = "a journey cannot decide what a customer consents to."
        raise refusal(message, "Have the shop send Topic Subscribed or Topic Unsubscribed.")
    return value


def _like(pattern: str, is_none: str, remedy: str) -> Callable[[str], str]:
    """A check that a text is of a form."""

    def checked(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise refusal(f"{quoted(value)} {is_none}.", remedy)
        return value

    return checked


_trait_path = _like(
    r"traits(?:\.[A-Za-z_][\w-]*)+", "is no trait", "Name the trait that holds the date: traits.birthday."
)
_event_path = _like(
    r"event(?:\.[A-Za-z_][\w-]*)+", "is no property of the event", "Name a list that it brings: event.products."
)
_locale = _like(LOCALE.pattern, "is no locale", "Write a language, or a language and a country: nb, nb-NO.")
_coupon_code = _like(r"[\x21-\x7e]{1,64}", "cannot be typed as a code", "Use letters, digits and hyphens, 64 at most.")


def nothing_is_empty(value: object) -> object:
    return [] if value is None else value


_DURATION = {"type": "string", "pattern": "^[0-9]{1,9}[mhdw]$", "examples": ["30m", "1h", "2d", "1w"]}
_CLOCK = {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$", "examples": ["09:00"]}
_NAME = {"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$", "maxLength": 64}
_EXPRESSION = {"type": ["string", "boolean", "number"]}
_TRAIT = {"type": "string", "pattern": r"^traits(\.[A-Za-z_][\w-]*)+$", "examples": ["traits.birthday"]}

Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT)]
Line = Annotated[str, StringConstraints(max_length=MAX_TEXT), AfterValidator(_one_line)]
EventName = Annotated[str, StringConstraints(max_length=200), AfterValidator(_one_line)]
Name = Annotated[str, AfterValidator(_name), WithJsonSchema(_NAME)]
CouponCode = Annotated[
    str, AfterValidator(_coupon_code), WithJsonSchema({"type": "string", "pattern": "^[!-~]{1,64}$"})
]
Variable = Annotated[
    str, AfterValidator(_variable), WithJsonSchema({"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,63}$"})
]
ExpressionText = Annotated[str, StringConstraints(min_length=1), BeforeValidator(_text_of), WithJsonSchema(_EXPRESSION)]
Duration = Annotated[timedelta, BeforeValidator(_duration), WithJsonSchema(_DURATION)]
LongerDuration = Annotated[
    timedelta, AfterValidator(_longer_than_nothing), BeforeValidator(_duration), WithJsonSchema(_DURATION)
]
CalendarDays = Annotated[
    int, BeforeValidator(_days), WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,3}[dw]$", "examples": ["3d"]})
]
ClockTime = Annotated[time, BeforeValidator(clock_time), WithJsonSchema(_CLOCK)]
UntilTime = Annotated[
    time | str,
    BeforeValidator(_until),
    WithJsonSchema({"type": "string", "pattern": f"{_CLOCK['pattern']}|{_TRAIT['pattern']}", "examples": ["10:00"]}),
]
Share = Annotated[
    Decimal,
    BeforeValidator(_share),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]{1,2})? ?%$", "examples": ["50%"]}),
]
QuietHoursText = Annotated[
    QuietHours,
    BeforeValidator(_quiet_hours),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{2}:[0-9]{2} *[-–] *[0-9]{2}:[0-9]{2}$"}),
]
Mailbox = Annotated[str, AfterValidator(mailbox)]
Timezone = Annotated[str, AfterValidator(_timezone)]
Locale = Annotated[str, AfterValidator(_locale), WithJsonSchema({"type": "string", "pattern": f"^{LOCALE.pattern}$"})]
Currency = Annotated[
    str, AfterValidator(_currency), WithJsonSchema({"type": "string", "pattern": "^[A-Z]{3}$", "examples": ["EUR"]})
]
Url = Annotated[str, AfterValidator(_url), WithJsonSchema({"type": "string", "format": "uri", "pattern": "^https?://"})]
Rate = Annotated[Decimal, BeforeValidator(_rate), WithJsonSchema({"type": "number", "exclusiveMinimum": 0})]
TraitPath = Annotated[str, AfterValidator(_trait_path), WithJsonSchema(_TRAIT)]
Settable = Annotated[
    str,
    AfterValidator(_variable_or_trait),
    WithJsonSchema({"type": "string", "pattern": r"^(vars|traits)\.[A-Za-z_][\w-]*$", "examples": ["vars.score"]}),
]
EventPath = Annotated[
    str,
    AfterValidator(_event_path),
    WithJsonSchema({"type": "string", "pattern": r"^event(\.[A-Za-z_][\w-]*)+$", "examples": ["event.products"]}),
]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
