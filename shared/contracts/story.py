"""What each service tells of its own part of a customer's story, to the one that puts the story together (journeys)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from shared.contracts.customers import Customer
from shared.contracts.events import EMPTY, CallType


class Happened(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Something in the segmenter's history, and what it changed. `kind` is `event`, `derived` (an event of our own
    making), `time` (a window ran out; or a night has passed, where `name` is `customer.spend_percentile` and `id` what
    it is then), `definition` (the playbook changed) or `date` (`name` is the journey that waits for it, `id` the
    occasion).

    `at` is when it was received; `stage_before` is None where the stage stayed. `playbook` begins the hash of the one
    in force, where something changed."""

    at: datetime
    kind: Literal["event", "derived", "time", "definition", "date"]
    type: CallType = "track"
    id: str = ""
    source: str = ""
    name: str = ""
    occurred_at: datetime
    historical: bool = False
    hops: int = 0
    properties: msgspec.Raw = EMPTY
    stage_before: str | None = None
    stage: str = ""
    entered: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    consent: dict[str, bool] = {}
    address_before: str | None = None
    playbook: str = ""


class Remembered(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The segmenter's part. `customer` is None where nobody has the key. `dates` says when each journey that begins on
    a date will do so next; None where no date is known for it. `past` is in order."""

    customer: Customer | None = None
    dates: dict[str, datetime | None] = {}
    past: tuple[Happened, ...] = ()


class Line(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A message was held (until then), or skipped. `note` says which cap (`2 in 1d`) and whether it is the `journey`
    that is paused; `playbook` begins the hash of the one in force."""

    at: datetime
    reason: str
    until: datetime | None = None
    note: str = ""
    playbook: str = ""


class Asked(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A message that was asked for. `due` is the instant that the next decision stands for, or the last one did."""

    id: str
    message: str
    journey: str
    enrollment: str
    step: str
    topic: str
    channel: str = "email"
    status: str
    reason: str = ""
    detail: str = ""
    lines: tuple[Line, ...] = ()
    due: datetime
    expires: datetime
    requested_at: datetime
    ended_at: datetime | None = None
    address: str | None = None


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """The last yes or no to a topic, when it was said, and where."""

    subscribed: bool
    decided_at: datetime
    source: str


class Mailed(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The mailer's part. `messages` are in the order in which they were asked for, `consent` is by topic (`*`: every
    promotional one). `suppressed` says why nothing goes to the address any more, and `suppressed_at` since when."""

    messages: tuple[Asked, ...] = ()
    address: str | None = None
    consent: dict[str, Word] = {}
    suppressed: str = ""
    suppressed_at: datetime | None = None
    paused_until: datetime | None = None
