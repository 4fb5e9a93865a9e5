"""The mailer's part of a customer's story: what was asked for, what became of it, and what stands in the way."""

from __future__ import annotations

from datetime import datetime

from services.mailer import lines, page_store, store
from services.mailer.consent import normalise
from services.mailer.page_store import Recounted
from shared.contracts.story import Asked, Line, Mailed, Word
from shared.processing.port import Connection

MOST = 1_000
"""Messages of one customer that are told, the newest of them."""


async def mailed(connection: Connection, partition: int, customer: str, since: datetime) -> Mailed:
    """The messages that were asked for since then, and how things stand with the customer's address."""
    messages = await page_store.messages_of(connection, customer, since, MOST)
    person = (await store.people(connection, [(partition, customer)])).get(partition, {}).get(customer)
    address = normalise(person.address) if person is not None else None
    suppressed = await page_store.suppression_of(connection, address) if address is not None else None
    consent = (await store.consent_of(connection, [address]))[address] if address is not None else {}
    if person is not None and address is None:
        consent = person.decisions
    return Mailed(
        messages=tuple(_asked(one) for one in messages),
        address=person.address if person is not None else None,
        consent={
            topic: Word(subscribed=said.subscribed, decided_at=said.decided_at, source=said.source)
            for topic, said in consent.items()
        },
        suppressed=suppressed.reason if suppressed is not None else "",
        suppressed_at=suppressed.since if suppressed is not None else None,
        paused_until=person.paused_until if person is not None else None,
    )


def _asked(one: Recounted) -> Asked:
    read = (lines.read(line) for line in one.held)
    return Asked(
        id=one.id,
        message=one.message,
        journey=one.journey,
        enrollment=one.request.enrollment,
        step=one.request.step,
        topic=one.topic,
        channel=one.request.channel,
        status=one.status,
        reason=one.reason,
        detail=one.detail,
        lines=tuple(Line(**line._asdict()) for line in read if line is not None),
        due=one.due,
        expires=one.expires,
        requested_at=one.requested_at,
        ended_at=one.ended_at,
        address=one.address,
    )
