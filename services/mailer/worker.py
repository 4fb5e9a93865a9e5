"""The mailer's shell around its records: what journeys asks for, takes back, or knows of a person becomes rows.

Nothing is sent here. A message that is due is left in `requested`, and `sending.py` hands it over beside the records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial

from services.mailer import store
from services.mailer.batch import MailerBatch, save
from services.mailer.sending import Sending
from services.mailer.sitting import Sittings
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
from shared.processing.playbooks import Shelf, name_in_force
from shared.processing.port import Connection, Given, Lane, Writes
from shared.processing.records import decoder

_decode = decoder(streams.MESSAGES, MessageRecord, VERSION)


class MailerProcessor:
    """The service as the mechanics see it (`shared.processing.port.Processor`)."""

    service = "mailer"
    stream = streams.MESSAGES

    def __init__(self, sending: Sending, shelf: Shelf, *more: Sending) -> None:
        """`more` is the work of other channels than mail."""
        self._sending = (sending, *more)
        self._shelf = shelf

    def decode(self, key: str, value: bytes) -> MessageRecord:
        message: MessageRecord = _decode(key, value)
        return message

    def as_of(self, message: MessageRecord) -> datetime:
        return message.as_of

    async def load(self, connection: Connection, given: Sequence[Given]) -> list[MailerBatch]:
        ids = {one.partition: _messages(one) for one in given}
        known = await store.messages_by_id(connection, set().union(*ids.values())) if any(ids.values()) else {}
        customers = {
            (one.partition, message.customer)
            for one in given
            for message in one.messages
            if isinstance(message, (MessageRequested, ConsentChanged, PromotionPaused))
        }
        people = await store.people(connection, customers) if customers else {}
        batches = []
        for partition, memo, records, _ in given:
            activations = [message for message in records if isinstance(message, Activation)]
            playbooks = {name_in_force(activation.playbook, activation.paused) for activation in activations}
            paused = {name: (await self._shelf.get(connection, name)).paused for name in playbooks}
            messages = {id: known[id] for id in ids[partition] if id in known}
            look = partial(self._look, partition)
            batches.append(MailerBatch(partition, memo, paused, messages, people.get(partition, {}), look))
        return batches

    async def provide(self, connection: Connection, batch: MailerBatch) -> bool:
        return False

    def save(self, batches: Sequence[MailerBatch]) -> Writes:
        return save(batches)

    def tick(self, as_of: datetime, after: int) -> None:
        return None

    def beside(self) -> Sittings:
        return Sittings([sending.sitting() for sending in self._sending])

    async def attend(self, lane: Lane) -> None:
        """Each channel by itself; what ends one, ends all."""
        tasks = [asyncio.create_task(sending.attend(lane)) for sending in self._sending]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _look(self, partition: int, channels: Collection[str]) -> None:
        for sending in self._sending:
            if sending.channel in channels:
                sending.look(partition)


def _messages(given: Given) -> set[str]:
    """The ids of those that it is about."""
    asked = {message.id for message in given.messages if isinstance(message, (MessageRequested, MessageCancelled))}
    return asked.union(timer.subject for timer in given.timers)
