"""The stream `events`: what customers did, what ingest refused, and the switch to another playbook.

Written by ingest, by journeys and mailer, who report back what became of their work, and, each night, by segmenter.
Read by segmenter.
Times are UTC. `properties`, `traits` and `context` stay as the client's JSON bytes until somebody needs them.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal

import msgspec

VERSION = 3
"""The latest that this release reads. What could be said before says 1 still, so that an older release reads on."""

_FIRST = 1

MAX_HOPS = 8
"""How many times over an event may be the consequence of another before it is dropped as a loop."""

EMPTY = msgspec.Raw(b"{}")

CallType = Literal["track", "identify", "page", "screen", "group", "alias"]

SEGMENTER_SOURCE = "rapport/segmenter"
JOURNEYS_SOURCE = "rapport/journeys"
MAILER_SOURCE = "rapport/mailer"

# What segmenter derives from the products that come and go, where the shop does not report its carts.
CART_UPDATED = "Cart Updated"
CART_EMPTIED = "Cart Emptied"

# What mailer reports, named after Segment's email events; the last four are Rapport's own.
# https://segment.com/docs/connections/spec/email/
EMAIL_LINK_CLICKED = "Email Link Clicked"
EMAIL_OPENED = "Email Opened"
EMAIL_BOUNCED = "Email Bounced"
UNSUBSCRIBED = "Unsubscribed"
EMAIL_SENT = "Email Sent"
EMAIL_SKIPPED = "Email Skipped"
EMAIL_FAILED = "Email Failed"
EMAIL_UNKNOWN = "Email Unknown"

MAIL_USES = frozenset({EMAIL_LINK_CLICKED, EMAIL_OPENED})
"""What people do with mails, and machines do, too, who then say `machine: true`."""

# What mailer reports of the calls that a journey asks for.
WEBHOOK_SENT = "Webhook Sent"
WEBHOOK_SKIPPED = "Webhook Skipped"
WEBHOOK_FAILED = "Webhook Failed"

# What mailer reports of text messages and push notifications.
SMS_SENT = "SMS Sent"
SMS_SKIPPED = "SMS Skipped"
SMS_FAILED = "SMS Failed"
PUSH_SENT = "Push Notification Sent"
PUSH_SKIPPED = "Push Notification Skipped"
PUSH_FAILED = "Push Notification Failed"

# What a shop, or the tool with which it asks, reports of an answer: `survey` names the survey.
SURVEY_ANSWERED = "Survey Answered"

# What journeys reports of work for a person, and who has done it.
TASK_OPENED = "Task Opened"
TASK_DONE = "Task Done"

TOPIC_SUBSCRIBED = "Topic Subscribed"
TOPIC_UNSUBSCRIBED = "Topic Unsubscribed"


class Event(msgspec.Struct, frozen=True, tag="event", tag_field="kind", omit_defaults=True, kw_only=True):
    """One fact about one customer.

    `id` and `source` together name it: the same pair twice is the same event. `key` is the customer key: the user
    id, else the anonymous id. `name` is the event's name for track (`Order Completed`), the page's or screen's name,
    and empty for identify, group and alias. `occurred_at` is corrected by the client's clock skew and is never
    later than `received_at`.
    """

    id: str
    source: str
    key: str
    type: CallType = "track"
    name: str = ""
    user_id: str | None = None
    anonymous_id: str | None = None
    occurred_at: datetime
    received_at: datetime
    properties: msgspec.Raw = EMPTY
    traits: msgspec.Raw = EMPTY
    context: msgspec.Raw = EMPTY
    extra: msgspec.Raw = EMPTY
    """What the call says beyond these fields, by its names on the wire: `groupId`, `previousId`, `category`,
    `integrations`, and whatever the protocol does not name, kept as it came."""
    historical: bool = False
    hops: int = 0
    v: int = _FIRST


class Refused(msgspec.Struct, frozen=True, tag="refused", tag_field="kind", omit_defaults=True, kw_only=True):
    """What ingest could not take: its bytes and the reason. Keyed by source; segmenter files it under dead letters."""

    source: str
    received_at: datetime
    code: str
    message: str
    body: bytes
    id: str = ""
    v: int = _FIRST


class Activation(msgspec.Struct, frozen=True, tag="activation", tag_field="kind", omit_defaults=True, kw_only=True):
    """From this place of the road on, the playbook with this content hash is in force.

    `keeps` are the hashes of playbooks before it under which somebody still is in a journey: what those journeys count
    goes on being counted. `paused` are journeys that somebody has paused by hand. Those who are inside an older version
    of one of `moves` are taken along to the one in this playbook."""

    playbook: str
    received_at: datetime
    keeps: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()
    moves: tuple[str, ...] = ()
    v: int = _FIRST


class Backfill(msgspec.Struct, frozen=True, tag="backfill", tag_field="kind", omit_defaults=True, kw_only=True):
    """From this place of the road on, customers of this partition who are where a journey's trigger lets others in are
    invited to it, `per_hour` of them at most; 0 stops. `occasion` names the backfill: the same one goes on where it
    stopped, another begins with the first customer."""

    journey: str
    occasion: str
    per_hour: float
    received_at: datetime
    v: int
    """Written out, unlike the first version: a release that knows no backfills waits for one that does."""


class CutOffs(msgspec.Struct, frozen=True, tag="cut-offs", tag_field="kind", omit_defaults=True, kw_only=True):
    """From this place of the road on, a customer's percentile is how many of `amounts` they have spent, until the next
    of these. The first is what the best 99 % of the `customers` who have spent anything have, the second the best 98 %,
    and so on, in the brand's currency; they end where nobody has more. `metric` is the id of the aggregate that counts
    as spending."""

    metric: str
    amounts: tuple[Decimal, ...]
    customers: int
    received_at: datetime
    v: int
    """Written out, unlike the first version: a release that knows no percentiles waits for one that does."""


EventRecord = Event | Refused | Activation | Backfill | CutOffs
