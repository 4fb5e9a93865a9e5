"""What the records of a batch make of messages, and of what is known of people. Pure until `save`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime

from services.mailer import outcomes, store
from services.mailer.consent import Decision, destination, merge, normalise
from services.mailer.outcomes import Ended
from services.mailer.store import Changes, Message, Person
from services.mailer.turn import RELEASE
from shared.contracts import streams
from shared.contracts.customers import Activation, ConsentDecision
from shared.contracts.messages import (
    EMAIL,
    PUSH,
    SMS,
    WEBHOOK,
    ConsentChanged,
    MessageCancelled,
    MessageRecord,
    MessageRequested,
    PromotionPaused,
)
from shared.database.clauses import Clause
from shared.processing.playbooks import name_in_force
from shared.processing.port import Connection, Outputs, Timer, Writes

_NEVER = datetime.min.replace(tzinfo=UTC)


class MailerBatch:
    """One batch of one partition (`shared.processing.port.Batch`).

    `paused` says which journeys are, under each playbook that comes into force in it. `look` is told on
    which channels something may be due."""

    def __init__(
        self,
        partition: int,
        memo: bytes,
        paused: Mapping[str, Collection[str]],
        messages: dict[str, Message],
        people: dict[str, Person],
        look: Callable[[Collection[str]], None],
    ) -> None:
        self.partition = partition
        self._memo = memo
        """The content hash of the playbook in force."""
        self._paused = paused
        self._messages = messages
        self._people = people
        self._look = look
        self._new: dict[str, Message] = {}
        self._as_of = _NEVER
        """When the last of the new ones came."""
        self._changed: dict[str, Message] = {}
        self._met: dict[str, Person] = {}
        self._lifted: dict[str, datetime] = {}
        """For whom a pause was lifted, and when."""
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
        elif isinstance(message, PromotionPaused):
            self._pause(message)
        elif isinstance(message, Activation):
            name = name_in_force(message.playbook, message.paused)
            self._activated.append((self._paused[name], out.as_of))
            self._memo = name.encode()

    def fire(self, timer: Timer, out: Outputs) -> None:
        """The hold of a message is over, or its time to be tried again has come."""
        message = self._messages.get(timer.subject)
        if timer.kind == RELEASE and message is not None and message.status == "held":
            message.status, message.due = "requested", timer.due
            self._changed[message.id] = message

    def nothing_to_save(self) -> bool:
        return not (self._new or self._changed or self._activated or self._met or self._lifted or self._addresses)

    def changes(self) -> Changes:
        """All that the batch has to write."""
        return Changes(
            new=list(self._new.values()),
            changed=[message for message in self._changed.values() if message.id not in self._new],
            activated=self._activated,
            lifted=self._lifted,
            people=self._met,
            addresses=self._addresses,
            consent=self._consent,
            as_of=self._as_of,
        )

    def memo(self) -> bytes:
        return self._memo

    def look(self) -> None:
        """Where something may be due now, whoever sends is told."""
        if self._activated or self._lifted:
            self._look((EMAIL, WEBHOOK, SMS, PUSH))
        elif self._new or self._changed:
            self._look({message.channel for some in (self._new, self._changed) for message in some.values()})

    def _requested(self, request: MessageRequested, out: Outputs) -> None:
        if request.id in self._messages:
            return  # asked for before: one cause, one message
        self._as_of = out.as_of
        self._meet(request.customer, request.address, ())
        channel = request.channel
        if channel in (SMS, PUSH):
            self._meet_at(request)
        message = Message(request.id, request.customer, "requested", request.due, channel=channel, request=request)
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

    def _pause(self, pause: PromotionPaused) -> None:
        """The longest pause stands, until one is lifted."""
        person = self._people.setdefault(pause.customer, Person())
        self._met[pause.customer] = person
        if pause.until <= pause.at:
            person.paused_until = None
            self._lifted[pause.customer] = pause.at
        elif person.paused_until is None or person.paused_until < pause.until:
            person.paused_until = pause.until

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

    def _meet_at(self, request: MessageRequested) -> None:
        """Take down the number or the device that a message goes to. What the customer decided holds there, too."""
        address, _ = destination(request, None)
        if address is not None:
            self._addresses.add(address)
            if decisions := self._people[request.customer].decisions:
                self._consent.setdefault(address, []).extend(decisions.values())


def _decision(decision: ConsentDecision) -> Decision:
    return Decision(decision.topic, decision.subscribed, decision.decided_at.astimezone(UTC), decision.source)


def save(batches: Sequence[MailerBatch]) -> Writes:
    """Every change of these batches, each of another partition."""
    changes = {batch.partition: batch.changes() for batch in batches}

    async def work(connection: Connection) -> Sequence[Clause]:
        last = await store.write(connection, changes)
        for batch in batches:
            batch.look()
        return last

    return Writes(store.written(changes), work)
