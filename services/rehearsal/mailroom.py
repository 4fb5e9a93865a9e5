"""The mailer in memory: its rows as dictionaries, and a mail server that answers at once."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from services.mailer.batch import MailerBatch
from services.mailer.composing import call
from services.mailer.consent import Decision, destination, merge
from services.mailer.outcomes import NO_SUCH_ADDRESS
from services.mailer.policy import NO_PLAYBOOK, PAUSED
from services.mailer.rendering import Rendered
from services.mailer.store import Candidate, Change, Changes, Message, Person
from services.mailer.transport import Accepted, Mail, Receipt, Rejected
from services.mailer.turn import Compose, Known, Means, Turn
from services.rehearsal.witness import End, Hold, Witness
from shared.contracts.messages import PUSH, SMS, WEBHOOK, MessageRecord, MessageRequested
from shared.language.playbook import Playbook
from shared.processing.port import Outputs, Timer

Answer = Callable[[MessageRequested, datetime], Receipt]
"""What the mail server says to a message at a time."""

_RETRY_BASE = timedelta(minutes=1)
_MOST_COUNTED = 1_000
"""Mails to one customer that caps may count: more than any cap lets through."""
_UNWRITTEN = Rendered("", "", "", (), "", "")


def accepted(request: MessageRequested, now: datetime) -> Receipt:
    return Accepted("250 rehearsed")


def unwritten(playbook: Playbook, request: MessageRequested, now: datetime) -> Mail:
    """A mail without words, where nobody is to read it: making them takes most of the time."""
    return Mail(request, "", request.address or "", b"", _UNWRITTEN, {})


class Mailroom:
    """What `services.mailer` keeps in tables, and what it does beside its records."""

    def __init__(self, playbooks: Mapping[str, Playbook], compose: Compose, answer: Answer, witness: Witness) -> None:
        self._playbooks = playbooks
        self._answer = answer
        self._witness = witness

        def made(playbook: Playbook, request: MessageRequested, now: datetime) -> Mail:
            return call(request) if request.channel == WEBHOOK else compose(playbook, request, now)

        self._means = Means(made, lambda: "rehearsed", _RETRY_BASE, timedelta(0))
        self._memo = b""
        self._paused_by: dict[str, Collection[str]] = {}
        self._messages: dict[str, Message] = {}
        """Those that have not ended."""
        self._attempts: dict[str, int] = {}
        self._people: dict[str, Person] = {}
        self._consent: dict[str, dict[str, Decision]] = {}
        self._suppressed: dict[str, str] = {}
        self._counted: dict[tuple[str, str], list[datetime]] = {}
        self._requested: dict[str, Message] = {}

    @property
    def due(self) -> bool:
        """Whether something is to be decided."""
        return bool(self._requested)

    def take(self, record: MessageRecord, out: Outputs) -> None:
        batch = self._batch()
        batch.handle(record, out)
        self._keep(batch.changes(), out.as_of)
        self._memo = batch.memo()

    def fire(self, timer: Timer, out: Outputs) -> None:
        batch = self._batch()
        batch.fire(timer, out)
        self._keep(batch.changes(), out.as_of)

    def decide(self, out: Outputs) -> None:
        """All that is due, and hand over what may go."""
        turn = self._decided(self._requested.values(), out)
        self._requested.clear()
        now = turn.now
        undelivered = len(turn.changes)
        for message, error in turn.defects:
            self._witness.set_aside(message, "not_made", f"{type(error).__name__}: {error}", now)
        mails: dict[str, Mail] = {}
        for hand, mail in turn.begun:
            mails[hand.id] = mail
            receipt = self._answer(hand.request, now)
            if isinstance(receipt, Rejected) and receipt.suppress:
                self._suppressed[hand.address] = NO_SUCH_ADDRESS
            turn.conclude(hand, receipt, "", self._means.retry_base)
        for change in turn.changes[:undelivered]:
            if change.status != "sending":
                self._change(change, None, now)
        for change in turn.changes[undelivered:]:
            self._change(change, mails[change.id], now)

    def _decided(self, messages: Iterable[Message], out: Outputs) -> Turn:
        """What becomes of these messages now, in the order in which they are due."""
        due = sorted(messages, key=lambda one: (one.due, -one.asked.priority, one.id))
        candidates = [self._candidate(message) for message in due]
        turn = Turn(out.as_of, out)
        known = self._known(candidates, self._playbooks.get(self._memo.decode()), turn.now)
        turn.decide(candidates, known, self._means, len(candidates))
        return turn

    def _batch(self) -> MailerBatch:
        return MailerBatch(0, self._memo, self._paused(), self._messages, self._people, lambda channels: None)

    def _paused(self) -> Mapping[str, Collection[str]]:
        """The journeys that each playbook pauses."""
        if len(self._playbooks) != len(self._paused_by):
            for name in self._playbooks.keys() - self._paused_by.keys():
                self._paused_by[name] = self._playbooks[name].paused
        return self._paused_by

    def _keep(self, changes: Changes, at: datetime) -> None:
        for message in changes.new:
            self._witness.asked(message.asked, at)
            if message.status == "held":
                self._witness.held(Hold(message.asked, message.reason, message.due), at)
        for message in (*changes.new, *changes.changed):
            if message.ended_at is not None:
                self._end(message, message.due, "", None, at)
            elif message.status == "requested":
                self._requested[message.id] = message
        for paused, since in changes.activated:
            for message in self._held(NO_PLAYBOOK, PAUSED):
                if message.reason == NO_PLAYBOOK or message.asked.journey not in paused:
                    self._release(message, since)
        if changes.lifted:
            for message in self._held(PAUSED):
                if message.customer in changes.lifted:
                    self._release(message, changes.lifted[message.customer])
        for address, news in changes.consent.items():
            self._consent[address] = merge(self._consent.get(address, {}), news)

    def _held(self, *reasons: str) -> list[Message]:
        return [one for one in self._messages.values() if one.status == "held" and one.reason in reasons]

    def _release(self, message: Message, at: datetime) -> None:
        message.status, message.due = "requested", min(message.due, at)
        self._requested[message.id] = message

    def _candidate(self, message: Message) -> Candidate:
        person = self._people.get(message.customer) or Person()
        attempts = self._attempts.get(message.id, 0)
        said = person.decisions if message.channel in (SMS, PUSH) else None
        return Candidate(message.id, message.due, attempts, person.address, message.asked, person.paused_until, said)

    def _known(self, candidates: Sequence[Candidate], playbook: Playbook | None, now: datetime) -> Known:
        people = [candidate for candidate in candidates if candidate.request.channel != WEBHOOK]
        addresses = {destination(candidate.request, candidate.address)[0] for candidate in people} - {None}
        counted: dict[tuple[str, str], list[datetime]] = {}
        if playbook is not None and playbook.brand.caps:
            oldest = now - max(cap.window for cap in playbook.brand.caps)
            for candidate in people:
                customer = candidate.request.customer, candidate.request.channel
                if customer in self._counted:
                    kept = self._counted[customer] = [at for at in self._counted[customer] if at > oldest]
                    counted[customer] = list(kept)
        return Known(
            playbook,
            {address: self._suppressed.get(address, "") for address in addresses if address},
            {address: self._consent.get(address, {}) for address in addresses if address},
            counted,
        )

    def _change(self, change: Change, mail: Mail | None, at: datetime) -> None:
        message = self._messages[change.id]
        message.status, message.due, message.reason = change.status, change.due, change.reason
        message.ended_at = change.ended_at
        if change.ended_at is not None:
            self._end(message, change.due, change.detail, mail, at)
        else:
            self._attempts[change.id] = change.attempts
            self._witness.held(Hold(message.asked, change.reason, change.due), at)
        if change.counted_at is not None:
            counted = self._counted.setdefault((message.customer, message.channel), [])
            insort(counted, change.counted_at)
            del counted[:-_MOST_COUNTED]

    def _end(self, message: Message, decided_for: datetime, detail: str, mail: Mail | None, at: datetime) -> None:
        del self._messages[message.id]
        self._attempts.pop(message.id, None)
        self._requested.pop(message.id, None)
        self._witness.ended(End(message.asked, message.status, message.reason, detail, decided_for, mail), at)
