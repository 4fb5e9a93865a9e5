"""The shape of a playbook's files as they are written: one class for each mapping, its fields, and what they mean.

Editors complete and check from these classes (`shared.language.schema`); the texts of the fields are what they show.
Shapes only: whether a topic or a segment exists, and whether an expression makes sense, is `checks`' work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import time, timedelta
from decimal import Decimal
from email.headerregistry import Address
from email.utils import parseaddr
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from email_validator import EmailNotValidError, validate_email
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError
from typing_extensions import TypeAliasType

from shared.language.durations import DurationError, parse_duration
from shared.language.playbook import NAME, QuietHours
from shared.language.problems import Problem, did_you_mean, listed, nearest, quoted
from shared.language.source import Document, ListNode, MappingNode, Node, Path, Scalar

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
        raise refusal(f"{shown} is no time of day.", 'Write hours and minutes, from "00:00" to "23:59".')
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


def _mailbox(value: str) -> str:
    name, address = parseaddr(_one_line(value))
    try:
        checked = validate_email(address, check_deliverability=False, test_environment=True)
        Address(display_name=name, username=checked.local_part, domain=checked.ascii_domain)
    except (EmailNotValidError, ValueError) as error:
        said = str(error).rstrip(".") if address else "no address was found"
        raise refusal(f"{quoted(value)} is no mail address: {said}.", "Write Name <name@shop.example>.") from None
    return value


def _timezone(value: str) -> str:
    zones = available_timezones()
    if value not in zones:
        by_city = {zone.rsplit("/", 1)[-1]: zone for zone in sorted(zones, reverse=True)}
        found = nearest(value, zones) or by_city.get(nearest(value.rsplit("/", 1)[-1], by_city) or "")
        remedy = f'Did you mean "{found}"?' if found else "Write one such as Europe/Oslo."
        raise refusal(f"{quoted(value)} is no timezone.", remedy)
    ZoneInfo(value)
    return value


LOCALE = re.compile(r"[a-z]{2,3}(?:-[A-Z][a-z]{3})?(?:-(?:[A-Z]{2}|[0-9]{3}))?")


def _locale(value: str) -> str:
    if not LOCALE.fullmatch(value):
        raise refusal(f"{quoted(value)} is no locale.", "Write a language, or a language and a country: nb, nb-NO.")
    return value


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


def _drawn_from(value: list[timedelta]) -> list[timedelta]:
    if len(value) != 2 or value[0] > value[1]:
        raise refusal("between takes the shortest and the longest wait.", "Write it as [20d, 300d].")
    return value


def _variable_or_trait(value: str) -> str:
    if not re.fullmatch(r"(?:vars|traits)\.[A-Za-z_][\w-]*", value):
        raise refusal(f"{quoted(value)} cannot be set.", "Set a trait, or a name of this enrollment's own: vars.score.")
    if value == "traits.consent":
        message = "a journey cannot decide what a customer consents to."
        raise refusal(message, "Have the shop send Topic Subscribed or Topic Unsubscribed.")
    return value


def _trait_path(value: str) -> str:
    if not re.fullmatch(r"traits(?:\.[A-Za-z_][\w-]*)+", value):
        raise refusal(f"{quoted(value)} is no trait.", "Name the trait that holds the date: traits.birthday.")
    return value


def _event_path(value: str) -> str:
    if not re.fullmatch(r"event(?:\.[A-Za-z_][\w-]*)+", value):
        raise refusal(f"{quoted(value)} is no property of the event.", "Name a list that it brings: event.products.")
    return value


def _nothing_is_empty(value: object) -> object:
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
Mailbox = Annotated[str, AfterValidator(_mailbox)]
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


class Section(BaseModel):
    """A mapping of the language. `noun` names it in messages; `later` are its fields that are not there yet."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)
    noun: ClassVar[str] = "field"
    later: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _remember(cls, data: object, info: ValidationInfo) -> object:
        if isinstance(info.context, _Reading) and id(data) in info.context.paths:
            info.context.classes[info.context.paths[id(data)]] = cls
        return data


class Hole:
    """Stands in the model where something was wrong that has been reported, so that the rest can still be checked."""


HOLE = Hole()


@dataclass(slots=True)
class _Reading:
    """What is learned on the way: which class each mapping was read as, and the complaints, from which path on."""

    paths: dict[int, Path]
    classes: dict[Path, type[Section]] = field(default_factory=dict)
    complaints: list[tuple[Path, ErrorDetails]] = field(default_factory=list)


