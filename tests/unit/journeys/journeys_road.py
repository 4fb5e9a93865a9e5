"""A stretch of road for the journeys of these tests: the mechanics in memory, a shop that posts, a mailer that answers.

Times are told as durations since Monday 2 March 2026, 12:00 UTC, which is `NOON`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import msgspec

from services.journeys.batch import JourneysBatch
from services.journeys.coupons import Stock
from services.journeys.decisions import Decided, Decision, unpack
from services.journeys.enrollment import Enrollment
from services.journeys.memo import Memo
from services.journeys.person import Person
from services.journeys.store import StoredCustomer, Tally
from services.journeys.tasks import TaskRow
from services.journeys.triggers import Triggers
from services.rehearsal.coupons import WholePools
from shared.contracts.customers import (
    Activation,
    ConsentDecision,
    Customer,
    CustomerRecord,
    CustomerUpdated,
    DateReached,
    Invited,
    Tick,
)
from shared.contracts.events import MAILER_SOURCE, Event
from shared.contracts.messages import ConsentChanged, MessageCancelled, MessageRecord, MessageRequested
from shared.language.analysis import ROOTS
from shared.language.durations import format_duration, parse_duration
from shared.language.expressions import Expression, compile_expression
from shared.language.playbook import (
    Brand,
    CouponPool,
    Email,
    EventMatch,
    EventTrigger,
    Goal,
    Journey,
    Playbook,
    Step,
    Topic,
    Trigger,
)
from shared.processing.agenda import Agenda
from shared.processing.playbooks import hash_of, name_in_force, paused_in
from shared.processing.port import Timer

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def at(text: str | timedelta | datetime) -> datetime:
    """`1h`, `2d`: that long after NOON."""
    if isinstance(text, datetime):
        return text
    return NOON + (parse_duration(text) if isinstance(text, str) else text)


def says(text: str) -> Expression:
    return compile_expression(text, allowed=ROOTS).expression


TOPICS = {
    "cart-reminders": Topic("cart-reminders", "Reminders", "", "promotional", "opt_out"),
    "newsletter": Topic("newsletter", "Newsletter", "", "promotional", "opt_in"),
    "service": Topic("service", "Service", "", "service", "opt_out"),
    "orders": Topic("orders", "Orders", "", "transactional", "opt_out"),
}


def email(step: str, then: str | None = None, *, topic: str = "cart-reminders", **with_: str) -> Email:
    """A message named like its step."""
    given = {name: says(text) for name, text in with_.items()}
    return Email(step, then, step, topic, 50, parse_duration("72h"), given)


def journey(*steps: Step, name: str = "cart", version: str = "v1", **changes: Any) -> Journey:
    """A journey over carts, one enrollment for each, which begins with its first step."""
    values: dict[str, Any] = {
        "title": name,
        "status": "live",
        "trigger": EventTrigger("Cart Updated", None, says("event.cart_id")),
        "condition": None,
        "mode": "restart",
        "again": timedelta(days=14),
        "max_age": timedelta(days=1),
        "goal": Goal(EventMatch("Order Completed", says("event.cart_id == key")), timedelta(days=7), None),
        "exit_on": (EventMatch("Cart Emptied", says("event.cart_id == key")),),
        "topic": "cart-reminders",
        "first": steps[0].id if steps else None,
        "steps": {step.id: step for step in steps},
    }
    return Journey(name=name, version=version, **{**values, **changes})


def on(event: str, **changes: Any) -> dict[str, Any]:
    """A trigger without key, goal or exits, for journeys that are not about carts."""
    return {"trigger": EventTrigger(event, None, None), "goal": None, "exit_on": (), "mode": "single", **changes}


def begins(trigger: Trigger, **changes: Any) -> dict[str, Any]:
    return {"trigger": trigger, "goal": None, "exit_on": (), "mode": "single", **changes}


def playbook(*journeys: Journey, name: str = "playbook", coupons: Sequence[CouponPool] = ()) -> Playbook:
    brand = Brand(
        name="Lamps",
        sender="shop@example.com",
        reply_to=None,
        postal_address="1 Light Street",
        timezone="Europe/Oslo",
        locale="en",
        currency="EUR",
        rates={},
        urls={},
        quiet_hours=None,
        caps=(),
        carts="sent",
    )
    return Playbook(
        hash=name,
        files={},
        brand=brand,
        stages=(),
        segments={},
        topics=TOPICS,
        journeys={journey.name: journey for journey in journeys},
        messages={},
        aggregates={},
        coupons={pool.name: pool for pool in coupons},
    )


class _Outputs:
    """What one batch puts out (`shared.processing.port.Outputs`)."""

    partition = 0

    def __init__(self, as_of: datetime, agenda: Agenda) -> None:
        self.as_of = as_of
        self.agenda = agenda
        self.values: list[bytes] = []
        self.reported: list[bytes] = []

    def emit(self, stream: str, key: str, record: msgspec.Struct | bytes) -> None:
        assert key
        {"messages": self.values, "events": self.reported}[stream].append(msgspec.json.encode(record))

    def emit_here(self, stream: str, key: str, record: msgspec.Struct | bytes) -> None:
        assert (stream, key) == ("messages", "")
        self.values.append(msgspec.json.encode(record))

    def emit_everywhere(self, stream: str, record: msgspec.Struct | bytes) -> None:
        raise NotImplementedError

    def set_timer(self, kind: str, subject: str, due: datetime | None) -> None:
        self.agenda.set(kind, subject, due)

    def dead_letter(self, key: str, body: bytes, code: str, message: str) -> None:
        raise AssertionError(message)


class Road:
    """One partition: its tables, its timers and what came out. `drive` does what `shared.processing.lane` does."""

    def __init__(self, *playbooks: Playbook) -> None:
        self.stock: Stock = WholePools()
        self.playbooks = {book.hash: book for book in playbooks}
        self.triggers = {book.hash: Triggers(book.journeys) for book in playbooks}
        self.memo = b""
        self.as_of = datetime(1970, 1, 1, tzinfo=UTC)
        self.rows: dict[str, StoredCustomer] = {}
        self.timers: dict[tuple[str, str], datetime] = {}
        self.enrollments: dict[str, tuple[str, Enrollment]] = {}
        self.tallies: Counter[Tally] = Counter()
        self.attributed: dict[tuple[str, str], tuple[int, Decimal]] = {}
        self.decided: defaultdict[str, list[Decided]] = defaultdict(list)
        self.tasks: list[TaskRow] = []
        self.values: list[bytes] = []
        self.reported: list[bytes] = []

    def drive(self, records: Sequence[CustomerRecord]) -> None:
        """One batch."""
        batch, agenda, out = self._handled(records)
        changes = batch.changes()
        for row in changes.customers:
            self.rows[row.customer] = row
        for customer in changes.gone:
            del self.rows[customer]
        for customer, enrollment in changes.enrollments:
            self.enrollments[enrollment.id] = (customer, enrollment)
        for enrollment in changes.moved:
            customer, before = self.enrollments[enrollment.id]
            # What the table then says must be what the enrollment is.
            shown = {name: getattr(before, name) for name in ("entry", "ended_at", "reason", "goal_at")}
            assert enrollment == msgspec.structs.replace(enrollment, **shown)
            self.enrollments[enrollment.id] = (customer, enrollment)
        self.tallies.update(changes.tallies)
        for worth in changes.attributed:
            orders, value = self.attributed.get((worth.journey, worth.currency), (0, Decimal(0)))
            self.attributed[worth.journey, worth.currency] = (orders + worth.orders, value + worth.value)
        self.tasks += changes.tasks
        for row_of_decisions in changes.decided:
            self.decided[row_of_decisions.customer] += unpack(row_of_decisions.body)
        for name, due in agenda.changed.items():
            if due is None:
                self.timers.pop(name, None)
            else:
                self.timers[name] = due
        self.memo = batch.memo()
        self.as_of = out.as_of
        self.values += out.values
        self.reported += out.reported

    def saves_nothing(self, records: Sequence[CustomerRecord]) -> bool:
        """Whether nothing would come of a batch of these."""
        batch, _, _ = self._handled(records)
        return batch.nothing_to_save()

    def _handled(self, records: Sequence[CustomerRecord]) -> tuple[JourneysBatch, Agenda, _Outputs]:
        moments = []
        road = self.as_of
        for record in records:
            road = max(road, record.as_of)
            moments.append(road)
        timers = sorted(Timer(due, *name) for name, due in self.timers.items() if due <= road)
        batch = self._load(records, timers)
        agenda = Agenda(timers)
        out = _Outputs(self.as_of, agenda)
        for record, moment in zip(records, moments, strict=True):
            while (timer := agenda.pop(moment)) is not None:
                out.as_of = max(out.as_of, timer.due)
                batch.fire(timer, out)
            out.as_of = max(out.as_of, moment)
            batch.handle(record, out)
        return batch, agenda, out

    def _load(self, records: Sequence[CustomerRecord], timers: Sequence[Timer]) -> JourneysBatch:
        memo = msgspec.msgpack.decode(self.memo, type=Memo) if self.memo else Memo()
        names = {memo.playbook} if memo.playbook else set()
        names |= {name_in_force(one.playbook, one.paused) for one in records if isinstance(one, Activation)}
        loaded = {name: self._book(name) for name in names}
        for name, book in loaded.items():
            self.triggers[name] = Triggers(book.journeys)
        keys = {timer.subject for timer in timers}
        keys |= {
            record.customer.key for record in records if isinstance(record, CustomerUpdated | DateReached | Invited)
        }
        people = {key: Person(key, self.rows[key]) for key in keys if key in self.rows}
        batch = JourneysBatch(0, memo, loaded, self.triggers, people, self.stock)
        for name in batch.versions_missing():
            loaded[name] = self._book(name)
        return batch

    def _book(self, name: str) -> Playbook:
        """As the shelf gives it."""
        return self.playbooks[hash_of(name)].pausing(paused_in(name))

    @property
    def messages(self) -> list[MessageRecord]:
        return [msgspec.json.decode(value, type=MessageRecord) for value in self.values]

    @property
    def events(self) -> list[Event]:
        """What journeys themselves reported of customers."""
        return [msgspec.json.decode(value, type=Event) for value in self.reported]

    def sweep(self) -> None:
        """What the background work does after an activation: wake those whom a pause had held, and those who are to be
        taken along to another version."""
        memo = msgspec.msgpack.decode(self.memo, type=Memo)
        journeys = self._book(memo.playbook).journeys
        for customer, enrollment in self.enrollments.values():
            known = journeys.get(enrollment.journey)
            held = enrollment.status == "parked" and (known is None or known.status != "paused")
            moving = memo.moves.get(enrollment.journey) if enrollment.inside else None
            if held or (moving and self._version(moving.playbook, enrollment.journey) != enrollment.version):
                self.timers["wake", customer] = self.as_of

    def _version(self, playbook: str, journey: str) -> str:
        return self._book(playbook).journeys[journey].version


def in_words(at: datetime, decision: Decision) -> str:
    """A decision as tests tell it: `1h waits at wait-1h`."""
    after = f"{format_duration(at - NOON)} "
    until = f" until {format_duration(decision.until - NOON)}" if decision.until else ""
    where = f" {decision.step}" if decision.step else ""
    word = decision.word if decision.what in ("declined", "passed", "left") else ""
    return f"{after}{decision.what}{where}{': ' + word if word else ''}{until}"


class Shop:
    """A shop with its customers and the rest of Rapport around journeys, record by record."""

    def __init__(self, *playbooks: Playbook, mailer: str = "sends") -> None:
        self.road = Road(*playbooks)
        self.mailer = mailer
        """`sends` at once, `skips` at once, or `holds`."""
        self.log: list[CustomerRecord] = []
        self._customers: dict[str, Customer] = {}
        self._ids = count(1)
        self._answered: set[str] = set()
        self.activate(playbooks[0].hash, when=timedelta(hours=-1))

    def activate(
        self,
        name: str,
        *,
        when: str | timedelta | datetime,
        paused: Sequence[str] = (),
        moves: Sequence[str] = (),
    ) -> None:
        self._take(Activation(as_of=at(when), playbook=name, paused=tuple(paused), moves=tuple(moves)))

    def customer(self, key: str = "anna") -> Customer:
        return self._customers.get(key) or Customer(key=key, address=f"{key}@example.com", locale="en")

    def is_now(self, key: str = "anna", **changes: Any) -> None:
        """The next record of the customer shows this."""
        self._customers[key] = msgspec.structs.replace(self.customer(key), **changes)

    def posts(
        self,
        name: str,
        properties: Mapping[str, Any] | None = None,
        *,
        when: str | timedelta | datetime,
        customer: str = "anna",
        occurred: datetime | None = None,
        source: str = "shop",
        consent: tuple[ConsentDecision, ...] = (),
        **changes: Any,
    ) -> CustomerUpdated:
        record = self.event(
            name, properties, when=when, customer=customer, occurred=occurred, source=source, consent=consent, **changes
        )
        self._take(record)
        return record

    def event(
        self,
        name: str,
        properties: Mapping[str, Any] | None = None,
        *,
        when: str | timedelta | datetime,
        customer: str = "anna",
        occurred: datetime | None = None,
        source: str = "shop",
        consent: tuple[ConsentDecision, ...] = (),
        **changes: Any,
    ) -> CustomerUpdated:
        """The record of an event, which nobody has seen yet."""
        event_changes = {name: changes.pop(name) for name in ("historical", "hops", "type") if name in changes}
        event = Event(
            id=f"e{next(self._ids)}",
            source=source,
            key=customer,
            name=name,
            occurred_at=occurred or at(when),
            received_at=at(when),
            properties=msgspec.Raw(msgspec.json.encode(properties or {})),
            **event_changes,
        )
        return CustomerUpdated(
            as_of=at(when), customer=self.customer(customer), event=event, consent=consent, **changes
        )

    def changes(self, *, when: str | timedelta, customer: str = "anna", **changes: Any) -> None:
        """Time alone, or a new definition, has changed the customer."""
        changes.setdefault("cause", "time")
        self._take(CustomerUpdated(as_of=at(when), customer=self.customer(customer), **changes))

    def reaches(self, journey: str, occasion: str, *, when: str | timedelta | datetime, customer: str = "anna") -> None:
        self._take(DateReached(as_of=at(when), customer=self.customer(customer), journey=journey, occasion=occasion))

    def invites(self, journey: str, *, when: str | timedelta | datetime, customer: str = "anna") -> None:
        """A backfill has come to this customer."""
        record = Invited(as_of=at(when), customer=self.customer(customer), journey=journey, occasion="first", v=2)
        self._take(record)

    def says_no(self, *topics: str, when: str | timedelta, customer: str = "anna") -> None:
        consent = {**self.customer(customer).consent, **dict.fromkeys(topics, False)}
        self.is_now(customer, consent=consent)
        decisions = tuple(
            ConsentDecision(topic=topic, subscribed=False, decided_at=at(when), source="shop") for topic in topics
        )
        self.posts("Topic Unsubscribed", {}, when=when, customer=customer, consent=decisions)

    def ticks(self, *, when: str | timedelta | datetime) -> None:
        """Time passes up to then, with a tick wherever something falls due."""
        self._pass(at(when))
        self._take(Tick(as_of=at(when)))

    def _pass(self, until: datetime) -> None:
        while (due := min(self.road.timers.values(), default=until)) < until:
            self._take(Tick(as_of=max(due, self.road.as_of)))

    def outcome(
        self,
        message: MessageRequested,
        name: str = "Email Sent",
        *,
        when: str | timedelta | datetime | None = None,
        decided_for: datetime | None = None,
        reason: str = "",
    ) -> None:
        """What the mailer reports of a message; at once unless told otherwise."""
        moment = self.road.as_of if when is None else at(when)
        self._answered.add(message.id)
        properties = {
            "message_id": message.id,
            "message": message.message,
            "journey": message.journey,
            "enrollment": message.enrollment,
            "step": message.step,
            "topic": message.topic,
            "reason": reason,
            "decided_for": (decided_for or message.due).isoformat().replace("+00:00", "Z"),
        }
        self.posts(
            name, properties, when=moment, customer=message.customer, source=MAILER_SOURCE, hops=message.hops + 1
        )

    def clicks(self, message: MessageRequested, *, when: str | timedelta) -> None:
        properties = {"message_id": message.id, "enrollment": message.enrollment, "link": "1"}
        self.posts("Email Link Clicked", properties, when=when, customer=message.customer, source=MAILER_SOURCE)

    def _take(self, record: CustomerRecord) -> None:
        if not isinstance(record, Tick):
            self._pass(record.as_of)
        self.log.append(record)
        self.road.drive([record])
        for message in self.requested():
            if self.mailer == "holds" or message.id in self._answered:
                continue
            skipped = self.mailer == "skips" or message.draft
            self.outcome(
                message,
                "Email Skipped" if skipped else "Email Sent",
                decided_for=max(message.due, at("0m")),
                reason="draft" if message.draft else "",
            )

    def requested(self) -> list[MessageRequested]:
        return [message for message in self.road.messages if isinstance(message, MessageRequested)]

    def sent(self) -> list[tuple[str, datetime]]:
        """Each message that was asked for, with the instant it was due."""
        return [(message.message, message.due) for message in self.requested()]

    def cancelled(self) -> list[tuple[str, str]]:
        by_id = {message.id: message.message for message in self.requested()}
        return [
            (by_id[message.id], message.reason)
            for message in self.road.messages
            if isinstance(message, MessageCancelled)
        ]

    def consent_told(self) -> list[ConsentChanged]:
        return [message for message in self.road.messages if isinstance(message, ConsentChanged)]

    def enrollments(self, customer: str = "anna") -> list[Enrollment]:
        """Those of a customer that ever were, in the order in which they began."""
        mine = [enrollment for of, enrollment in self.road.enrollments.values() if of == customer]
        return sorted(mine, key=lambda one: one.entry.at)

    def ended(self, customer: str = "anna") -> list[str]:
        """Why each of a customer's enrollments has ended; empty for one that is inside."""
        return [enrollment.reason for enrollment in self.enrollments(customer)]

    def decided(self, customer: str = "anna") -> list[str]:
        """What was decided about a customer, in words."""
        return [in_words(told.at, one) for told in self.road.decided[customer] for one in told.decisions]


def replayed(road: Road, log: Iterable[CustomerRecord], sizes: Iterable[int]) -> Road:
    """The same records on a road of its own, in batches of other sizes."""
    fresh = Road(*road.playbooks.values())
    left = list(log)
    for size in sizes:
        if not left:
            break
        fresh.drive(left[:size])
        left = left[size:]
    if left:
        fresh.drive(left)
    return fresh
