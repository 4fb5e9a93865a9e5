"""The stream `messages`: what journeys asks mailer to send, and what mailer must know of a person. Journeys writes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from shared.contracts.customers import Activation, ConsentDecision, Tick

VERSION = 2
"""The latest that this release reads. What could be said before says 1 still, so that an older release reads on."""

_FIRST = 1

EMAIL, WEBHOOK, SMS, PUSH = "email", "webhook", "sms", "push"
"""Channels. A webhook's `data` holds its `url`, its `type` and what the step gave `with`; it has no topic, and
`message` is its step; one that tells the shop of a code of a coupon has the pool's file there, `coupons/NAME`. A text
message goes to the trait `phone` in its `data`, a notification to `push_token`; `address`
is that of mail on every channel. All but mails say VERSION, since an older release would take them for mails."""


POOLS = "coupons/"
"""What begins the `message` of a webhook that announces a code. No step and no message has a slash in its name."""


class MessageRequested(
    msgspec.Struct, frozen=True, tag="requested", tag_field="kind", omit_defaults=True, kw_only=True
):
    """A message to send. `id` derives from its cause (enrollment, step, visit): one cause, one message.

    `due` is when it was decided for, and `expires` the instant after which it is not sent any more.
    `data` is what its templates see: `customer`, `traits`, `trigger`, `key` and what the step gave `with`,
    fixed when the step ran. `hops` counts how many consequences of consequences led here.
    """

    as_of: datetime
    id: str
    customer: str
    address: str | None
    message: str
    topic: str
    journey: str
    enrollment: str
    step: str
    due: datetime
    expires: datetime
    priority: int = 50
    channel: str = EMAIL
    draft: bool = False
    locale: str | None = None
    timezone: str | None = None
    data: dict[str, Any] = {}
    hops: int = 0
    v: int = _FIRST

    @property
    def announces(self) -> str:
        """The pool of the code that a webhook tells the shop of; empty for all else."""
        return self.message.removeprefix(POOLS) if self.channel == WEBHOOK and self.message.startswith(POOLS) else ""


class MessageCancelled(
    msgspec.Struct, frozen=True, tag="cancelled", tag_field="kind", omit_defaults=True, kw_only=True
):
    """The message with this id is not wanted any more; one that is still held ends as skipped(`reason`)."""

    as_of: datetime
    id: str
    customer: str
    reason: str
    v: int = _FIRST


class ConsentChanged(msgspec.Struct, frozen=True, tag="consent", tag_field="kind", omit_defaults=True, kw_only=True):
    """Decisions of a customer that concern the address; also sent when the customer's address changes."""

    as_of: datetime
    customer: str
    address: str | None
    decisions: tuple[ConsentDecision, ...] = ()
    v: int = _FIRST


class PromotionPaused(
    msgspec.Struct, frozen=True, tag="promotion_paused", tag_field="kind", omit_defaults=True, kw_only=True
):
    """Nothing promotional goes to this customer from `at` to `until`. A pause that lasts longer stands, unless `until`
    is `at`: that lifts whatever stands."""

    as_of: datetime
    customer: str
    at: datetime
    until: datetime
    v: int
    """Written out, unlike the first version: a release that knows no pauses waits for one that does."""


MessageRecord = MessageRequested | MessageCancelled | ConsentChanged | PromotionPaused | Tick | Activation
