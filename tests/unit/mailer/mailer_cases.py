"""Requests, brands and recipients for tests of what the mailer decides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from services.mailer.consent import Decision
from services.mailer.policy import Recipient
from shared.contracts.messages import MessageRequested
from shared.language.playbook import Kind, Topic

NOON = datetime(2026, 3, 2, 11, 0, tzinfo=UTC)  # noon in Oslo


def asked(
    id: str = "m1",
    *,
    due: datetime = NOON,
    expires: timedelta = timedelta(hours=72),
    timezone: str | None = None,
    draft: bool = False,
    hops: int = 0,
) -> MessageRequested:
    return MessageRequested(
        as_of=due,
        id=id,
        customer="anna",
        address="anna@example.org",
        message="cart-reminder",
        topic="cart-reminders",
        journey="abandoned-cart",
        enrollment="e1",
        step="cart-reminder",
        due=due,
        expires=due + expires,
        timezone=timezone,
        draft=draft,
        hops=hops,
    )


def topic(kind: Kind = "promotional", default: str = "opt_out") -> Topic:
    return Topic("cart-reminders", "Cart reminders", "When a cart is left.", kind, default)  # type: ignore[arg-type]


def reader(
    *decisions: Decision,
    address: str | None = "anna@example.org",
    suppressed: str = "",
    counted: Sequence[datetime] = (),
    paused_until: datetime | None = None,
) -> Recipient:
    said = {d.topic: d for d in decisions}
    return Recipient(address, address is not None, suppressed, said, list(counted), paused_until)


def said(yes: bool, topic: str = "cart-reminders", at: datetime = NOON) -> Decision:
    return Decision(topic, yes, at, "test")
