"""The shape of a journey's file: its trigger, its steps, its goal and exits, and what each field means.

Editors complete and check from these classes (`shared.language.schema`); the texts of the fields are what they show.
Shapes only: whether a topic or a segment exists, and whether an expression makes sense, is `checks`' work.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from typing_extensions import TypeAliasType

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
    Settable,
    Share,
    TraitPath,
    UntilTime,
    Url,
    Variable,
    Weekday,
    _drawn_from,
    nothing_is_empty,
    refusal,
)
from shared.language.sections import Hole, Section, Tolerant

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


def kind_by_key(kinds: Mapping[str, str]) -> Callable[[object], str | None]:
    """A discriminator: the one key of `kinds` that a mapping, or what was made of one, has."""

    def kind(value: object) -> str | None:
        keys: Collection[str] = value if isinstance(value, dict) else ()
        if isinstance(value, Section):
            keys = [info.alias or name for name, info in type(value).model_fields.items()]
        found = [tag for key, tag in kinds.items() if key in keys]
        return found[0] if len(found) == 1 else None

    return kind


TRIGGERS = {"event": "@event", "stage": "@stage", "segment": "@segment", "date": "@date"}
Trigger = Annotated[
    Annotated[EventTrigger, Tag("@event")]
    | Annotated[StageTrigger, Tag("@stage")]
    | Annotated[SegmentTrigger, Tag("@segment")]
    | Annotated[DateTrigger, Tag("@date")],
    Discriminator(kind_by_key(TRIGGERS), custom_error_type="trigger", custom_error_message="trigger"),
]


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

    opened: Name = Field(description=f"{_SENDER_TEXT} What machines open does not count.")


class Reply(Section):
    """The answer to a survey: the event Survey Answered with this name under survey."""

    noun: ClassVar[str] = "field"

    reply: Name = Field(description="The survey, as the event Survey Answered names it under survey.")
    where: ExpressionText | None = Field(None, description="What must hold of the answer, such as event.score >= 9.")


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
    ] = Field(description='A duration such as 1h or 2d, or {for: 2d, until: "10:00", on: [tue]}.', examples=["1h"])


ANSWERS = {"event": "@event", "clicked": "@clicked", "opened": "@opened", "reply": "@reply"}


class WaitForStep(Step):
    """Waits for something that the customer does, no longer than the timeout."""

    id: Name | None = Field(None, description=_ID_TEXT)
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

    id: Name | None = Field(None, description=_ID_TEXT)
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

    id: Name | None = Field(None, description=_ID_TEXT)
    set: Annotated[dict[Settable, ExpressionText], Field(min_length=1)] = Field(
        description="vars.NAME for later steps of this enrollment, traits.NAME for the profile; each an expression."
    )


class EmitStep(Step):
    """Reports an event of the customer, which may count in segments and begin other journeys."""

    id: Name | None = Field(None, description=_ID_TEXT)
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

    id: Name | None = Field(None, description=_ID_TEXT)
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

    id: Name | None = Field(None, description=_ID_TEXT)
    webhook: Annotated[Webhook, Tolerant] = Field(description="{url: https://…, with: {name: expression}}.")
    expires: LongerDuration | None = Field(
        None, description="How long it is tried again where nobody answers; else that of defaults."
    )


class CouponStep(Step):
    """Issues a code, one for each enrollment. Later steps know it: steps.ID.code and steps.ID.expires."""

    id: Name | None = Field(None, description=_ID_TEXT)
    coupon: Name = Field(description="The pool: the name of its file under coupons/.")


class PauseStep(Step):
    """Stops advertising to the customer for a while, from all journeys. What helps and what has to arrive goes on."""

    id: Name | None = Field(None, description=_ID_TEXT)
    pause: Duration = Field(
        description="How long nothing promotional goes to this customer: 30d. 0d lifts a pause.", examples=["30d"]
    )


class ExitStep(Step):
    """Leaves the journey."""

    id: Name | None = Field(None, description=_ID_TEXT)
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
