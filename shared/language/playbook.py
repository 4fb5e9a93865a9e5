"""A playbook that has been proven: every name in it exists, every expression is compiled.

`shared.language.load` makes one from a folder's files or reports every problem at once. Services trust what is here
and have no branch for a missing step, template or topic.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import time, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Literal

import msgspec
from msgspec.structs import replace

from shared.language.aggregates import SPEND, Aggregate
from shared.language.expressions import Expression

NAME = re.compile(r"(?!.{65})[a-z0-9]+(?:-[a-z0-9]+)*")
"""What may be the name of a stage, a segment, a topic, a journey, a step or a message."""

Kind = Literal["promotional", "service", "transactional"]


class QuietHours(msgspec.Struct, frozen=True):
    """No promotional or service mail from `start` to `end`, in the customer's local time; may span midnight."""

    start: time
    end: time


class Cap(msgspec.Struct, frozen=True):
    """At most `limit` messages of a channel to one customer within `window`, rolling, across journeys."""

    limit: int
    window: timedelta
    channel: str = "email"


class Brand(msgspec.Struct, frozen=True):
    """`rapport.yaml`: who sends, and the house rules. `urls` are names for templates, such as `urls.shop`."""

    name: str
    sender: str
    reply_to: str | None
    postal_address: str
    timezone: str
    locale: str
    currency: str
    rates: Mapping[str, Decimal]
    urls: Mapping[str, str]
    quiet_hours: QuietHours | None
    caps: tuple[Cap, ...]
    carts: Literal["derived", "sent"]
    opens: Literal["tracked", "untracked"] = "tracked"
    spend: Aggregate = SPEND
    """What a customer has spent."""

    def caps_of(self, channel: str) -> list[Cap]:
        return [cap for cap in self.caps if cap.channel == channel]


class Stage(msgspec.Struct, frozen=True):
    name: str
    when: Expression


class Segment(msgspec.Struct, frozen=True):
    name: str
    title: str
    when: Expression


class Topic(msgspec.Struct, frozen=True):
    """What a customer can opt out of. `default` says what silence means; transactional topics ignore consent."""

    name: str
    title: str
    description: str
    kind: Kind
    default: Literal["opt_in", "opt_out"]


class Message(msgspec.Struct, frozen=True):
    """A message's sources as text; `files` maps a locale ("" for the default) to file name to content.

    File names are `subject.txt`, `body.mjml` or `body.html`, and `body.txt` where the marketer wrote one; `sms.txt`;
    and the templates in `push.yaml`, which are named `push.title`, `push.body` and `push.url`."""

    name: str
    title: str
    preheader: str
    files: Mapping[str, Mapping[str, str]]
    preheaders: Mapping[str, str] = {}
    """The preheader by locale, "" for the default, where message.yaml of that locale has one."""


class CouponPool(msgspec.Struct, frozen=True):
    """Where codes come from: `codes` in their order, or where there are none of them, `prefix` and `length` signs that
    are drawn, at most `limit` times. `expires` is how long a code can be used from when it is issued. `announced_to` is
    the web address that is called with each code that is issued; None where the shop takes them itself."""

    name: str
    title: str
    prefix: str
    length: int
    limit: int | None
    expires: timedelta | None
    codes: tuple[str, ...] | None = None
    announced_to: str | None = None


class EventTrigger(msgspec.Struct, frozen=True):
    event: str
    where: Expression | None
    key: Expression | None
    for_each: tuple[str, ...] | None = None
    """The path of a list in the event: one enrollment for each of its items."""


class StageTrigger(msgspec.Struct, frozen=True):
    """Entering a stage."""

    stage: str


class SegmentTrigger(msgspec.Struct, frozen=True):
    segment: str
    change: Literal["entered", "left"]


class DateTrigger(msgspec.Struct, frozen=True):
    """A date trait, each year or once, at a local time of day, `before` that many calendar days earlier."""

    trait: tuple[str, ...]
    every: Literal["year"] | None
    at: time
    before: int


Trigger = EventTrigger | StageTrigger | SegmentTrigger | DateTrigger


class EventMatch(msgspec.Struct, frozen=True):
    """An event by name, and what must hold of it."""

    event: str
    where: Expression | None


class Goal(msgspec.Struct, frozen=True):
    match: EventMatch
    within: timedelta | None
    value: Expression | None


class Wait(msgspec.Struct, frozen=True):
    """Wait `duration`, then until local time `until` on one of `weekdays` (0 is Monday); either part may be absent.

    With `date` (the path of a trait) it is until that day, at `until` or where it begins. With `between` it is for a
    time that is drawn once for each enrollment, from the first to the second.
    """

    id: str
    next: str | None
    duration: timedelta | None
    until: time | None
    weekdays: frozenset[int] | None
    date: tuple[str, ...] | None = None
    between: tuple[timedelta, timedelta] | None = None


class WaitFor(msgspec.Struct, frozen=True):
    """Wait for an event, or for a click in the message that step `clicked` sent, or for a person who opens the one of
    step `opened`; or go `timed_out`."""

    id: str
    matched: str | None
    timed_out: str | None
    match: EventMatch | None
    clicked: str | None
    timeout: timedelta
    opened: str | None = None


