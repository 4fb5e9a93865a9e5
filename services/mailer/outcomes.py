"""What a receipt makes of a message, and the events that tell the other services what a message led to. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple
from uuid import UUID

import msgspec

from services.mailer import policy
from services.mailer.policy import Fail
from services.mailer.transport import Accepted, Deferred, Receipt, Rejected, Unknown
from shared.causes import named
from shared.contracts import events
from shared.contracts.events import Event
from shared.contracts.messages import EMAIL, PUSH, SMS, WEBHOOK, MessageRequested

NO_SUCH_ADDRESS = "no_such_address"
"""Why an address is suppressed of which a server has said that there is none."""
_USED = "used"
"""Why a message is told to be sent of which it was not known: somebody has its mail."""

_CAUSES = UUID("7c0f7f2e-5a0d-5d86-9f0c-6f2f6f0f4a31")
_NAMES = {
    (EMAIL, "sent"): events.EMAIL_SENT,
    (EMAIL, "skipped"): events.EMAIL_SKIPPED,
    (EMAIL, "failed"): events.EMAIL_FAILED,
    (EMAIL, "unknown"): events.EMAIL_UNKNOWN,
    (WEBHOOK, "sent"): events.WEBHOOK_SENT,
    (WEBHOOK, "skipped"): events.WEBHOOK_SKIPPED,
    (WEBHOOK, "failed"): events.WEBHOOK_FAILED,
    (SMS, "sent"): events.SMS_SENT,
    (SMS, "skipped"): events.SMS_SKIPPED,
    (SMS, "failed"): events.SMS_FAILED,
    (PUSH, "sent"): events.PUSH_SENT,
    (PUSH, "skipped"): events.PUSH_SKIPPED,
    (PUSH, "failed"): events.PUSH_FAILED,
}
_encode = msgspec.json.Encoder().encode


class Ended(NamedTuple):
    """The message is done with. `reason` is a stable word, `detail` what the server said, which stays with us."""

    status: Literal["sent", "skipped", "failed", "unknown"]
    reason: str = ""
    detail: str = ""


class Again(NamedTuple):
    """Nothing was accepted; the message is held and decided anew then."""

    at: datetime
    reason: str
    detail: str


def after(
    receipt: Receipt, request: MessageRequested, attempts: int, cancelled: str, base: timedelta, now: datetime
) -> Ended | Again:
    """What becomes of a message whose hand-over number `attempts` gave this receipt.

    `cancelled` is why it was cancelled while it was in hand: too late for one that was accepted, and reason enough not
    to try once more. `base` is the shortest time between two attempts.
    """
    if isinstance(receipt, Accepted):
        return Ended("sent", detail=receipt.reply)
    if isinstance(receipt, Rejected):
        return Ended("failed", NO_SUCH_ADDRESS if receipt.suppress else receipt.reason, receipt.reply)
    if isinstance(receipt, Unknown) and request.channel != EMAIL:
        # Its receiver knows it by its id, however often it comes.
        receipt = Deferred("", receipt.reason)
    if isinstance(receipt, Deferred):
        if cancelled:
            return Ended("skipped", cancelled)
        decision = policy.retry(request, attempts, base, now)
        if isinstance(decision, Fail):
            return Ended("failed", decision.reason, receipt.reply)
        return Again(decision.until, receipt.reason, receipt.reply)
    return Ended("unknown", receipt.reason)


def event(
    request: MessageRequested, ended: Ended, decided_for: datetime, ended_at: datetime, told_at: datetime | None = None
) -> Event:
    """The event that reports an outcome. One message and outcome is one event, whenever made.

    `decided_for` is the instant that the last decision stood for (due, release or retry): what follows in a journey
    counts from there. `told_at` is when it is told, where that is not at once. No address and no server's words leave
    the mailer.
    """
    id = named(_CAUSES, f"{request.id}\n{ended.status}")
    properties = {"reason": ended.reason, "decided_for": decided_for}
    return _about(request, id, _NAMES[request.channel, ended.status], ended_at, properties, request.hops + 1, told_at)


def arrived(request: MessageRequested, decided_for: datetime, ended_at: datetime, now: datetime) -> bytes:
    """The event that a message was sent of which that was not known, encoded. `ended_at` is since when it was not.

    Several may learn of it before anybody has written it down, from an open and from a click, by clocks that differ. So
    nothing that it says depends on who tells it, and when: else the second would contradict the first."""
    return _encode(event(request, Ended("sent", _USED), decided_for, ended_at, told_at=now))


def report(
    request: MessageRequested,
    id: str,
    name: str,
    occurred_at: datetime,
    properties: Mapping[str, Any],
    hops: int | None = None,
) -> bytes:
    """An event that a message led to, encoded for the stream: its own properties beside the message's. It is one
    consequence more than the message was, unless `hops` says otherwise."""
    return _encode(_about(request, id, name, occurred_at, properties, request.hops + 1 if hops is None else hops))


def _about(
    request: MessageRequested,
    id: str,
    name: str,
    occurred_at: datetime,
    properties: Mapping[str, Any],
    hops: int,
    told_at: datetime | None = None,
) -> Event:
    """Told at once, unless `told_at` says otherwise."""
    about = {
        "message_id": request.id,
        "message": request.message,
        "journey": request.journey,
        "enrollment": request.enrollment,
        "step": request.step,
        "topic": request.topic,
    }
    return Event(
        id=id,
        source=events.MAILER_SOURCE,
        key=request.customer,
        name=name,
        occurred_at=occurred_at,
        received_at=occurred_at if told_at is None else max(told_at, occurred_at),
        properties=msgspec.Raw(_encode({**about, **properties})),
        hops=hops,
    )
