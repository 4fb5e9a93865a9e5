"""What records and timers make of the customers in a batch: which enrollments each concerns, and what comes of it.

Most records concern none: that is seen from the names of triggers and from which customers have a row, before
anything is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from services.journeys import engine, outgoing, store, tasks
from services.journeys.attribution import MOST_REMEMBERED, Reached, attribute
from services.journeys.commands import (
    BeginAgain,
    CancelMessage,
    Command,
    OpenTask,
    Passed,
    PausePromotion,
    ReportEvent,
    SendMessage,
)
from services.journeys.consent import declined
from services.journeys.coupons import Stock
from services.journeys.engine import Course, Updated, Woken
from services.journeys.enrollment import Enrollment, Entry, Happening, Left, key_text
from services.journeys.memo import Memo, Moving, encode_memo
from services.journeys.moving import take_along
from services.journeys.noted import Noted
from services.journeys.person import Person
from services.journeys.store import Changes
from services.journeys.triggers import Declined, Triggers, admit, enters_again, entries, forgotten_at, left_of
from shared.contracts import streams
from shared.contracts.customers import Activation, Customer, CustomerRecord, CustomerUpdated, DateReached, Invited, Tick
from shared.contracts.events import EMAIL_SENT, MAILER_SOURCE, PUSH_SENT, SMS_SENT, TASK_OPENED, Event
from shared.contracts.messages import VERSION, ConsentChanged, MessageCancelled, PromotionPaused
from shared.database.clauses import Clause
from shared.language.playbook import Journey, Playbook
from shared.processing.playbooks import hash_of, name_in_force
from shared.processing.port import Connection, Outputs, Timer, Writes

WAKE = "wake"
"""The one kind of timer: a customer is woken when the earliest of their enrollments is due."""

_SILENCE = timedelta(seconds=1)
_SENT = frozenset({EMAIL_SENT, SMS_SENT, PUSH_SENT})


class _About(msgspec.Struct):
    """What is read of an event about a message."""

    journey: str = ""


_decode_about = msgspec.json.Decoder(_About).decode


class JourneysBatch:
    """One batch of one partition (`shared.processing.port.Batch`). `people` are those whom a journey knows."""

    def __init__(
        self,
        partition: int,
        memo: Memo,
        playbooks: dict[str, Playbook],
        triggers: dict[str, Triggers],
        people: dict[str, Person],
        stock: Stock | None = None,
        noted: Noted | None = None,
    ) -> None:
        self.partition = partition
        self._memo = memo
        self._told = memo.told
        # What enrollments remember is the hash, under whatever name the playbook was in force.
        self._playbooks = playbooks
        for playbook in list(playbooks.values()):
            playbooks.setdefault(playbook.hash, playbook)
        self._all_triggers = triggers
        self._in_force = playbooks.get(memo.playbook)
        self._triggers = triggers.get(memo.playbook)
        self._people = people
        self.stock = stock or Stock()
        self._courses: dict[tuple[str, str], Course | None] = {}
        self.noted = noted if noted is not None else Noted()
        self._heard: frozenset[str] = frozenset()

    def versions_missing(self) -> set[str]:
        """The playbooks that hold the structure which some enrollment at hand began with."""
        begun = {(one.journey, one.version, one.playbook) for who in self._people.values() for one in who.enrollments}
        return {
            began_with
            for name, version, began_with in begun
            for playbook in self._playbooks.values()
            if (journey := playbook.journeys.get(name)) and journey.version != version
        } | self._moved_to()

    def _moved_to(self) -> set[str]:
        """The playbooks of moves that somebody at hand has yet to make, and those that they come from."""
        if not self._memo.moves:
            return set()
        pending = [
            (one.playbook, moving.playbook, hash_of(moving.playbook))
            for person in self._people.values()
            for one in person.enrollments
            if (moving := self._pending_move(one)) is not None
        ]
        return {playbook for three in pending for playbook in three}

    def handle(self, message: CustomerRecord, out: Outputs) -> None:
        match message:
            case CustomerUpdated():
                self._updated(message, out)
            case DateReached():
                self._may_enter(message, self._triggers.of_date(message) if self._triggers else None, out)
            case Invited():
                self._may_enter(message, self._journey(message.journey), out)
            case Activation():
                self._activated(message, out)
            case Tick():
                pass
        # The mailer is told the time by its records; where there is none, a tick says it.
        if self._told is None or out.as_of - self._told >= _SILENCE:
            self._say(out, "", Tick(as_of=out.as_of))

    def reads(self, customer: str, event: Event | None, *, tagged: bool, moved: bool) -> bool:
        """Whether something may come of an event (None: of time) that changes neither consent nor address; `tagged`
        says whether it changes stage or segments, `moved` whether traits or place. For who keeps no records: see
        `see`."""
        if self._in_force is None or self._triggers is None:
            return False
        if (event is not None and event.name in self._heard) or (tagged and self._triggers.tagged):
            return True
        person = self._people.get(customer)
        if person is None or not person.open:
            return False
        return moved or (event is not None and event.source == MAILER_SOURCE) or bool(self._in_force.paused)

    @property
    def heard(self) -> frozenset[str]:
        """The names of events of which `reads` may be true, whatever they change; of others it is only where somebody
        is held up by a pause, or where mailer reports them."""
        return self._heard

    @property
    def pauses(self) -> bool:
        """Whether some journey is paused."""
        return self._in_force is not None and bool(self._in_force.paused)

    def see(self, customer: Customer) -> None:
        """Bring what is known of a customer up to the records that nobody reads."""
        person = self._people.get(customer.key)
        if person is not None and person.open:
            person.seen = customer

    def fire(self, timer: Timer, out: Outputs) -> None:
        person = self._people.get(timer.subject)
        if person is None or self._in_force is None:
            return
        person.read()
        person.due = None
        if person.enrollments:
            self._signal(person, Woken(person.latest), timer.due, out)
        person.changed = person.unsettled = True
        self._settle(person, timer.due, out)

    def changes(self) -> Changes:
        """All that the batch has to write."""
        people = [person for person in self._people.values() if person.changed or person.seen is not None]
        return self.noted.changes(people, self.stock)

    def memo(self) -> bytes:
        return encode_memo(msgspec.structs.replace(self._memo, told=self._told))

    def nothing_to_save(self) -> bool:
        if self._told != self._memo.told or not self.noted.nothing():
            return False
        return not any(person.changed or person.seen is not None for person in self._people.values())

    def _updated(self, record: CustomerUpdated, out: Outputs) -> None:
        customer = record.customer
        if record.consent or record.address_before is not None:
            changed = ConsentChanged(
                as_of=out.as_of, customer=customer.key, address=customer.address, decisions=record.consent
            )
            self._say(out, customer.key, changed)
        if self._in_force is None or self._triggers is None:
            return
        self._count_mail(record)
        person = self._people.get(customer.key)
        touched = self._triggers.touched_by(record)
        if not touched and (person is None or not person.open):
            return
        now = out.as_of
        happening = Happening(record.event) if record.event is not None else None
        if person is not None and person.open:
            lost = declined(record, self._in_force) if record.consent else frozenset()
            self._signal(person, Updated(customer, happening, lost), now, out)
        for journey in touched:
            self._consider(journey, record, happening, out)
        self._settle(self._people.get(customer.key), now, out)

    def _count_mail(self, record: CustomerUpdated) -> None:
        """A message has gone out: counted for its journey, whatever has become of the enrollment meanwhile."""
        event = record.event
        if event is not None and event.name in _SENT and event.source == MAILER_SOURCE:
            journey = _decode_about(event.properties).journey
            if journey:
                self.noted.mail(journey)

    def _may_enter(self, record: DateReached | Invited, journey: Journey | None, out: Outputs) -> None:
        if self._in_force is None:
            return
        person = self._people.get(record.customer.key)
        if person is not None and person.open:
            self._signal(person, Updated(record.customer, None, frozenset()), out.as_of, out)
        if journey is not None:
            self._consider(journey, record, None, out)
        self._settle(self._people.get(record.customer.key), out.as_of, out)

    def _activated(self, record: Activation, out: Outputs) -> None:
        name_now = name_in_force(record.playbook, record.paused)
        before, after = self._in_force, self._playbooks[name_now]
        resumed = {name: at for name, at in self._memo.resumed.items() if name in after.journeys}
        for name, journey in before.journeys.items() if before is not None else ():
            if journey.status == "paused" and name in after.journeys and after.journeys[name].status != "paused":
                resumed[name] = out.as_of
        gone = dict.fromkeys(before.journeys if before is not None else (), out.as_of)
        removed = {name: at for name, at in (gone | self._memo.removed).items() if name not in after.journeys}
        moves = {name: moving for name, moving in self._memo.moves.items() if name in after.journeys}
        number = self._memo.moved + len(record.moves)
        moves |= {name: Moving(out.as_of, name_now, number) for name in record.moves if name in after.journeys}
        self._in_force, self._triggers = after, self._all_triggers[name_now]
        # Who is inside may have begun under an older one.
        self._heard = frozenset[str]().union(*(triggers.heard for triggers in self._all_triggers.values()))
        self._courses.clear()
        self._memo = Memo(name_now, self._told, resumed, moves, number, removed)
        self.noted.switched = True
        version = 2 if record.paused else 1
        forwarded = Activation(as_of=out.as_of, playbook=record.playbook, paused=record.paused, v=version)
        self._say(out, "", forwarded)

    def _signal(self, person: Person, signal: engine.Signal, now: datetime, out: Outputs) -> None:
        """Let each of a customer's enrollments have the signal, in the order in which they began."""
        # Read only where it is needed: a record brings the customer anew.
        moves = bool(self._memo.moves)
        before = signal.customer
        for one in person.enrollments:
            if one.status == "parked" or (moves and self._pending_move(one) is not None):
                before = person.latest
        if isinstance(signal, Updated):
            person.seen = signal.customer
        reached: list[Reached] = []
        for index, enrollment in enumerate(list(person.enrollments)):
            along, commands = self._taken_along(enrollment, before) if moves else (enrollment, [])
            moved, course = along, self._course(along)
            if course is None:
                # As of when its journey was removed, whoever comes first.
                moved, more = engine.leave(along, engine.REMOVED, self._memo.removed.get(along.journey, now))
                commands = [*commands, *more]
            else:
                if along.status == "parked" and course.status != "paused":
                    # As of when the journey went on, whoever comes first: the sweep's timer or this record.
                    since = along.since or now
                    resumed = max(self._memo.resumed.get(along.journey, since), since)
                    moved, more = engine.advance(course, along, Woken(before), resumed)
                    commands = [*commands, *more]
                if moved is not enrollment:
                    moved, more = self._caught_up(course, moved, before, now)
                    commands = [*commands, *more]
                if moved.status != "ended" and (isinstance(signal, Updated) or moved is along):
                    moved, more = engine.advance(course, moved, signal, now)
                    commands = [*commands, *more]
            if moved is not enrollment:
                person.enrollments[index] = moved
                self._move(person, enrollment, moved, commands, out.as_of)
                self._carry_out(person, moved, commands, out)
                if course is not None and moved.goal_at is not None and enrollment.goal_at is None:
                    reached.append(Reached(course, moved))
        if reached and isinstance(signal, Updated) and signal.happening is not None:
            self._attribute(person, reached, signal.happening, now)

    def _attribute(self, person: Person, reached: Sequence[Reached], happening: Happening, now: datetime) -> None:
        """Give an order's value to one of the enrollments whose goal it has reached."""
        found = attribute(reached, person.latest, happening, person.credited, now)
        if found is None:
            return
        enrollment, credited = found
        place = next(place for place, one in enumerate(person.enrollments) if one.id == enrollment.id)
        before, person.enrollments[place] = person.enrollments[place], enrollment
        person.credited = [*person.credited, credited][-MOST_REMEMBERED:]
        self._move(person, before, enrollment, (), now)
        assert enrollment.attributed is not None
        self.noted.attribute(enrollment.journey, enrollment.currency, enrollment.attributed)

    def _caught_up(self, course: Course, enrollment: Enrollment, customer: Customer, now: datetime) -> engine.Moved:
        """What time has brought since the moment that an enrollment was left behind at: no timer was set for it."""
        commands: list[Command] = []
        while enrollment.due is not None and enrollment.due <= now:
            moved, more = engine.advance(course, enrollment, Woken(customer), enrollment.due)
            if moved is enrollment:
                break
            enrollment, commands = moved, [*commands, *more]
        return enrollment, commands

    def _pending_move(self, enrollment: Enrollment) -> Moving | None:
        """The move that an enrollment has yet to make: nothing has passed by it since."""
        moving = self._memo.moves.get(enrollment.journey)
        return moving if moving is not None and enrollment.inside and enrollment.moves < moving.number else None

    def _taken_along(self, enrollment: Enrollment, customer: Customer) -> engine.Moved:
        """As of when the move was asked for, whoever comes first: the sweep's timer or a record."""
        moving = self._pending_move(enrollment)
        if moving is None:
            return enrollment, []
        book = self._playbooks[moving.playbook]
        journey = book.journeys[enrollment.journey]
        if journey.version == enrollment.version:
            return enrollment, []
        own = self._playbooks[enrollment.playbook].journeys[enrollment.journey]
        course = Course(journey, journey.status, book, self.stock)
        moved, commands = take_along(own, course, enrollment, customer, moving.at)
        return msgspec.structs.replace(moved, moves=moving.number), commands

    def _consider(
        self,
        journey: Journey,
        record: CustomerUpdated | DateReached | Invited,
        happening: Happening | None,
        out: Outputs,
    ) -> None:
        """Let the record in, where it may enter."""
        assert self._in_force is not None
        for found in entries(journey, record, happening, self._in_force, out.as_of):
            if isinstance(found, Declined):
                self._decline(journey, record.customer.key, found, out.as_of)
            else:
                self._admit(journey, record.customer, found, out)

    def _admit(self, journey: Journey, customer: Customer, found: Entry, out: Outputs) -> None:
        person = self._people.get(customer.key)
        if person is None:
            person = self._people[customer.key] = Person(customer.key, None)
        person.read()
        key = key_text(found.key)
        inside = person.inside(journey.name, key)
        others = frozenset(one.journey for one in person.enrollments if one.inside)
        last = person.last_of(journey.name, key)
        admission = admit(journey, found, inside, last, others, len(person.enrollments))
        if isinstance(admission, Declined):
            self._decline(journey, customer.key, admission, out.as_of, key)
            return
        person.seen = customer
        if inside is not None:
            if admission == "restart":
                course = self._course(inside)
                assert course is not None
                again = enters_again(journey, inside.entry.at, found.at)
                moved, commands = engine.restart(course, inside, customer, found, again)
            else:
                moved, commands = engine.leave(inside, engine.RESTARTED, out.as_of)
            person.enrollments[person.enrollments.index(inside)] = moved
            self._move(person, inside, moved, commands, out.as_of)
            self._carry_out(person, moved, commands, out)
        if admission != "restart":
            self._begin(person, journey, found, out, inside)

    def _decline(self, journey: Journey, customer: str, why: Declined, now: datetime, key: str = "") -> None:
        assert self._in_force is not None
        self.noted.decline(customer, journey.name, self._in_force.hash, why, now, key)

    def _begin(
        self, person: Person, journey: Journey, entry: Entry, out: Outputs, before: Enrollment | None = None
    ) -> None:
        assert self._in_force is not None
        course = Course(journey, journey.status, self._in_force, self.stock)
        enrollment, commands = engine.begin(course, person.latest, entry, before)
        if (moving := self._memo.moves.get(journey.name)) is not None:
            enrollment = msgspec.structs.replace(enrollment, moves=moving.number)
        person.enrollments.append(enrollment)
        self._move(person, None, enrollment, commands, out.as_of)
        self._carry_out(person, enrollment, commands, out)

    def _carry_out(self, person: Person, enrollment: Enrollment, commands: Sequence[Command], out: Outputs) -> None:
        for command in commands:
            match command:
                case SendMessage():
                    self._say(out, person.key, outgoing.requested(command, enrollment, person.latest, out.as_of))
                case CancelMessage(id=message, reason=reason):
                    cancelled = MessageCancelled(as_of=out.as_of, id=message, customer=person.key, reason=reason)
                    self._say(out, person.key, cancelled)
                case ReportEvent():
                    out.emit(streams.EVENTS, person.key, outgoing.reported(command, person.key, out.as_of))
                case OpenTask():
                    task = outgoing.opened(command, enrollment, person.key)
                    self.noted.tasks.append(task)
                    out.emit(streams.EVENTS, person.key, tasks.event(TASK_OPENED, task, out.as_of, command.hops))
                case PausePromotion(at=at, until=until):
                    paused = PromotionPaused(as_of=out.as_of, customer=person.key, at=at, until=until, v=VERSION)
                    self._say(out, person.key, paused)
                case Passed():
                    pass  # told with the move
                case BeginAgain(entry=entry):
                    journey = self._journey(enrollment.journey)
                    if journey is not None and journey.status != "paused":
                        self._begin(person, journey, entry, out, enrollment)

    def _move(
        self,
        person: Person,
        before: Enrollment | None,
        after: Enrollment,
        commands: Sequence[Command],
        now: datetime,
    ) -> None:
        """Note a change for the tables and for the story, and what is remembered of an enrollment that has left."""
        self.noted.move(person.key, before, after, commands, now)
        person.changed = person.unsettled = True
        if not after.inside and (before is None or before.inside):
            journey = self._journey(after.journey)
            if journey is None or journey.again != "always":
                person.remember(left_of(journey, after))

    def _settle(self, person: Person | None, now: datetime, out: Outputs) -> None:
        """Drop what is over, and set the customer's timer."""
        if person is None or not person.unsettled:
            return
        person.unsettled = False
        person.enrollments = [one for one in person.enrollments if one.status != "ended"]
        if person.left:
            person.left = [left for left in person.left if self._matters(left, now)]
        if person.credited:
            person.credited = [credited for credited in person.credited if credited.until > now]
        person.open = bool(person.enrollments)
        due = self._due(person)
        if due != person.due:
            out.set_timer(WAKE, person.key, due)
            person.due = due

    def _matters(self, left: Left, now: datetime) -> bool:
        until = forgotten_at(self._journey(left.journey), left)
        return until is None or until > now

    def _due(self, person: Person) -> datetime | None:
        """When time is the next to do something about this customer."""
        earliest: datetime | None = None
        for enrollment in person.enrollments:
            if enrollment.due is not None and (earliest is None or enrollment.due < earliest):
                earliest = enrollment.due
        for left in person.left:
            forgotten = forgotten_at(self._journey(left.journey), left)
            if forgotten is not None and (earliest is None or forgotten < earliest):
                earliest = forgotten
        for credited in person.credited:
            if earliest is None or credited.until < earliest:
                earliest = credited.until
        return earliest

    def _journey(self, name: str) -> Journey | None:
        return self._in_force.journeys.get(name) if self._in_force is not None else None

    def _course(self, enrollment: Enrollment) -> Course | None:
        """The version that an enrollment began with, under the playbook in force. None where the journey is gone."""
        version = (enrollment.journey, enrollment.version)
        if version not in self._courses:
            self._courses[version] = self._course_under_way(enrollment)
        return self._courses[version]

    def _course_under_way(self, enrollment: Enrollment) -> Course | None:
        journey = self._journey(enrollment.journey)
        if journey is None or self._in_force is None:
            return None
        own = journey
        if journey.version != enrollment.version:
            own = self._playbooks[enrollment.playbook].journeys[enrollment.journey]
        return Course(own, journey.status, self._in_force, self.stock)

    def _say(self, out: Outputs, key: str, message: msgspec.Struct) -> None:
        if key:
            out.emit(streams.MESSAGES, key, message)
        else:
            out.emit_here(streams.MESSAGES, key, message)
        self._told = out.as_of if self._told is None else max(self._told, out.as_of)


def save(batches: Sequence[JourneysBatch]) -> Writes:
    """Every change of these batches, each of another partition."""
    changes = {batch.partition: batch.changes() for batch in batches}
    for batch in batches:
        batch.noted.count(batch.stock)
    switched = [partition for partition, one in changes.items() if one.switched]

    async def switch(connection: Connection) -> Sequence[Clause]:
        # Not with what is changed: that may count where nothing was left.
        return [store.empty_tallies_dropped(switched)]

    return Writes(store.changed(changes), switch if switched else None)
