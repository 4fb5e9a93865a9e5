"""The shapes of a journey's steps, and of what a step may wait for.

Editors complete and check from these classes (`shared.language.schema`); the texts of the fields are what they show.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator
from typing_extensions import TypeAliasType

from shared.language.fields import (
    ClockTime,
    Duration,
    EventName,
    ExpressionText,
    Line,
    LongerDuration,
    Name,
    Settable,
    Share,
    UntilTime,
    Url,
    Variable,
    Weekday,
    nothing_is_empty,
    refusal,
)
from shared.language.problems import quoted
from shared.language.sections import Hole, Section, Tolerant, kind_by_key


class EventMatch(Section):
    """An event by name, and what must hold of it."""

    noun: ClassVar[str] = "field"

    event: EventName = Field(description="The event, by name.", examples=["Order Completed"])
    where: ExpressionText | None = Field(
        None, description="What must hold of the event. `key` is what the enrollment is about."
    )


_SENDER_TEXT = "The step that sent the mail: its id, which is the message's name unless given."


class Clicked(Section):
    """A click in a mail of this journey."""

    noun: ClassVar[str] = "field"

    clicked: Name = Field(description=_SENDER_TEXT)


class Opened(Section):
    """A mail of this journey that a person has opened, or clicked in."""

    noun: ClassVar[str] = "field"

    opened: Name = Field(description=f"{_SENDER_TEXT} What machines do does not count.")


class Reply(Section):
    """The answer to a survey: the event Survey Answered with this name under survey."""

    noun: ClassVar[str] = "field"

    reply: Name = Field(description="The survey, as the event Survey Answered names it under survey.")
    where: ExpressionText | None = Field(None, description="What must hold of the answer, such as event.score >= 9.")


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


def _drawn_from(value: list[timedelta]) -> list[timedelta]:
    if len(value) != 2 or value[0] > value[1]:
        raise refusal("between takes the shortest and the longest wait.", "Write it as [20d, 300d].")
    return value


class WaitBetween(Section):
    """A wait whose length is drawn once for each enrollment."""

    noun: ClassVar[str] = "wait field"

    between: Annotated[list[Duration], AfterValidator(_drawn_from)] = Field(
        description="The shortest and the longest: [20d, 300d]."
    )


class Step(Section):
    """One thing that a journey does."""

    noun: ClassVar[str] = "step field"

    id: Name | None = Field(None, description="The name of this step in the journey; needed where two would share one.")


def _kind_of_wait(value: object) -> str:
    if isinstance(value, WaitBetween) or (isinstance(value, dict) and "between" in value):
        return "@between"
    return "@until" if isinstance(value, dict | WaitUntil) else "@duration"


def _no_moment(value: object) -> object:
    """Tells who names a time of day or a day of the week where a duration belongs how to wait until then."""
    if isinstance(value, str):
        if time_of_day := re.fullmatch(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", value):
            hour = f"{int(time_of_day[1]):02}:{time_of_day[2]}"
            raise refusal(f"{quoted(value)} is a time of day.", f'Write wait: {{until: "{hour}"}}.')
        if re.fullmatch(r"(mon|tues?|wed(nes)?|thu(rs)?|fri|sat(ur)?|sun)(day)?", value, re.IGNORECASE):
            raise refusal(f"{quoted(value)} is a day of the week.", f"Write wait: {{on: [{value[:3].lower()}]}}.")
    return value


class WaitStep(Step):
    """Waits."""

    wait: Annotated[
        Annotated[LongerDuration, BeforeValidator(_no_moment), Tag("@duration")]
        | Annotated[WaitUntil, Tag("@until")]
        | Annotated[WaitBetween, Tag("@between")],
        Discriminator(_kind_of_wait),
    ] = Field(description='A duration such as 1h or 2d, or {for: 2d, until: "10:00", on: [tue]}.', examples=["1h"])


Awaited = EventMatch | Clicked | Opened | Reply
ANSWERS = {"event": "@event", "clicked": "@clicked", "opened": "@opened", "reply": "@reply"}


class WaitForStep(Step):
    """Waits for something that the customer does, no longer than the timeout."""

    wait_for: Annotated[
        Annotated[EventMatch, Tag("@event")]
        | Annotated[Clicked, Tag("@clicked")]
        | Annotated[Opened, Tag("@opened")]
        | Annotated[Reply, Tag("@reply")],
        Discriminator(kind_by_key(ANSWERS), custom_error_type="wait_for", custom_error_message="wait_for"),
    ] = Field(
        description="{clicked: step-id}, {opened: step-id}, {reply: survey} or {event: Name, where: expression}.",
        examples=["{event: Order Completed}"],
    )
    timeout: LongerDuration = Field(description="How long to wait at most.", examples=["2d"])
    then: Steps = Field([], description="What happens when it came; then the journey goes on below.")
    on_timeout: Steps = Field([], description="What happens when it did not come in time; absent: goes on below.")


class SendStep(Step):
    """Sends a message, and goes on when it is known what became of it."""

    later: ClassVar[frozenset[str]] = frozenset({"channels", "fallback"})
    channel: ClassVar[Literal["email", "sms", "push"]]

    @property
    def message(self) -> str:
        """The name of what it sends, which stands behind the name of its channel."""
        name: str = getattr(self, self.channel)
        return name

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


class EmailStep(SendStep):
    """Sends a mail, and goes on when it is known what became of it."""

    channel = "email"

    email: Name = Field(description="The message: the name of its folder under messages/.")


class SmsStep(SendStep):
    """Sends a text message to traits.phone, and goes on when it is known what became of it."""

    channel = "sms"

    sms: Name = Field(description="The message: the name of its folder under messages/, which has sms.txt.")


class PushStep(SendStep):
    """Sends a push notification to traits.push_token, and goes on when it is known what became of it."""

    channel = "push"

    push: Name = Field(description="The message: the name of its folder under messages/, which has push.yaml.")


class IfStep(Step):
    """Asks once, now, and takes one of two ways."""

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

    choose: Annotated[
        list[
            Annotated[
                Annotated[Way, Tag("@if")] | Annotated[OtherWay, Tag("@else")],
                Discriminator(
                    kind_by_key({"if": "@if", "else": "@else"}), custom_error_type="way", custom_error_message="way"
                ),
                Tolerant,
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
    split: Annotated[dict[Name, Annotated[SplitArm, Tolerant]], Field(min_length=1)] = Field(
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

    set: Annotated[dict[Settable, ExpressionText], Field(min_length=1)] = Field(
        description="vars.NAME for later steps of this enrollment, traits.NAME for the profile; each an expression."
    )


class EmitStep(Step):
    """Reports an event of the customer, which may count in segments and begin other journeys."""

    emit: EventName = Field(description="The event's name, in the past tense.", examples=["Cart Given Up"])
    properties: dict[Variable, ExpressionText] = Field({}, description="Its properties, each an expression.")


class Task(Section):
    """What a person is to do."""

    noun: ClassVar[str] = "task field"

    title: ExpressionText = Field(
        description="What is to be done, an expression: '\"Call \" + traits.name'.", examples=["'\"Call them\"'"]
    )
    note: ExpressionText | None = Field(None, description="What one should know for it, an expression.")
    due: LongerDuration | None = Field(None, description="How long there is time for it: 2d.")


class TaskStep(Step):
    """Gives a person something to do, and goes on. When it is done, the event Task Done says so."""

    task: Annotated[Task, Tolerant] = Field(description="{title: expression, due: 2d}.")


class Webhook(Section):
    """A call to a web address."""

    noun: ClassVar[str] = "webhook field"

    url: Url = Field(description="The address that is called, with POST.", examples=["https://shop.example/hooks"])
    type: Line | None = Field(
        None, description="What the call says that it is about; the journey and the step unless given."
    )
    with_: dict[Variable, ExpressionText] = Field(
        {}, alias="with", description="What the call carries, each an expression."
    )


class WebhookStep(Step):
    """Calls a web address, signed, and goes on when it is known what became of it."""

    webhook: Annotated[Webhook, Tolerant] = Field(description="{url: https://…, with: {name: expression}}.")
    expires: LongerDuration | None = Field(
        None, description="How long it is tried again where nobody answers; else that of defaults."
    )


class CouponStep(Step):
    """Issues a code, one for each enrollment. Later steps know it: steps.ID.code and steps.ID.expires."""

    coupon: Name = Field(description="The pool: the name of its file under coupons/.")


class PauseStep(Step):
    """Stops advertising to the customer for a while, from all journeys. What helps and what has to arrive goes on."""

    pause: Duration = Field(
        description="How long nothing promotional goes to this customer: 30d. 0d lifts a pause.", examples=["30d"]
    )


class ExitStep(Step):
    """Leaves the journey."""

    exit: Line = Field(description="Why, in a few words; reports show it.", examples=["came back"])


STEPS = {
    name: f"@{name}"
    for name in (
        "wait",
        "wait_for",
        "email",
        "sms",
        "push",
        "if",
        "choose",
        "split",
        "set",
        "emit",
        "coupon",
        "task",
        "webhook",
        "pause",
        "exit",
    )
}
AnyStep = TypeAliasType(
    "AnyStep",
    Annotated[
        Annotated[WaitStep, Tag("@wait")]
        | Annotated[WaitForStep, Tag("@wait_for")]
        | Annotated[EmailStep, Tag("@email")]
        | Annotated[SmsStep, Tag("@sms")]
        | Annotated[PushStep, Tag("@push")]
        | Annotated[IfStep, Tag("@if")]
        | Annotated[ChooseStep, Tag("@choose")]
        | Annotated[SplitStep, Tag("@split")]
        | Annotated[SetStep, Tag("@set")]
        | Annotated[EmitStep, Tag("@emit")]
        | Annotated[TaskStep, Tag("@task")]
        | Annotated[WebhookStep, Tag("@webhook")]
        | Annotated[CouponStep, Tag("@coupon")]
        | Annotated[PauseStep, Tag("@pause")]
        | Annotated[ExitStep, Tag("@exit")],
        Discriminator(kind_by_key(STEPS), custom_error_type="step", custom_error_message="step"),
    ],
)
Steps = Annotated[list[Annotated[AnyStep, Tolerant]], BeforeValidator(nothing_is_empty)]
