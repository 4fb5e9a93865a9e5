"""The house in which all hearts are in memory: its timers, and that what it passes on is what the wire would carry."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import msgspec

from services.rehearsal.house import House
from services.rehearsal.timers import Timers
from services.rehearsal.witness import End, Witness
from shared.contracts.customers import CustomerRecord, CustomerUpdated, DateReached
from shared.contracts.events import Event
from shared.contracts.messages import MessageRecord, MessageRequested
from shared.language import SHIPPED, load, read_folder

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
PLAYBOOK = load(read_folder(SHIPPED))


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def test_of_what_is_due_at_once_whoever_stands_further_down_the_road_comes_first() -> None:
    timers = Timers()
    timers.set(2, "flip", "ann", at(1))
    timers.set(0, "release", "mail", at(1))
    timers.set(1, "wake", "ann", at(0))
    timers.set(1, "wake", "bo", at(0))
    timers.set(1, "wake", "bo", None)
    assert timers.next() == at(0)
    taken = []
    while (ring := timers.pop(at(1))) is not None:
        taken.append((ring.kind, ring.subject))
    assert taken == [("wake", "ann"), ("release", "mail"), ("flip", "ann")]
    assert timers.next() is None


def test_a_timer_that_is_moved_again_and_again_rings_once_and_takes_no_more_room() -> None:
    timers = Timers()
    for number in range(50_000):
        timers.set(1, "wake", "ann", at(number))
    assert timers.next() == at(49_999)
    assert timers.pop(at(49_998)) is None
    assert timers.pop(at(49_999)) is not None
    assert len(timers._heap) < 20_000


class Wire(Witness):
    """Holds everything that is told against what the wire would make of it."""

    def __init__(self) -> None:
        self.records = self.sent = 0

    def told(self, record: CustomerUpdated | DateReached, at: datetime) -> None:
        self.records += 1
        assert msgspec.json.decode(msgspec.json.encode(record), type=CustomerRecord) == record  # type: ignore[arg-type]

    def asked(self, request: MessageRequested, at: datetime) -> None:
        decoded: MessageRequested = msgspec.json.decode(msgspec.json.encode(request), type=MessageRecord)  # type: ignore[arg-type]
        assert msgspec.json.encode(decoded) == msgspec.json.encode(request)

    def ended(self, end: End, at: datetime) -> None:
        self.sent += end.status == "sent"


def test_what_the_services_pass_on_in_memory_is_what_the_wire_would_carry() -> None:
    lots = random.Random(7)
    wire = Wire()
    house = House(PLAYBOOK, at(-1), witness=wire)
    for number in range(600):
        key = f"customer-{lots.randrange(20)}"
        moment = at(30 * number)
        event = Event(id=f"e{number}", source="shop", key=key, occurred_at=moment, received_at=moment)
        if lots.random() < 0.2:
            traits = {"email": f"{key}@example.com", "birthday": "1990-03-09", "consent": {"cart-reminders": True}}
            house.take(msgspec.structs.replace(event, type="identify", traits=_raw(traits)))
            continue
        name = lots.choice(["Product Viewed", "Product Added", "Product Added", "Order Completed"])
        properties = {"cart_id": "c", "product_id": f"p{lots.randrange(4)}", "price": 20.5, "quantity": 2}
        if name == "Order Completed":
            properties = {"order_id": f"o{number}", "total": 99.95, "currency": "EUR", "cart_id": "c"}
        house.take(msgspec.structs.replace(event, name=name, properties=_raw(properties)))
    house.pass_to(at(60 * 24 * 40))
    assert wire.records > 600
    assert wire.sent > 20


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
