"""The whole road in one place: segmenter, journeys and mailer as they run live, with dictionaries for tables, and with
time that passes as fast as it is told.

One customer's events come before the next event of anybody, with all that follows from them; so what is rehearsed does
not depend on how a log would have cut it into batches. Nothing waits: a mail that goes out has gone out at once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from services.journeys.batch import WAKE, JourneysBatch
from services.journeys.memo import Memo as JourneysMemo
from services.journeys.noted import MovesAlone, Noted
from services.journeys.person import Person
from services.journeys.triggers import Triggers
from services.mailer.turn import Compose
from services.rehearsal.coupons import WholePools
from services.rehearsal.mailroom import Answer, Mailroom, accepted, unwritten
from services.rehearsal.timers import Timers
from services.rehearsal.witness import Witness
from services.segmenter import fingerprints, history, percentiles
from services.segmenter.batch import NO_MEMO, Memo, SegmenterBatch, decode_memo
from services.segmenter.history import Row
from services.segmenter.profile import Change, Profile, snapshot
from services.segmenter.rules import (
    NO_RULES,
    NOTHING_DEFINED,
    Definition,
    Rules,
    as_journeys_read,
    compile_rules,
    feeding,
    in_force,
    wanted,
)
from services.segmenter.store import Seen
from services.segmenter.tags import tags_at
from shared.contracts.customers import CustomerRecord, CustomerUpdated, DateReached, Tick
from shared.contracts.events import Activation, CutOffs, Event
from shared.contracts.messages import MessageRecord
from shared.contracts.streams import CUSTOMERS, EVENTS, MESSAGES
from shared.language.playbook import Playbook

_BATCH = 1_000
_BEFORE_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_MAILER, _JOURNEYS, _SEGMENTER = 0, 1, 2
"""Places on the road, from its end."""
_NIGHT = "night"
"""Kind of the timer at the next midnight in the shop."""

_decode_event = msgspec.json.Decoder(Event).decode


class _Outputs:
    """Where the commands of one service go (`shared.processing.port.Outputs`)."""

    partition = 0

    def __init__(self, place: int, timers: Timers, queues: Mapping[str, deque[Any]], witness: Witness) -> None:
        self.as_of = _BEFORE_TIME
        self._place = place
        self._timers = timers
        self._queues = queues
        self._witness = witness

    def emit(self, stream: str, key: str, record: msgspec.Struct | bytes) -> None:
        self._queues[stream].append(record)

    def emit_here(self, stream: str, key: str, record: msgspec.Struct | bytes) -> None:
        # Nobody has to be told the time here.
        if type(record) is not Tick:
            self._queues[stream].append(record)

    def emit_everywhere(self, stream: str, record: msgspec.Struct | bytes) -> None:
        self.emit_here(stream, "", record)

    def set_timer(self, kind: str, subject: str, due: datetime | None) -> None:
        self._timers.set(self._place, kind, subject, due)

    def dead_letter(self, key: str, body: bytes, code: str, message: str) -> None:
        self._witness.set_aside(key, code, message, self.as_of)


class House:
    """A playbook at work. Give it events in the order in which they were received, and let time pass.

    `compose` makes the mails; without it they have no words. `answer` says what the mail server would. With `remembers`
    events are kept, so that another playbook, whose segments count what no earlier one did, can come into force. Where
    what happens is `recorded`, the events say what journeys and mailer reported, and became of messages: then nobody is
    mailed, and nothing that is reported comes back by itself. Without `all_tags` profiles and messages have the stage
    and the segments that a journey asks for, and no others: `tags` has all. `coupons` are those of this house alone.
    Each night customers are ranked by what they have spent, where the playbook asks for that; without `nights` they are
    where `rank` is told so, and where what happens is recorded, each where they are brought up to it.
    """

    def __init__(
        self,
        playbook: Playbook | None,
        begins: datetime,
        *,
        witness: Witness | None = None,
        compose: Compose = unwritten,
        answer: Answer = accepted,
        remembers: bool = False,
        recorded: bool = False,
        all_tags: bool = True,
        coupons: WholePools | None = None,
        nights: bool = True,
    ) -> None:
        self.profiles: dict[str, Profile] = {}
        self.people: dict[str, Person] = {}
        """Those whom a journey knows, as it has seen them last."""
        self.coupons = coupons or WholePools()
        self._witness = witness or Witness()
        self._recorded = recorded
        self._nights = nights and not recorded
        self._past: list[Row] | None = [] if remembers else None
        self._timers = Timers()
        self._events: deque[Event | bytes] = deque()
        self._customers: deque[CustomerRecord] = deque()
        self._messages: deque[MessageRecord] = deque()
        queues: dict[str, deque[Any]] = {EVENTS: self._events, CUSTOMERS: self._customers, MESSAGES: self._messages}
        self._mailer_out, self._journeys_out, self._segmenter_out = (
            _Outputs(place, self._timers, queues, self._witness) for place in (_MAILER, _JOURNEYS, _SEGMENTER)
        )
        self._playbooks: dict[str, Playbook] = {}
        self._triggers: dict[str, Triggers] = {}
        self._rules: dict[str, Rules] = {"": NO_RULES}
        self._definitions: dict[bytes, Definition] = {NOTHING_DEFINED.hash: NOTHING_DEFINED}
        self._tells_all = remembers or type(self._witness).told is not Witness.told
        self._unread: set[str] = set()
        """Customers of whom journeys has not heard all: nobody would have read it."""
        self._all_tags = all_tags or self._tells_all
        self._in_force: Playbook | None = None
        self._rules_in_force = NO_RULES
        self._duplicates = 0
        self._sizes: dict[str, int] = {}
        self._seen: dict[bytes, Seen] = {}
        self._segmenter = self._segmenter_batch(NO_MEMO, {})
        self._left_in_batch = _BATCH
        noted = Noted() if type(self._witness).decided is not Witness.decided else MovesAlone()
        self._journeys = JourneysBatch(
            0, JourneysMemo(), self._playbooks, self._triggers, self.people, self.coupons, noted
        )
        self._mailroom = Mailroom(self._playbooks, compose, answer, self._witness)
        self._set_time(begins)
        if playbook is not None:
            self.activate(playbook)

    @property
    def as_of(self) -> datetime:
        """The time that the road has reached."""
        return self._segmenter_out.as_of

    @property
    def declined(self) -> Mapping[tuple[str, str], int]:
        """Who was not let in, by journey and reason."""
        return self._journeys.noted.declined

    @property
    def duplicates(self) -> int:
        """Events that came again within a day, and counted once."""
        return self._duplicates + self._segmenter.deduplicated

    def next_due(self) -> datetime | None:
        """When time alone will next do something."""
        return self._timers.next()

    def take(self, event: Event) -> None:
        """An event, with all that follows from it at once. What was due before has its turn first."""
        self.run((event,))

    def run(self, events: Iterable[Event]) -> None:
        """Many events, in the order in which they were received."""
        timers, mailroom, people, as_of = self._timers, self._mailroom, self.people, self.as_of
        heard = self._journeys.heard
        quick = not self._tells_all and not self._journeys.pauses
        for event in events:
            at = event.received_at
            if at > as_of:
                as_of = at
                if timers.is_due(at):
                    self.pass_to(at)
            self._left_in_batch -= 1
            if not self._left_in_batch:
                self._set_time(as_of)
                self._next_batch()
            if quick and event.name not in heard and self._segmenter.passes_by(event, as_of):
                if event.key in people:
                    self._unread.add(event.key)
                continue
            # Of what passes by nobody has to know when it did.
            self._set_time(as_of)
            self._segmenter.handle(event, self._segmenter_out)
            if self._customers or self._events:
                self._carry()
            if mailroom.due or timers.is_due(as_of):
                self._settle()
        self._set_time(as_of)

    def pass_to(self, moment: datetime) -> None:
        """Time goes on, with everything that falls due on the way, each at its time."""
        while (due := self._timers.next()) is not None and due <= moment:
            if due > self.as_of:
                self._set_time(due)
            self._settle()
        if moment > self.as_of:
            self._set_time(moment)

    def activate(self, playbook: Playbook, keeps: Collection[str] | None = None) -> None:
        """From now on this playbook is in force, for everybody. `keeps` as in `Activation`, where it is known."""
        memo = decode_memo(self._segmenter.memo()) if self._playbooks else NO_MEMO
        if keeps is None:
            keeps = {one.playbook for person in self.people.values() for one in person.enrollments} - {playbook.hash}
        self._playbooks[playbook.hash] = self._in_force = playbook
        self._triggers[playbook.hash] = Triggers(playbook.journeys)
        activation = Activation(playbook=playbook.hash, received_at=self.as_of, keeps=tuple(sorted(keeps)))
        name = in_force(activation)
        kept = [self._playbooks[hash] for hash in activation.keeps]
        rules = compile_rules(playbook if self._all_tags else as_journeys_read(playbook, kept), kept)
        in_play = [self._rules[memo.playbook], rules]
        self._rules[name] = self._rules_in_force = rules
        self._definitions[rules.definition.hash] = rules.definition
        self._close_batch()
        self._segmenter = self._segmenter_batch(memo, self._rebuilt(in_play))
        self._segmenter.handle(activation, self._segmenter_out)
        self._carry()
        # What the services do beside their records: bring up every profile, and wake what a pause had held.
        for key in sorted(self.profiles):
            self._segmenter.bring_up(key, self._segmenter_out)
        self._carry()
        for key, person in self.people.items():
            if any(one.status == "parked" and one.journey not in playbook.paused for one in person.enrollments):
                self._timers.set(_JOURNEYS, WAKE, key, self.as_of)
        self._close_batch()
        self._segmenter = self._segmenter_batch(decode_memo(self._segmenter.memo()), {})
        if self._nights:
            night = None if rules.spend is None else percentiles.next_night(self.as_of, rules.zone)
            self._timers.set(_SEGMENTER, _NIGHT, "", night)
        self._settle()

    def rank(self, cut_offs: CutOffs) -> None:
        """From now on, who has spent so much is at this percentile, until the next time."""
        self._rank(cut_offs)
        self._settle()

    def bring_up(self, key: str) -> None:
        """A sweep comes by this customer."""
        self._segmenter.bring_up(key, self._segmenter_out)
        self._carry()
        self._settle()

    def tags(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Stage and segments of each customer."""
        if self._all_tags or self._in_force is None:
            yield from ((profile.stage, profile.segments) for profile in self.profiles.values())
            return
        rules = compile_rules(self._in_force)
        for key, profile in self.profiles.items():
            yield tags_at(profile, key, rules, self.as_of)

    def _set_time(self, moment: datetime) -> None:
        self._mailer_out.as_of = self._journeys_out.as_of = self._segmenter_out.as_of = moment

    def _settle(self) -> None:
        """All that is due by now: timers, mails, and what follows from them."""
        now = self.as_of
        while True:
            while (ring := self._timers.pop(now)) is not None:
                if ring.place == _MAILER:
                    self._mailroom.fire(ring.timer, self._mailer_out)
                elif ring.place == _JOURNEYS:
                    self._catch_up(ring.subject)
                    self._journeys.fire(ring.timer, self._journeys_out)
                    self._carry()
                elif ring.kind == _NIGHT:
                    self._rank_all()
                else:
                    self._segmenter.fire(ring.timer, self._segmenter_out)
                    if self._customers:
                        self._carry()
            if not self._mailroom.due:
                return
            self._mailroom.decide(self._mailer_out)
            self._carry()

    def _rank(self, cut_offs: CutOffs) -> None:
        self._segmenter.handle(cut_offs, self._segmenter_out)
        if not self._recorded:
            for key in sorted(self.profiles):
                self._segmenter.bring_up(key, self._segmenter_out)
        self._carry()

    def _rank_all(self) -> None:
        rules, now = self._rules_in_force, self.as_of
        if rules.spend is not None:
            self._timers.set(_SEGMENTER, _NIGHT, "", percentiles.next_night(now, rules.zone))
            spent = Counter(profile.spent for profile in self.profiles.values() if profile.spent is not None)
            self._rank(percentiles.as_record(spent, rules.spend.id, now))

    def _carry(self) -> None:
        """What came out of one service goes into the next, until nothing moves any more."""
        witness, now = self._witness, self.as_of
        while True:
            while self._customers:
                record = self._customers.popleft()
                if isinstance(record, CustomerUpdated | DateReached):
                    self._unread.discard(record.customer.key)
                    witness.told(record, now)
                self._journeys.handle(record, self._journeys_out)
            for customer, decided in self._journeys.noted.take_decided().items():
                for one in decided:
                    witness.decided(customer, one, now)
            for customer, enrollment in self._journeys.noted.take_moved():
                witness.moved(customer, enrollment, now)
            while self._messages:
                said = self._messages.popleft()
                witness.said(said, now)
                if not self._recorded:
                    self._mailroom.take(said, self._mailer_out)
            if not self._events:
                return
            report = self._events.popleft()
            event = _decode_event(report) if isinstance(report, bytes) else report
            witness.reported(event, now)
            if not self._recorded:
                self._segmenter.handle(event, self._segmenter_out)

    def _next_batch(self) -> None:
        """What a batch would have written is let go, so that memory grows with customers and not with events."""
        self._close_batch()
        self._segmenter = self._segmenter_batch(decode_memo(self._segmenter.memo()), {})
        self._left_in_batch = _BATCH
        oldest = self.as_of - fingerprints.WINDOW
        gone = []
        for name, seen in self._seen.items():
            if seen.seen_at >= oldest:
                break
            gone.append(name)
        for name in gone:
            del self._seen[name]

    def _close_batch(self) -> None:
        self._duplicates += self._segmenter.deduplicated
        if self._past is not None:
            self._past += self._segmenter.rows()

    def _segmenter_batch(self, memo: Memo, rebuilt: Mapping[str, Mapping[str, Any]]) -> SegmenterBatch:
        return SegmenterBatch(
            *(0, memo, self._rules, self._definitions, self.profiles, self._sizes, self._seen, rebuilt),
            names=fingerprints.IN_MEMORY,
            reads=None if self._tells_all else self._reads,
        )

    def _reads(self, customer: str, change: Change | None) -> bool:
        """Whether anybody reads this change (None: time moved a stage or a segment). What nobody does is caught up with
        where it matters."""
        if change is None:
            reads = self._journeys.reads(customer, None, tagged=True, moved=False)
        elif change.consent or change.address_before is not None:
            return True
        else:
            tagged = change.stage_before is not None or bool(change.entered or change.left)
            reads = self._journeys.reads(customer, change.event, tagged=tagged, moved=change.moved)
        if not reads and customer in self.people:
            self._unread.add(customer)
        return reads

    def _catch_up(self, key: str) -> None:
        if key in self._unread:
            self._unread.discard(key)
            self._journeys.see(snapshot(self.profiles[key], key, self._rules_in_force))

    def _rebuilt(self, in_play: list[Rules]) -> dict[str, dict[str, Any]]:
        """From the past: the aggregates that customers lack under the rules that they will be brought up to."""
        past: dict[str, list[Row]] = {key: [] for key in self.profiles}
        for row in self._past or ():
            if row.customer in past:
                past[row.customer].append(row)
        rebuilt = {}
        for key, rows in past.items():
            ids = wanted(self._definitions[self.profiles[key].definition], in_play)
            if ids:
                rebuilt[key] = history.rebuild({}, feeding(ids, in_play), sorted(rows, key=lambda row: row[1:4]))
        return rebuilt