class Email(msgspec.Struct, frozen=True):
    """Send a message on a channel: `email`, `sms` or `push`."""

    id: str
    next: str | None
    message: str
    topic: str
    priority: int
    expires: timedelta
    with_: Mapping[str, Expression]
    channel: str = "email"


class If(msgspec.Struct, frozen=True):
    id: str
    condition: Expression
    then: str | None
    otherwise: str | None


class Choose(msgspec.Struct, frozen=True):
    """Take the first of `ways` whose condition holds, or go `otherwise`."""

    id: str
    ways: tuple[tuple[Expression, str | None], ...]
    otherwise: str | None


class Arm(msgspec.Struct, frozen=True):
    """One way of a split: its share of all, from 0 to 1, and where it leads."""

    share: Decimal
    first: str | None


class Split(msgspec.Struct, frozen=True):
    """Lots are drawn, once for each enrollment, or once and for ever for each customer. The shares make 1."""

    id: str
    arms: Mapping[str, Arm]
    by: Literal["enrollment", "customer"]


class Set(msgspec.Struct, frozen=True):
    """Keep `vars` for later steps of this enrollment, and write `traits` into the profile."""

    id: str
    next: str | None
    vars: Mapping[str, Expression]
    traits: Mapping[str, Expression]


class Emit(msgspec.Struct, frozen=True):
    """Report an event of the customer."""

    id: str
    next: str | None
    event: str
    properties: Mapping[str, Expression]


class Task(msgspec.Struct, frozen=True):
    """Give a person something to do, within `due` where that is said."""

    id: str
    next: str | None
    title: Expression
    note: Expression | None
    due: timedelta | None


class Webhook(msgspec.Struct, frozen=True):
    """Call a web address with POST, and go on when it is known what became of it. `type` says what it is about."""

    id: str
    next: str | None
    url: str
    type: str
    expires: timedelta
    with_: Mapping[str, Expression]


class Coupon(msgspec.Struct, frozen=True):
    """Issue a code of a pool: one for each enrollment."""

    id: str
    next: str | None
    pool: str


class Pause(msgspec.Struct, frozen=True):
    """Send nothing promotional to the customer for so long; for no time at all it lifts what stands."""

    id: str
    next: str | None
    duration: timedelta


class Exit(msgspec.Struct, frozen=True):
    id: str
    reason: str


Step = Wait | WaitFor | Email | If | Choose | Split | Set | Emit | Task | Webhook | Coupon | Pause | Exit


class Journey(msgspec.Struct, frozen=True):
    """A journey as a graph: `steps` by id, `first` the entry; None as a next step is the end ("completed").

    `version` is a hash of the structure (all but title and status); an enrollment keeps the one it began with.
    """

    name: str
    title: str
    version: str
    status: Literal["live", "draft", "paused"]
    trigger: Trigger
    condition: Expression | None
    """The trigger's `if`: asked once, when the trigger has matched."""
    mode: Literal["single", "restart"]
    again: Literal["always", "never"] | timedelta
    max_age: timedelta
    goal: Goal | None
    exit_on: tuple[EventMatch, ...]
    topic: str | None
    """`defaults.topic`: losing consent for it ends the enrollment unless a later step sends under another."""
    first: str | None
    steps: Mapping[str, Step]
    holdout: Decimal = Decimal(0)
    """The share of customers, from 0 up to 1, who enter and get nothing, so that what the journey brings is seen."""
    unless_in: frozenset[str] = frozenset()
    """Who is in one of these journeys does not enter."""


class Playbook(msgspec.Struct, frozen=True, dict=True):
    """Everything that a marketer decided. `aggregates` are those of stages, segments and journeys, by id.

    `journey_expressions` are what journeys evaluate, and `journey_aggregates` the ids of the aggregates in them: their
    state travels on `customers`.
    `files` are the bytes it was loaded from, by path relative to the folder, and `hash` is theirs.
    """

    hash: str
    files: Mapping[str, bytes]
    brand: Brand
    stages: tuple[Stage, ...]
    segments: Mapping[str, Segment]
    topics: Mapping[str, Topic]
    journeys: Mapping[str, Journey]
    messages: Mapping[str, Message]
    aggregates: Mapping[str, Aggregate]
    journey_expressions: frozenset[Expression] = frozenset()
    journey_aggregates: frozenset[str] = frozenset()
    coupons: Mapping[str, CouponPool] = {}
    spend: Aggregate | None = None
    """The brand's, where something asks for `customer.spend_percentile`; then it is in `aggregates`."""

    def pausing(self, journeys: Collection[str]) -> Playbook:
        """The same playbook, with these of its journeys paused; its hash stays."""
        held = {name: replace(self.journeys[name], status="paused") for name in journeys if name in self.journeys}
        return replace(self, journeys={**self.journeys, **held}) if held else self

    @cached_property
    def paused(self) -> frozenset[str]:
        """The journeys that let nobody in, and in which what is due waits."""
        return frozenset(name for name, journey in self.journeys.items() if journey.status == "paused")