def _attempt(data: object, handler: Callable[[object], object], reading: _Reading) -> object:
    """Notes what is wrong in one part, and goes on first without the fields at fault, then without the part."""
    try:
        return handler(data)
    except ValidationError as error:
        if id(data) not in reading.paths:
            raise
        errors = error.errors(include_url=False, include_input=False)
    around = reading.paths[id(data)]
    reading.complaints.extend((around, found) for found in errors)
    if not isinstance(data, dict):
        return HOLE
    faulty = {next((part for part in found["loc"] if part in data), None) for found in errors}
    try:
        return handler({key: value for key, value in data.items() if key not in faulty})
    except ValidationError:
        return HOLE


def _tolerate(data: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
    return _attempt(data, handler, info.context) if isinstance(info.context, _Reading) else handler(data)


_Tolerant = WrapValidator(_tolerate)


# Journeys

_IF_TEXT = "Asked once, when the trigger has matched: enrolls only if true."
_UNLESS_TEXT = "Other journeys: who is in one of them does not enter."


class EventTrigger(Section):
    """Begins the journey when an event comes."""

    noun: ClassVar[str] = "trigger field"

    event: EventName = Field(description="The event that begins the journey, by name.", examples=["Order Completed"])
    where: ExpressionText | None = Field(
        None, description="What must hold of the event: only events for which this is true begin the journey."
    )
    key: ExpressionText | None = Field(
        None,
        description="What this enrollment is about, such as event.cart_id: a customer may be in the journey once for "
        "each key. Without it, once.",
    )
    for_each: EventPath | None = Field(
        None,
        description="A list in the event, such as event.products: one enrollment for each item, which is `item` in "
        "this journey. Needs a key.",
        examples=["event.products"],
    )
    if_: ExpressionText | None = Field(None, alias="if", description=_IF_TEXT)
    unless_in: list[Name] = Field([], description=_UNLESS_TEXT)

    @model_validator(mode="after")
    def _items_have_keys(self) -> EventTrigger:
        if self.for_each is not None and self.key is None:
            raise refusal("for_each needs a key, which tells one item from another.", "Add key: item.sku, or the like.")
        return self


class StageTrigger(Section):
    """Begins the journey when a customer enters a stage."""

    noun: ClassVar[str] = "trigger field"

    stage: Name = Field(description="The stage from stages.yaml that the customer enters.")
    if_: ExpressionText | None = Field(None, alias="if", description=_IF_TEXT)
    unless_in: list[Name] = Field([], description=_UNLESS_TEXT)


class SegmentTrigger(Section):
    """Begins the journey when a customer enters or leaves a segment."""

    noun: ClassVar[str] = "trigger field"

    segment: Name = Field(description="The segment from segments.yaml.")
    change: Literal["entered", "left"] = Field(
        "entered", description="Whether entering the segment begins the journey, or leaving it."
    )
    if_: ExpressionText | None = Field(None, alias="if", description=_IF_TEXT)
    unless_in: list[Name] = Field([], description=_UNLESS_TEXT)


class DateTrigger(Section):
    """Begins the journey on a date that a trait holds, in the customer's own timezone."""

    noun: ClassVar[str] = "trigger field"

    date: TraitPath = Field(description="The trait that holds the date.")
    every: Literal["year"] | None = Field(
        None, description="year: on this day of every year. Without it: once, on the very date."
    )
    at: ClockTime = Field(
        description="The time of day, in the customer's timezone, else the brand's.", examples=["09:00"]
    )
    before: CalendarDays = Field(0, description="This many calendar days earlier, such as 3d.")
    if_: ExpressionText | None = Field(None, alias="if", description=_IF_TEXT)
    unless_in: list[Name] = Field([], description=_UNLESS_TEXT)


def _kind_by_key(kinds: Mapping[str, str]) -> Callable[[object], str | None]:
    """A discriminator: the one key of `kinds` that a mapping, or what was made of one, has."""

    def kind(value: object) -> str | None:
        keys: Collection[str] = value if isinstance(value, dict) else ()
        if isinstance(value, Section):
            keys = [info.alias or name for name, info in type(value).model_fields.items()]
        found = [tag for key, tag in kinds.items() if key in keys]
        return found[0] if len(found) == 1 else None

    return kind


_TRIGGERS = {"event": "@event", "stage": "@stage", "segment": "@segment", "date": "@date"}
Trigger = Annotated[
    Annotated[EventTrigger, Tag("@event")]
    | Annotated[StageTrigger, Tag("@stage")]
    | Annotated[SegmentTrigger, Tag("@segment")]
    | Annotated[DateTrigger, Tag("@date")],
    Discriminator(_kind_by_key(_TRIGGERS), custom_error_type="trigger", custom_error_message="trigger"),
]


class EventMatch(Section):
    """An event by name, and what must hold of it."""

    noun: ClassVar[str] = "field"

    event: EventName = Field(description="The event, by name.", examples=["Order Completed"])
    where: ExpressionText | None = Field(
        None, description="What must hold of the event. `key` is what the enrollment is about."
    )


class Clicked(Section):
    """A click in a mail of this journey."""

    noun: ClassVar[str] = "field"

    clicked: Name = Field(description="The step that sent the mail: its id, which is the message's name unless given.")


class Goal(Section):
    """What the journey is for. Reaching it ends the enrollment and cancels a mail that is held."""

    noun: ClassVar[str] = "goal field"

    event: EventName = Field(description="The event that reaches the goal.", examples=["Order Completed"])
    where: ExpressionText | None = Field(
        None, description="What must hold of the event. `key` is what the enrollment is about."
    )
    within: LongerDuration | None = Field(
        None, description="Counted from entry, and also after the last step; later events do not reach the goal."
    )
    value: ExpressionText | None = Field(None, description="What reaching the goal is worth, such as event.total.")


class Defaults(Section):
    """For the mails of this journey; each step may say otherwise."""

    noun: ClassVar[str] = "default field"

    topic: Name | None = Field(
        None,
        description="The topic from topics.yaml that mails are sent under. Who opts out of it leaves the journey.",
    )
    priority: int = Field(
        50,
        ge=0,
        le=100,
        description="From 0 to 100: of the mails that wait for room under the caps, the highest goes first.",
    )
    expires: LongerDuration = Field(
        timedelta(hours=72),
        description="A mail that could not be sent this long after it was due is skipped; 72h unless given.",
    )


class WaitUntil(Section):
    """A wait that ends at a time of day, on a day of the week, or on a date."""

    noun: ClassVar[str] = "wait field"

    for_: LongerDuration | None = Field(None, alias="for", description="Wait this long first; 1d is 24 hours.")
    until: UntilTime | None = Field(
        None,
        description="Then until this time of day, in the customer's timezone, else the brand's; or until the day that "
        "a trait holds: traits.renewal. One that is past goes on at once.",
        examples=['"10:00"'],
    )
    at: ClockTime | None = Field(None, description="The time of day on the date that until names.")
    on: Annotated[list[Weekday], Field(min_length=1)] | None = Field(
        None, description="On one of these days of the week: [tue, thu]."
    )

    @model_validator(mode="after")
    def _one_way(self) -> WaitUntil:
        dated = isinstance(self.until, str)
        if self.until is None and self.on is None:
            raise refusal("nothing here says until when.", 'Add until: "10:00" or on: [tue], or write wait: 2d.')
        if self.at is not None and not dated:
            raise refusal("at belongs to a date, and until names none.", 'Write until: "10:00" alone.')
        if dated and self.on is not None:
            raise refusal("a date falls on the day on which it falls.", "Remove on.")
        return self


class WaitBetween(Section):
    """A wait whose length is drawn once for each enrollment."""

    noun: ClassVar[str] = "wait field"

    between: Annotated[list[Duration], AfterValidator(_drawn_from)] = Field(
        description="The shortest and the longest: [20d, 300d]."
    )


class Step(Section):
    """One thing that a journey does."""

    noun: ClassVar[str] = "step field"


_ID_TEXT = "The name of this step in the journey; needed where two steps would share one."


def _kind_of_wait(value: object) -> str:
    if isinstance(value, WaitBetween) or (isinstance(value, dict) and "between" in value):
        return "@between"
    return "@until" if isinstance(value, dict | WaitUntil) else "@duration"


class WaitStep(Step):
    """Waits."""

    id: Name | None = Field(None, description=_ID_TEXT)
    wait: Annotated[
        Annotated[LongerDuration, Tag("@duration")]
        | Annotated[WaitUntil, Tag("@until")]
        | Annotated[WaitBetween, Tag("@between")],
        Discriminator(_kind_of_wait),
    ] = Field(description='A duration such as 1h or 2d, or {for: 2d, until: "10:00", on: [tue]}.')


class WaitForStep(Step):
    """Waits for an event or for a click, no longer than the timeout."""

    id: Name | None = Field(None, description=_ID_TEXT)
    wait_for: Annotated[
        Annotated[EventMatch, Tag("@event")] | Annotated[Clicked, Tag("@clicked")],
        Discriminator(
            _kind_by_key({"event": "@event", "clicked": "@clicked"}),
            custom_error_type="wait_for",
            custom_error_message="wait_for",
        ),
    ] = Field(description="{clicked: step-id}, or {event: Name, where: expression}.")
    timeout: LongerDuration = Field(description="How long to wait at most.", examples=["2d"])
    then: Steps = Field([], description="What happens when it came; then the journey goes on below.")
    on_timeout: Steps = Field([], description="What happens when it did not come in time; absent: goes on below.")


class EmailStep(Step):
    """Sends a mail, and goes on when it is known what became of it."""

    later: ClassVar[frozenset[str]] = frozenset({"channels", "fallback"})

    id: Name | None = Field(None, description=_ID_TEXT)
    email: Name = Field(description="The message: the name of its folder under messages/.")
    topic: Name | None = Field(None, description="The topic that it is sent under; else that of defaults.")
    priority: int | None = Field(None, ge=0, le=100, description="From 0 to 100; else that of defaults.")
    expires: LongerDuration | None = Field(
        None, description="Skipped if it could not be sent this long after it was due; else that of defaults."
    )
    with_: dict[Variable, ExpressionText] = Field(
        {},
        alias="with",
        description="Names that the templates of this message can use, each an expression. Text stands in double "
        "quotes inside single ones: '\"Hello\"'.",
    )


class IfStep(Step):
    """Asks once, now, and takes one of two ways."""

    id: Name | None = Field(None, description=_ID_TEXT)
    if_: ExpressionText = Field(alias="if", description="The condition, an expression.")
    then: Steps = Field([], description="What happens where it is true; then the journey goes on below.")
    else_: Steps = Field([], alias="else", description="What happens otherwise; then the journey goes on below.")


class Way(Section):
    """One of the ways that a choice may take."""

    noun: ClassVar[str] = "field"

    if_: ExpressionText = Field(alias="if", description="The condition, an expression.")
    then: Steps = Field([], description="What happens where it is the first that is true.")


class OtherWay(Section):
    """What happens where no condition holds."""

    noun: ClassVar[str] = "field"

    else_: Steps = Field(alias="else", description="What happens where no condition above is true.")


class ChooseStep(Step):
    """Asks once, now, one condition after the other, and takes the first way that is open."""

    id: Name | None = Field(None, description=_ID_TEXT)
    choose: Annotated[
        list[
            Annotated[
                Annotated[Way, Tag("@if")] | Annotated[OtherWay, Tag("@else")],
                Discriminator(
                    _kind_by_key({"if": "@if", "else": "@else"}), custom_error_type="way", custom_error_message="way"
                ),
                _Tolerant,
            ]
        ],
        Field(min_length=1),
    ] = Field(description="A list of {if: …, then: […]}; the last may be {else: […]}.")

    @model_validator(mode="after")
    def _else_is_last(self) -> ChooseStep:
        if any(isinstance(way, OtherWay) for way in self.choose[:-1]):
            raise refusal("else stands before other ways, which are then never taken.", "Move it to the end.")
        return self


class SplitArm(Section):
    """One way of a split."""

    noun: ClassVar[str] = "field"

    share: Share = Field(description="How many take it.", examples=["50%"])
    then: Steps = Field([], description="What happens to them; then the journey goes on below.")


class SplitStep(Step):
    """Draws lots. The same enrollment, or customer, always draws the same."""

    id: Name = Field(description="The name of the split; a new name draws anew.", examples=["tone"])
    split: Annotated[dict[Name, Annotated[SplitArm, _Tolerant]], Field(min_length=1)] = Field(
        description="The ways by name, with shares that make 100%: warm: {share: 50%, then: […]}."
    )
    by: Literal["enrollment", "customer"] = Field(
        "enrollment", description="enrollment: drawn each time. customer: drawn once, for ever."
    )

    @model_validator(mode="after")
    def _shares_make_all(self) -> SplitStep:
        if any(isinstance(arm, Hole) for arm in self.split.values()):
            return self
        total = sum((arm.share for arm in self.split.values()), Decimal(0)) * 100
        if total != 100:
            raise refusal(f"these shares make {total.normalize():f}%.", "Let them make 100%.")
        return self


class SetStep(Step):
    """Keeps values: for later steps, or in the customer's profile."""

    id: Name | None = Field(None, description=_ID_TEXT)
    set: Annotated[dict[Settable, ExpressionText], Field(min_length=1)] = Field(
        description="vars.NAME for later steps of this enrollment, traits.NAME for the profile; each an expression."
    )


class EmitStep(Step):
    """Reports an event of the customer, which may count in segments and begin other journeys."""

    id: Name | None = Field(None, description=_ID_TEXT)
    emit: EventName = Field(description="The event's name, in the past tense.", examples=["Cart Given Up"])
    properties: dict[Variable, ExpressionText] = Field({}, description="Its properties, each an expression.")


class ExitStep(Step):
    """Leaves the journey."""

    id: Name | None = Field(None, description=_ID_TEXT)
    exit: Line = Field(description="Why, in a few words; reports show it.", examples=["came back"])


STEPS = {name: f"@{name}" for name in ("wait", "wait_for", "email", "if", "choose", "split", "set", "emit", "exit")}
LATER_STEPS = ("sms", "push", "webhook", "coupon", "task", "pause")
AnyStep = TypeAliasType(
    "AnyStep",
    Annotated[
        Annotated[WaitStep, Tag("@wait")]
        | Annotated[WaitForStep, Tag("@wait_for")]
        | Annotated[EmailStep, Tag("@email")]
        | Annotated[IfStep, Tag("@if")]
        | Annotated[ChooseStep, Tag("@choose")]
        | Annotated[SplitStep, Tag("@split")]
        | Annotated[SetStep, Tag("@set")]
        | Annotated[EmitStep, Tag("@emit")]
        | Annotated[ExitStep, Tag("@exit")],
        Discriminator(_kind_by_key(STEPS), custom_error_type="step", custom_error_message="step"),
    ],
)
Steps = Annotated[list[Annotated[AnyStep, _Tolerant]], BeforeValidator(_nothing_is_empty)]


class JourneyFile(Section):
    """One journey: whom it takes in, what it does, and when it ends."""

    noun: ClassVar[str] = "journey field"

    journey: Name = Field(description="Its name, which is also the name of the file.")
    title: Line | None = Field(None, description="What people call it, in reports.")
    status: Literal["live", "draft", "paused"] = Field(
        "live",
        description="live; draft: runs and counts, and sends nothing; paused: takes nobody in, and what is due waits.",
    )
    trigger: Annotated[Trigger, _Tolerant] = Field(
        description="What begins it: an event, a stage, a segment or a date.", examples=["{event: Order Completed}"]
    )
    mode: Literal["single", "restart"] = Field(
        "single",
        description="An entry while inside: single ignores it; restart begins the steps anew as long as no mail went "
        "out.",
    )
    again: Annotated[
        Annotated[Literal["always", "never"], Tag("@word")] | Annotated[Duration, Tag("@duration")],
        Discriminator(lambda value: "@word" if value in ("always", "never") else "@duration"),
    ] = Field(
        "always", description="An entry after leaving: always, never, or a duration since the last entry, such as 14d."
    )
    max_age: LongerDuration = Field(
        timedelta(days=1), description="An event that is older than this when it comes begins nothing; 1d unless given."
    )
    goal: Annotated[Goal, _Tolerant] | None = Field(None, description="What the journey is for.")
    exit_on: Annotated[list[Annotated[EventMatch, _Tolerant]], BeforeValidator(_nothing_is_empty)] = Field(
        [], description="Events that end the enrollment, in any step."
    )
    defaults: Annotated[Defaults, _Tolerant] = Field(
        Defaults.model_validate({}), description="For the mails below; each step may say otherwise."
    )
    holdout: Share | None = Field(
        None,
        description="How many customers get nothing of this journey, so that its goal can be compared: 10%. The same "
        "customers always. Needs a goal with within.",
        examples=["10%"],
    )
    steps: Annotated[Steps, Field(min_length=1)] = Field(
        description="What happens, from the top.", examples=["- email: welcome"]
    )


# The other files


class StagesFile(Section):
    """The stages of the relationship. The first whose condition holds is the customer's stage."""

    noun: ClassVar[str] = "field"

    stages: Annotated[dict[Name, ExpressionText], Field(min_length=1)] = Field(
        description="Name and condition of each stage, the first match from the top; the last condition is true."
    )


class SegmentEntry(Section):
    """A named group that customers enter and leave as its condition turns true and false."""

    noun: ClassVar[str] = "segment field"

    title: Line | None = Field(None, description="What people call it, in reports.")
    when: ExpressionText = Field(
        description="The condition. It is watched, and acts when it turns true or false, also when only time passes.",
        examples=['count("Order Completed") >= 3'],
    )


class SegmentsFile(Section):
    """Named groups of customers."""

    noun: ClassVar[str] = "field"

    segments: dict[Name, Annotated[SegmentEntry, _Tolerant]] = Field(description="The segments, by name.")


class TopicEntry(Section):
    """What a customer can opt out of."""

    noun: ClassVar[str] = "topic field"

    title: Line = Field(description="What customers read on the unsubscribe page.", examples=["Cart reminders"])
    description: Text = Field("", description="One sentence about what one gets; customers read it.")
    kind: Literal["promotional", "service", "transactional"] = Field(
        description="promotional: advertising. service: helps with what was bought. transactional: must reach the "
        "customer (a receipt), so it ignores caps, quiet hours and opt-outs.",
        examples=["promotional"],
    )
    default: Literal["opt_in", "opt_out"] | None = Field(
        None,
        description="What silence means. opt_in: no mail until the customer said yes. opt_out: mail until the customer "
        "said no. Unless given: opt_in for promotional topics, opt_out for the others.",
    )


class TopicsFile(Section):
    """Subscription topics."""

    noun: ClassVar[str] = "field"

    topics: dict[Name, Annotated[TopicEntry, _Tolerant]] = Field(description="The topics, by name.")


class CapEntry(Section):
    """So many mails to one customer in so long a time."""

    noun: ClassVar[str] = "cap field"

    limit: int = Field(ge=1, le=1000, description="How many mails at most.", examples=["1"])
    within: LongerDuration = Field(description="In how long, counted back from now.", examples=["1d"])


class Caps(Section):
    """A limit for each channel."""

    noun: ClassVar[str] = "channel"
    later: ClassVar[frozenset[str]] = frozenset({"sms", "push"})

    email: list[CapEntry] = Field([], description="For mail: [{limit: 1, within: 1d}, {limit: 3, within: 7d}].")


class BrandFile(Section):
    """Who sends, and the house rules."""

    noun: ClassVar[str] = "field"

    name: Line = Field(description="The brand's name, as customers know it.", examples=["Lamp & Light"])
    sender: Mailbox = Field(
        description="Who mails come from: an address, with a name before it where wanted.",
        examples=["Lamp & Light <hello@lamps.example>"],
    )
    reply_to: Mailbox | None = Field(None, description="Where answers go, if not to the sender.")
    postal_address: Text = Field(
        "", description="Your postal address, for the foot of every mail; the law asks for it in many countries."
    )
    timezone: Timezone = Field("UTC", description="For customers whose own is not known.", examples=["Europe/Oslo"])
    locale: Locale = Field(
        "en", description="The language of the messages, and of customers whose own is not known.", examples=["en"]
    )
    currency: Currency = Field("EUR", description="What sums of money are counted in.")
    rates: dict[Currency, Rate] = Field(
        {}, description="What one unit of another currency is worth in yours. Sums without a rate are not added."
    )
    urls: dict[Variable, Url] = Field(
        {}, description="Web addresses for templates: shop: https://… is urls.shop there."
    )
    quiet_hours: QuietHoursText | None = Field(
        None, description="No mail between these, in the customer's local time: 21:00-08:00.", examples=["21:00-08:00"]
    )
    caps: Annotated[Caps, _Tolerant] = Field(
        Caps.model_validate({}), description="How often a customer hears from you at most, across all journeys."
    )
    carts: Literal["derived", "sent"] = Field(
        "derived",
        description="derived: Cart Updated and Cart Emptied are made from Product Added, Product Removed and Order "
        "Completed. sent: the shop sends them itself.",
    )


class MessageFile(Section):
    """What belongs to a message beside its templates."""

    noun: ClassVar[str] = "field"

    title: Line | None = Field(None, description="What people call it, in reports.")
    preheader: Line | None = Field(
        None, description="The line that mail programs show beside the subject. May hold {{ … }}."
    )
    variables: list[Variable] = Field(
        [], description="Names that every journey which sends this message must give under with."
    )


class PropertySchema(Section):
    """A property of an event, as JSON Schema."""

    model_config = ConfigDict(extra="allow")
    noun: ClassVar[str] = "property field"

    type: str | list[str] | None = Field(None, description="string, number, integer, boolean, array, object or null.")
    title: str | None = Field(None, description="What people call it.")
    description: str | None = Field(None, description="What it means.")
    format: str | None = Field(None, description="date-time, date, uri, email …")
    enum: list[Any] | None = Field(None, description="All the values that it can have.")
    items: Annotated[PropertySchema, _Tolerant] | None = Field(None, description="What each item of the list is.")
    properties: dict[str, Annotated[PropertySchema, _Tolerant]] | None = Field(None, description="The fields inside.")
    required: list[str] | None = Field(None, description="The fields that are always there.")

    @model_validator(mode="after")
    def _known_types(self) -> PropertySchema:
        known = ("string", "number", "integer", "boolean", "array", "object", "null")
        for name in [self.type] if isinstance(self.type, str) else self.type or []:
            if name not in known:
                raise refusal(f"{quoted(name)} is no type.", did_you_mean(name, known, f"Use {listed(known)}."))
        return self


class EventFile(Section):
    """One event of the catalogue: what the shop sends."""

    noun: ClassVar[str] = "field"

    event: EventName = Field(description="Its name, in the past tense.", examples=["Order Completed"])
    title: Line | None = Field(None, description="What people call it, in reports.")
    description: Text = Field("", description="When the shop sends it.")
    properties: dict[str, Annotated[PropertySchema, _Tolerant]] = Field(
        {}, description="Its properties, each as JSON Schema."
    )
    required: list[str] = Field([], description="The properties that are always there.")


for _model in (WaitForStep, IfStep, Way, OtherWay, ChooseStep, SplitArm, SplitStep, JourneyFile, PropertySchema):
    _model.model_rebuild()


# From nodes to the model, and from its complaints to problems

T = TypeVar("T", bound=Section)
_MAY_BE_EMPTY = frozenset({"then", "else", "on_timeout", "exit_on"})


def read(document: Document, shape: type[T], report: Callable[[Problem], None]) -> T | None:
    """The document as its typed shape; None where too little of it could be read. Every complaint is reported.

    Where only parts were wrong the shape comes without them, so that what depends on the rest can still be checked.
    """
    if not isinstance(document.root, MappingNode):
        message = f"this file holds {_kind(document.root)}, and should hold fields."
        report(document.problem(document.at(()), message, f"Begin with {next(iter(shape.model_fields))}:."))
        return None
    reading = _Reading({})
    empty: list[Path] = []
    data = _plain(document.root, (), reading.paths, empty if shape is not EventFile else None)
    for path in empty:
        document.broken.add(path)
        message = f"{quoted(str(path[-1]))} is empty."
        report(document.problem(document.at_key(path), message, "Write a value, or remove the line."))
    model = _attempt(data, lambda part: shape.model_validate(part, context=reading), reading)
    problems = {
        (place, problem)
        for around, error in reading.complaints
        if (found := _problem(document, reading, around, error)) is not None
        for place, problem in [found]
    }
    for path, problem in sorted(problems, key=lambda pair: pair[1]):
        document.broken.add(path)
        report(problem)
    return model if isinstance(model, shape) else None


def _plain(node: Node, path: Path, paths: dict[int, Path], empty: list[Path] | None) -> object:
    """A node as dictionaries and lists, whose paths are noted; values that were left empty go to `empty`."""
    if isinstance(node, Scalar):
        return node.value
    data: dict[str, object] | list[object]
    if isinstance(node, ListNode):
        data = [_plain(item, (*path, position), paths, empty) for position, item in enumerate(node.items)]
    else:
        data = {}
        for key, (_, value) in node.entries.items():
            if empty is not None and isinstance(value, Scalar) and value.value is None and key not in _MAY_BE_EMPTY:
                empty.append((*path, key))
            else:
                data[key] = _plain(value, (*path, key), paths, empty)
    paths[id(data)] = path
    return data


def _problem(document: Document, reading: _Reading, around: Path, error: ErrorDetails) -> tuple[Path, Problem] | None:
    """A complaint of pydantic in the words of the language, with the path that it is about."""
    path, on_key = around, False
    for part in error["loc"]:
        if part == "[key]":
            on_key = True
        elif isinstance(part, int) or not part.startswith("@"):
            path = (*path, part)
    if document.is_broken(path):
        return None
    kind, given = error["type"], error.get("ctx", {})
    node = document.node(path)
    place = document.at_key(path) if on_key or kind == "extra_forbidden" else document.at(path)

    def problem(message: str, remedy: str) -> tuple[Path, Problem]:
        return path, document.problem(place, message, remedy)

    if kind == "refused":
        return problem(given["message"], given["remedy"])
    if kind == "missing":
        shape, beside = reading.classes.get(path[:-1], Section), document.node(path[:-1])
        known = [info.alias or field_name for field_name, info in shape.model_fields.items()]
        unknown = [key for key in (beside.entries if isinstance(beside, MappingNode) else ()) if key not in known]
        # A misspelt field is reported as such; that it is missing under its right name is the same slip.
        return None if nearest(str(path[-1]), unknown) else _missing(document, shape, path)
    if kind == "extra_forbidden":
        shape, name = reading.classes.get(path[:-1], Section), str(path[-1])
        known = [info.alias or field_name for field_name, info in shape.model_fields.items()]
        if name in shape.later:
            return problem(f"{quoted(name)} comes later.", "Leave it out for now.")
        around_it = document.node(path[:-1])
        taken = around_it.entries if isinstance(around_it, MappingNode) else {}
        free = [field_name for field_name in known if field_name not in taken]
        remedy = did_you_mean(name, free, f"Known here: {listed(known, 'and')}.")
        return problem(f"unknown {shape.noun} {quoted(name)}.", remedy)
    if kind in _CHOICES:
        if any(document.is_broken((*path, key)) for key in _CHOICES[kind][1]):
            return None
        return path, _chosen_wrongly(document, path, kind, node)
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", str(given.get("expected", "")))
        shown = _shown(node)
        return problem(f"{shown} is not known here.", did_you_mean(shown.strip('"'), known, f"Use {listed(known)}."))
    if kind in ("string_too_short", "too_short"):
        name = str(path[-1]) if path else "this"
        return problem(f"{quoted(name)} is empty.", "Write something there, or remove it.")
    if kind in ("string_too_long", "too_long"):
        return problem(f"this is longer than {given.get('max_length')} characters.", "Write it shorter.")
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = f"{given['ge']} or more" if "ge" in given else f"{given['le']} or less"
        return problem(f"{_shown(node)} is out of bounds.", f"Use {bound}.")
    expected = _EXPECTED.get(kind)
    if expected is None:
        return problem(f"{error['msg']}.", "Look it up in the reference.")
    what, remedy = expected
    if kind == "string_type" and isinstance(node, Scalar):
        remedy = f"Put it in quotes: {quoted(node.text)}."
    name = f"{quoted(str(path[-1]))} takes" if path and isinstance(path[-1], str) else "here belongs"
    return problem(f"{name} {what}, and here stands {_kind(node)}.", remedy)


_EXPECTED = {
    "string_type": ("text", "Write the text on the same line."),
    "int_type": ("a whole number", "Write digits only, without quotes."),
    "list_type": ("a list", 'Begin each item with "- ".'),
    "dict_type": ("fields", "Write each field on a line of its own below, indented."),
    "model_type": ("fields", "Write each field on a line of its own below, indented."),
    "model_attributes_type": ("fields", "Write each field on a line of its own below, indented."),
}

_CHOICES: Mapping[str, tuple[str, Sequence[str], Sequence[str], str]] = {
    "step": ("step", tuple(STEPS), LATER_STEPS, "- wait: 1h"),
    "trigger": ("trigger", tuple(_TRIGGERS), (), "event: Order Completed"),
    "wait_for": ("wait_for", ("event", "clicked"), ("opened", "reply"), "wait_for: {event: Order Completed}"),
    "way": ("way", ("if", "else"), (), '- {if: traits.country == "NO", then: […]}'),
}
"""What decides the kind of a mapping: its name, the keys of which it has one, those that come later, an example."""


def _chosen_wrongly(document: Document, path: Path, kind: str, node: Node | None) -> Problem:
    """A step, trigger or wait_for that has none, or more than one, of the keys that say what it is."""
    noun, known, later, example = _CHOICES[kind]
    if not isinstance(node, MappingNode):
        message = f"a {noun} consists of fields, and here stands {_kind(node)}."
        return document.problem(document.at(path), message, f"Write it as {example}.")
    keys = list(node.entries)
    found = [key for key in keys if key in known]
    if len(found) > 1:
        second = document.at_key((*path, found[1]))
        one = "A step does one thing" if kind == "step" else f"A {noun} has one of them"
        remedy = 'Begin each with "- ".' if kind == "step" else "Keep one of them."
        return document.problem(second, f"{listed(found, 'and')} stand in one {noun}. {one}.", remedy)
    for key in keys:
        if key in later:
            what = f"{key} steps come" if kind == "step" else f"{quoted(key)} comes"
            it = "this one" if kind == "step" else "it"
            return document.problem(document.at_key((*path, key)), f"{what} later.", f"Leave {it} out for now.")
    for key in keys:
        meant = nearest(key, (*known, *later))
        if meant in known:
            message = f"unknown {noun} {quoted(key)}." if kind == "step" else f"unknown {noun} field {quoted(key)}."
            return document.problem(document.at_key((*path, key)), message, f'Did you mean "{meant}"?')
    message = f"nothing here says what this {noun} is."
    return document.problem(document.at(path), message, f"It needs one of {listed(known)}.")


def _missing(document: Document, shape: type[Section], path: Path) -> tuple[Path, Problem]:
    name = str(path[-1])
    if shape is WaitForStep and name == "timeout":
        return path, _waits_for_ever(document, path[:-1])
    info = next((info for key, info in shape.model_fields.items() if (info.alias or key) == name), None)
    example = info.examples[0] if info is not None and info.examples else ""
    what = "file" if len(path) == 1 else shape.noun.removesuffix(" field")
    what = "mapping" if what == "field" else what
    message = f"this {what} has no {quoted(name)}."
    remedy = f"Add {name}: {example}" if example else f"Add {name}:"
    return path, document.problem(document.at(path[:-1]), message, f"{remedy}." if example else f"Add {quoted(name)}.")


def _waits_for_ever(document: Document, step: Path) -> Problem:
    """A wait_for without timeout; where its event names nothing of the enrollment, that is said as well."""
    message, remedy = "without timeout this waits for ever.", "Add timeout: 10d, or as long as you want to wait."
    event = document.node((*step, "wait_for", "event"))
    key = document.node(("trigger", "key"))
    if isinstance(event, Scalar) and document.node((*step, "wait_for", "where")) is None and isinstance(key, Scalar):
        message = f"without timeout this waits for ever, and any {event.text} ends it."
        remedy = f"Add timeout: 10d and where: {key.text} == key."
    return document.problem(document.at((*step, "wait_for")), message, remedy)


def _shown(node: Node | None) -> str:
    return quoted(node.text) if isinstance(node, Scalar) else "this"


def _kind(node: Node | None) -> str:
    """What a node is, in a marketer's words."""
    if isinstance(node, MappingNode):
        return "a group of fields"
    if isinstance(node, ListNode):
        return "a list"
    value = node.value if node is not None else None
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    return "text" if isinstance(value, str) else "a number"
