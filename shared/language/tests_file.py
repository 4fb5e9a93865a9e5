"""The shape of a journey's tests: what a customer does, and what must come of it.

Editors complete and check from these classes (`shared.language.schema`); the texts of the fields are what they show.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema

from shared.language.durations import DurationError, parse_duration
from shared.language.fields import EventName, Line, LongerDuration, Name, mailbox, nothing_is_empty, refusal
from shared.language.problems import quoted
from shared.language.sections import Section, Tolerant, kind_by_key


def _moment(value: object) -> timedelta | datetime:
    if not isinstance(value, str):
        raise refusal("this is no time.", "Write a duration from the start, such as 1h, or 2026-03-02T20:30:00+01:00.")
    if not re.match(r"[0-9]{4}-", value):
        try:
            return parse_duration(value)
        except DurationError as error:
            message, _, remedy = str(error).partition(". ")
            raise refusal(f"{message}.", f"{remedy} Or write a time such as 2026-03-02T20:30:00+01:00.") from None
    return _instant(value)


def _instant(value: object) -> datetime:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        shown = quoted(value) if isinstance(value, str) else "this"
        lacks = "does not say in which timezone it is" if found is not None else "is no moment"
        raise refusal(f"{shown} {lacks}.", "Write it as 2026-03-02T20:30:00+01:00.")
    return found


_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})"
Moment = Annotated[
    timedelta | datetime,
    BeforeValidator(_moment),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^([0-9]{{1,9}}[mhdw]|{_TIME})$",
            "examples": ["0m", "1h", "2026-03-02T20:30:00Z"],
        }
    ),
]
Instant = Annotated[
    datetime,
    BeforeValidator(_instant),
    WithJsonSchema({"type": "string", "pattern": f"^{_TIME}$", "examples": ["2026-03-02T20:30:00+01:00"]}),
]
YesOrNo = Annotated[bool | None, WithJsonSchema({"type": ["boolean", "null"]})]
NO_ADDRESS = "none"
Address = Annotated[str, AfterValidator(lambda value: value if value == NO_ADDRESS else mailbox(value))]
Outcome = Literal["sent", "bounced", "failed", "unknown"]


Percentile = Annotated[int, Field(ge=0, le=99)]


class TestedCustomer(Section):
    """Who it happens to."""

    noun: ClassVar[str] = "customer field"

    traits: dict[str, Any] = Field({}, description="What is known of the customer at the start, such as their country.")
    consent: dict[Name, YesOrNo] = Field(
        {},
        description="Yes (true) or no (false) to a topic; null where they were never asked. Not named: yes.",
    )
    address: Address = Field(
        "customer@example.com", description="Where mail goes to; none for a customer without an address."
    )
    spend_percentile: Percentile | None = Field(
        None, description="How many per cent of the buyers have spent less, at the start: 0 to 99. If not given, null."
    )


class Happening(Section):
    """Something that happens at a time."""

    noun: ClassVar[str] = "field"

    at: Moment = Field(description="When: this long after the start, or a time.", examples=["1h"])


class GivenEvent(Happening):
    """The customer does something."""

    event: EventName = Field(description="What the customer does: the event's name.", examples=["Order Completed"])
    properties: dict[str, Any] = Field({}, description="The event's properties.")
    occurred_at: Moment | None = Field(None, description="When it happened, where your shop told it only later.")
    historical: bool = Field(False, description="true for imported history, which begins no journey.")


class GivenTraits(Happening):
    """Something else is known of the customer now."""

    traits: dict[str, Any] = Field(description="The traits that change; null takes one away.")


class GivenClick(Happening):
    """The customer, or a scanner, clicks a link in a mail."""

    clicked: Name = Field(description="The step whose mail it was.", examples=["cart-reminder"])
    machine: bool = Field(False, description="true where a scanner followed it, and not a person.")


class GivenOpen(Happening):
    """The customer, or a machine, opens a mail."""

    opened: Name = Field(description="The step whose mail it was.", examples=["cart-reminder"])
    machine: bool = Field(False, description="true where a mail provider opened it, and not a person.")


class GivenReply(Happening):
    """The customer answers a survey."""

    reply: Name = Field(description="The survey's name.", examples=["nps"])
    properties: dict[str, Any] = Field({}, description="What the customer answers.")


class GivenPercentile(Happening):
    """A night has passed, and the customer is at another percentile."""

    spend_percentile: Percentile = Field(description="How many per cent of the buyers have spent less now: 0 to 99.")


GIVENS = {
    "event": "@event",
    "traits": "@traits",
    "clicked": "@clicked",
    "opened": "@opened",
    "reply": "@reply",
    "spend_percentile": "@percentile",
}
Given = Annotated[
    Annotated[GivenEvent, Tag("@event")]
    | Annotated[GivenTraits, Tag("@traits")]
    | Annotated[GivenClick, Tag("@clicked")]
    | Annotated[GivenOpen, Tag("@opened")]
    | Annotated[GivenReply, Tag("@reply")]
    | Annotated[GivenPercentile, Tag("@percentile")],
    Discriminator(kind_by_key(GIVENS), custom_error_type="given", custom_error_message="given"),
]


class ExpectedMessage(Section):
    """A message, and as much of it as is to be compared."""

    noun: ClassVar[str] = "field"

    message: Name = Field(description="The message that goes out.")
    at: Moment | None = Field(None, description="When: this long after the start, or a time.")
    with_: dict[str, Any] | None = Field(None, alias="with", description="What the step gave the message.")


class ExpectedSkip(Section):
    """A message that did not go out, and why."""

    noun: ClassVar[str] = "field"

    message: Name = Field(description="The message that does not go out.")
    reason: str | None = Field(None, description="Why: unsubscribed, not_subscribed, no_address, cap, quiet_hours, …")
    at: Moment | None = Field(None, description="When that was decided: this long after the start, or a time.")


def _name_or_fields(value: object) -> str:
    return "@fields" if isinstance(value, dict | Section) else "@name"


_Message = Annotated[
    Annotated[Name, Tag("@name")] | Annotated[ExpectedMessage, Tag("@fields")], Discriminator(_name_or_fields)
]
_Skip = Annotated[
    Annotated[Name, Tag("@name")] | Annotated[ExpectedSkip, Tag("@fields")], Discriminator(_name_or_fields)
]


class Expected(Section):
    """What must come of it, in this journey. What is not named here is not compared."""

    noun: ClassVar[str] = "field"

    sent: Annotated[list[Annotated[_Message, Tolerant]] | None, BeforeValidator(nothing_is_empty)] = Field(
        None, description="The messages that this journey sends, in order; [] for none. A name, or message and at."
    )
    skipped: Annotated[list[Annotated[_Skip, Tolerant]] | None, BeforeValidator(nothing_is_empty)] = Field(
        None, description="The messages that this journey asked for and that did not go out, in order."
    )
    entered: int | None = Field(None, ge=0, description="How many times the customer enters this journey.")
    exit: str | None = Field(
        None, description="How it ends, the last time: completed, goal, exit_on, unsubscribed, or an exit's own reason."
    )
    exits: list[str] | None = Field(None, description="How it ends, each time.")
    inside: bool | None = Field(None, description="Whether the customer is still inside at the end.")
    goal: bool | None = Field(None, description="Whether the goal was reached, be it after the last step.")
    attributed: int | Decimal | None = Field(None, description="The value of the orders credited to this journey.")
    stage: Name | None = Field(None, description="The customer's stage at the end.")
    segments: list[Name] | None = Field(None, description="The customer's segments at the end, all of them.")
    traits: dict[str, Any] | None = Field(None, description="What these traits are at the end.")
    tasks: list[str] | None = Field(None, description="The tasks that people are given, in order, by title.")
    called: list[Name] | None = Field(None, description="The webhook steps that call, in order.")
    emitted: list[EventName] | None = Field(None, description="The events that journeys report, in order, by name.")


class JourneyTest(Section):
    """One test: a customer's story, and what must come of it."""

    noun: ClassVar[str] = "field"

    name: Line = Field(description="What it shows, as a sentence.", examples=["buying within the hour sends nothing"])
    customer: TestedCustomer | None = Field(
        None, description="Who it happens to: with an address, and consent to every topic, unless told here."
    )
    start: Instant | None = Field(
        None, description="When it begins. If not given, on Monday 2 March 2026 at noon, UTC."
    )
    given: Annotated[list[Annotated[Given, Tolerant]], BeforeValidator(nothing_is_empty)] = Field(
        [], description="What happens, in order."
    )
    until: LongerDuration | None = Field(
        None, description="How long the story is told. If not given, until nothing is left to happen, 400d at most."
    )
    arms: dict[Name, Name] = Field({}, description="For each split by its id, the way that this customer takes.")
    outcomes: dict[Name, Outcome] = Field(
        {}, description="What becomes of a message: sent, bounced, failed or unknown. If not given, sent."
    )
    expect: Expected = Field(description="What must come of it, in this journey.")


class TestsFile(Section):
    """The tests of a journey: journeys/<name>.test.yaml."""

    noun: ClassVar[str] = "field"

    tests: Annotated[list[Annotated[JourneyTest, Tolerant]], Field(min_length=1)] = Field(
        description="Each a story and what must come of it."
    )
