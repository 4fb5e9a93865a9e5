"""The mailer's shell around its records: what journeys asks for, takes back, or knows of a person becomes rows.

Nothing is sent here. A message that is due is left in `requested`, and `sending.py` hands it over beside the records.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from services.mailer import outcomes, store
from services.mailer.consent import Decision, merge, normalise
from services.mailer.outcomes import Ended
from services.mailer.sending import Sending
from services.mailer.store import Message, Person
from services.mailer.turn import RELEASE
from shared.contracts import streams
from shared.contracts.customers import Activation, ConsentDecision
from shared.contracts.messages import VERSION, ConsentChanged, MessageCancelled, MessageRecord, MessageRequested
from shared.processing.playbooks import Shelf
from shared.processing.port import Connection, Lane, Outputs, Timer
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
            message.customer for message in messages if isinstance(message, (MessageRequested, ConsentChanged))
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


class MailerBatch:
    """One batch of one partition (`shared.processing.port.Batch`).

    `paused` says which journeys are, under each playbook that comes into force in it. `look` is told that something may
    be due."""

    def __init__(
        self,
        partition: int,
        memo: bytes,
        paused: Mapping[str, Collection[str]],
        messages: dict[str, Message],
        people: dict[str, Person],
        look: Callable[[], None],
    ) -> None:
        self._partition = partition
        self._memo = memo
        self._paused = paused
        self._messages = messages
        self._people = people
        self._look = look
        self._new: dict[str, Message] = {}
        self._as_of = datetime.min.replace(tzinfo=UTC)
        """When the last of the new ones came."""
        self._changed: dict[str, Message] = {}
        self._met: dict[str, Person] = {}
        self._consent: dict[str, list[Decision]] = {}
        self._addresses: set[str] = set()
        self._activated: list[tuple[Collection[str], datetime]] = []
        """When a playbook came into force, and which journeys it pauses."""

    def handle(self, message: MessageRecord, out: Outputs) -> None:
        if isinstance(message, MessageRequested):
            self._requested(message, out)
        elif isinstance(message, MessageCancelled):
            self._cancelled(message, out)
        elif isinstance(message, ConsentChanged):
            self._meet(message.customer, message.address, [_decision(decision) for decision in message.decisions])
        elif isinstance(message, Activation):
            self._activated.append((self._paused[message.playbook], out.as_of))
            self._memo = message.playbook.encode()

    def fire(self, timer: Timer, out: Outputs) -> None:
        """The hold of a message is over, or its time to be tried again has come."""
        message = self._messages.get(timer.subject)
        if timer.kind == RELEASE and message is not None and message.status == "held":
            message.status, message.due = "requested", timer.due
            self._changed[message.id] = message

    def nothing_to_save(self) -> bool:
        return not (self._new or self._changed or self._activated or self._met or self._addresses)

    async def save(self, connection: Connection) -> bytes:
        if self._new:
            await store.insert_messages(connection, self._partition, list(self._new.values()))
            # In small steps, and faster than new ones come.
            await store.forget_messages(connection, self._partition, self._as_of, 2 * len(self._new))
        changed = [message for message in self._changed.values() if message.id not in self._new]
        if changed:
            await store.update_messages(connection, changed)
        for paused, at in self._activated:
            await store.release(connection, self._partition, paused, at)
        if self._met:
            await store.put_people(connection, self._partition, self._met)
        # Rows that other processes write come last, so that their locks are held as briefly as can be.
        if self._addresses:
            await store.make_addresses(connection, self._addresses)
        if self._consent:
            await store.lock_addresses(connection, self._consent)
            await store.write_consent(connection, self._consent)
        if self._new or self._changed or self._activated:
            self._look()
        return self._memo

    def _requested(self, request: MessageRequested, out: Outputs) -> None:
        if request.id in self._messages:
            return  # asked for before: one cause, one message
        self._as_of = out.as_of
        self._meet(request.customer, request.address, ())
        message = Message(request.id, request.customer, "requested", request.due, request=request)
        if request.due > out.as_of:
            message.status, message.reason = "held", "not_due"
            out.set_timer(RELEASE, request.id, request.due)
        self._messages[request.id] = self._new[request.id] = message

    def _cancelled(self, cancellation: MessageCancelled, out: Outputs) -> None:
        message = self._messages.get(cancellation.id)
        if message is None or message.ended_at is not None:
            return
        if message.status == "sending":
            # Its hand-over has begun and may succeed; if it does not, it is not tried again.
            message.cancelled = cancellation.reason
        else:
            message.status, message.reason, message.due = "skipped", cancellation.reason, out.as_of
            message.ended_at = out.as_of
            out.set_timer(RELEASE, message.id, None)
            ended = Ended("skipped", cancellation.reason)
            out.emit(
                streams.EVENTS, message.customer, outcomes.event(message.asked, ended, message.due, message.ended_at)
            )
        self._changed[message.id] = message

    def _meet(self, customer: str, given: str | None, decisions: Sequence[Decision]) -> None:
        """Take down a customer's address and decisions. What was decided follows the customer to a new address."""
        person = self._people.setdefault(customer, Person())
        given = given.replace("\0", "") if given else None
        merged = merge(person.decisions, decisions)
        address, moved = normalise(given), given != person.address
        if not moved and merged == person.decisions:
            return
        news = merged.values() if moved else decisions
        person.address, person.decisions = given, merged
        self._met[customer] = person
        if address is not None:
            self._addresses.add(address)
            if merged:
                self._consent.setdefault(address, []).extend(news)


def _decision(decision: ConsentDecision) -> Decision:
    return Decision(decision.topic, decision.subscribed, decision.decided_at.astimezone(UTC), decision.source)
