"""The mailer's shell around its records: what journeys asks for, takes back, or knows of a person becomes rows.

Nothing is sent here. A message that is due is left in `requested`, and `sending.py` hands it over beside the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from services.mailer import store
from services.mailer.batch import MailerBatch
from services.mailer.sending import Sending
from shared.contracts import streams
from shared.contracts.customers import Activation
from shared.contracts.messages import (
    VERSION,
    ConsentChanged,
    MessageCancelled,
    MessageRecord,
    MessageRequested,
    PromotionPaused,
)
from shared.processing.playbooks import Shelf
from shared.processing.port import Connection, Lane, Timer
from shared.processing.records import decoder

_decode = decoder(streams.MESSAGES, MessageRecord, VERSION)


class MailerProcessor:
    """The service as the mechanics see it (`shared.processing.port.Processor`)."""

    service = "mailer"
    stream = streams.MESSAGES

    def __init__(self, sending: Sending, shelf: Shelf) -> None:
        self._sending = sending
        self._shelf = shelf

    def decode(self, key: str, value: bytes) -> MessageRecord:
        message: MessageRecord = _decode(key, value)
        return message

    def as_of(self, message: MessageRecord) -> datetime:
        return message.as_of

    async def load(
        self, connection: Connection, partition: int, memo: bytes, messages: Sequence[Any], timers: Sequence[Timer]
    ) -> MailerBatch:
        ids = {message.id for message in messages if isinstance(message, (MessageRequested, MessageCancelled))}
        ids.update(timer.subject for timer in timers)
        customers = {
            message.customer
            for message in messages
            if isinstance(message, (MessageRequested, ConsentChanged, PromotionPaused))
        }
        playbooks = {message.playbook for message in messages if isinstance(message, Activation)}
        return MailerBatch(
            partition,
            memo,
            {name: (await self._shelf.get(connection, name)).paused for name in playbooks},
            await store.messages_by_id(connection, ids) if ids else {},
            await store.people(connection, partition, customers) if customers else {},
            lambda: self._sending.look(partition),
        )

    def tick(self, as_of: datetime, after: int) -> None:
        return None

    async def attend(self, lane: Lane) -> None:
        await self._sending.attend(lane)
