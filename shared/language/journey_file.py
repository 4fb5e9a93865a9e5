"""The shape of a journey's file: its trigger, its steps, its goal and exits, and what each field means.

Editors complete and check from these classes (`shared.language.schema`); the texts of the fields are what they show.
Shapes only: whether a topic or a segment exists, and whether an expression makes sense, is `checks`' work.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from shared.language.fields import (
    CalendarDays,
    ClockTime,
    Duration,
    EventName,
    EventPath,
    ExpressionText,
    Line,
    LongerDuration,
    Name,
    Share,
    TraitPath,
    nothing_is_empty,
    refusal,
)
from shared.language.sections import Section, Tolerant, kind_by_key
from shared.language.steps import EventMatch, Steps

Condition = Annotated[
    ExpressionText | None,
    Field(alias="if", description="Asked once, when the trigger has matched: enrolls only if true."),
]
OtherJourneys = Annotated[list[Name], Field(description="Other journeys: who is in one of them does not enter.")]


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
    if_: Condition = None
    unless_in: OtherJourneys = Field([])

    @model_validator(mode="after")
    def _items_have_keys(self) -> EventTrigger:
        if self.for_each is not None and self.key is None:
            raise refusal("for_each needs a key, which tells one item from another.", "Add key: item.sku, or the like.")
        return self


class StageTrigger(Section):
    """Begins the journey when a customer enters a stage."""

    noun: ClassVar[str] = "trigger field"

    stage: Name = Field(description="The stage from stages.yaml that the customer enters.")
    if_: Condition = None
    unless_in: OtherJourneys = Field([])


class SegmentTrigger(Section):
    """Begins the journey when a customer enters or leaves a segment."""

    noun: ClassVar[str] = "trigger field"

    segment: Name = Field(description="The segment from segments.yaml.")
    change: Literal["entered", "left"] = Field(
        "entered", description="Whether entering the segment begins the journey, or leaving it."
    )
    if_: Condition = None
    unless_in: OtherJourneys = Field([])


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
    if_: Condition = None
    unless_in: OtherJourneys = Field([])


TRIGGERS = {"event": "@event", "stage": "@stage", "segment": "@segment", "date": "@date"}
Trigger = Annotated[
    Annotated[EventTrigger, Tag("@event")]
    | Annotated[StageTrigger, Tag("@stage")]
    | Annotated[SegmentTrigger, Tag("@segment")]
    | Annotated[DateTrigger, Tag("@date")],
    Discriminator(kind_by_key(TRIGGERS), custom_error_type="trigger", custom_error_message="trigger"),
]


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


class JourneyFile(Section):
    """One journey: whom it takes in, what it does, and when it ends."""

    noun: ClassVar[str] = "journey field"

    journey: Name = Field(description="Its name, which is also the name of the file.")
    title: Line | None = Field(None, description="What people call it, in reports.")
    status: Literal["live", "draft", "paused"] = Field(
        "live",
        description="live; draft: runs and counts, and sends nothing; paused: takes nobody in, and what is due waits.",
    )
    trigger: Annotated[Trigger, Tolerant] = Field(
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
    goal: Annotated[Goal, Tolerant] | None = Field(None, description="What the journey is for.")
    exit_on: Annotated[list[Annotated[EventMatch, Tolerant]], BeforeValidator(nothing_is_empty)] = Field(
        [], description="Events that end the enrollment, in any step."
    )
    defaults: Annotated[Defaults, Tolerant] = Field(
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
