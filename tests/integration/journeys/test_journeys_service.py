"""The whole service on a real database: customers in, messages out, and what its pages tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest_asyncio
from patience import until
from prometheus_client import REGISTRY

from services.journeys import main as journeys
from services.journeys import store
from services.journeys.main import Journeys
from services.journeys.settings import JourneysSettings
from shared.clock import ManualClock
from shared.contracts.customers import Activation, Customer, CustomerRecord, CustomerUpdated, Tick
from shared.contracts.events import MAILER_SOURCE, Event
from shared.contracts.messages import MessageCancelled, MessageRecord, MessageRequested
from shared.contracts.streams import CUSTOMERS, MESSAGES, partition_of
from shared.database.engine import Database
from shared.database.migrations import behind
from shared.language import load
from shared.language.playbook import Playbook
from shared.log.port import Entry
from shared.log.postgres import PostgresLog
from shared.processing import playbooks
from shared.processing.installation import Installation, open_installation
from shared.runtime import Runtime
from shared.security import hash_key

PARTITIONS = 2
READ_KEY = "a-key-for-reading"
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

JOURNEY = """
journey: abandoned-cart
title: Bring back a forgotten cart
status: live
trigger:
  event: Cart Updated
  where: event.total >= 20
  key: event.cart_id
mode: restart
again: 14d
goal: {event: Order Completed, where: event.cart_id == key, within: 7d, value: event.total}
defaults: {topic: cart-reminders, expires: 14h}
steps:
  - wait: 1h
  - email: reminder
    with: {orders: 'count("Order Completed")'}
  - wait: 23h
  - email: last-call
"""

FILES = {
    "rapport.yaml": """
name: Lamps
sender: Lamps <hello@lamps.example>
postal_address: Harbour Street 12, Oslo
timezone: Europe/Oslo
locale: en
currency: EUR
""",
    "stages.yaml": "stages:\n  attract: true\n",
    "segments.yaml": "segments: {}\n",
    "topics.yaml": """
topics:
  cart-reminders: {title: Cart reminders, description: A note., kind: promotional, default: opt_out}
""",
    "journeys/abandoned-cart.yaml": JOURNEY,
    "messages/reminder/message.yaml": "title: Reminder\nvariables: [orders]\n",
    "messages/reminder/subject.txt": "Your cart\n",
    "messages/reminder/body.html": '<p>Still there.</p><a href="{{ unsubscribe_url }}">Unsubscribe</a>\n',
    "messages/last-call/message.yaml": "title: Last call\n",
    "messages/last-call/subject.txt": "Your cart, once more\n",
    "messages/last-call/body.html": '<p>Going soon.</p><a href="{{ unsubscribe_url }}">Unsubscribe</a>\n',
}


def playbook(journey: str = JOURNEY) -> Playbook:
    files = {**FILES, "journeys/abandoned-cart.yaml": journey}
    return load({path: text.encode() for path, text in files.items()})


@dataclass
class Town:
    """Journeys at work, and the hands that feed them what segmenter would."""

    database: Database
    log: PostgresLog
    installation: Installation
    service: Journeys = field(init=False)
    ids: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.service = self.build()

    def build(self) -> Journeys:
        settings = JourneysSettings(read_keys=hash_key(READ_KEY), heartbeat_seconds=0.2)
        return journeys.build(Runtime(self.log, ManualClock(NOON), self.database, self.installation), settings)

    async def tell(self, key: str, *records: CustomerRecord) -> None:
        entries = [Entry(key, msgspec.json.encode(record)) for record in records]
        await self.log.append(CUSTOMERS, partition_of(key, PARTITIONS), entries)

    async def everywhere(self, record: Tick | Activation) -> None:
        for partition in range(PARTITIONS):
            await self.log.append(CUSTOMERS, partition, [Entry("", msgspec.json.encode(record))])

    async def apply(self, book: Playbook, when: datetime, **changes: tuple[str, ...]) -> None:
        """What the command asks for, and what segmenter tells of it."""
        async with self.database.connect() as connection:
            await playbooks.activate(self.log, connection, book, when, **changes)
            paused = await playbooks.paused_by_hand(connection)
        told = Activation(as_of=when, playbook=book.hash, paused=paused, moves=changes.get("moves", ()))
        await self.everywhere(told)

    def did(self, key: str, name: str, when: datetime, properties: Any, source: str = "shop") -> CustomerUpdated:
        self.ids[key] += 1
        event = Event(
            id=f"{key}-{self.ids[key]}",
            source=source,
            key=key,
            name=name,
            occurred_at=when,
            received_at=when,
            properties=msgspec.Raw(msgspec.json.encode(properties)),
        )
        return CustomerUpdated(as_of=when, customer=Customer(key=key, address=f"{key}@example.com"), event=event)

    def sent(self, message: MessageRequested) -> CustomerUpdated:
        properties = {
            "message_id": message.id,
            "decided_for": message.due.isoformat(),
            "enrollment": message.enrollment,
            "journey": message.journey,
        }
        return self.did(message.customer, "Email Sent", message.due, properties, MAILER_SOURCE)

    async def told(self) -> list[MessageRecord]:
        found: list[MessageRecord] = []
        for partition in range(PARTITIONS):
            reader = self.log.reader(MESSAGES)
            reader.assign({partition: 0})
            while (fetched := await reader.fetch(partition, 1000, 0.05)).records:
                found += [msgspec.json.decode(r.value, type=MessageRecord) for r in fetched.records]  # type: ignore[arg-type]
            await reader.close()
        return found

    async def requests(self, count: int) -> list[MessageRequested]:
        """Wait for so many messages to be asked for."""

        async def enough() -> list[MessageRequested] | None:
            found = [message for message in await self.told() if isinstance(message, MessageRequested)]
            return found if len(found) >= count else None

        found: list[MessageRequested] = await until(enough)
        assert len(found) == count
        return sorted(found, key=lambda message: (message.due, message.customer))

    async def time_is(self, when: datetime) -> None:
        """A tick in every partition, and everything that it brings about."""
        await self.everywhere(Tick(as_of=when))

        async def reached() -> bool:
            positions = await self.fetch("SELECT as_of FROM processing.partitions WHERE service = 'journeys'")
            return all(as_of is not None and as_of >= when for (as_of,) in positions)

        await until(reached)

    async def get(self, path: str, key: str | None = READ_KEY) -> httpx.Response:
        transport = httpx.ASGITransport(self.service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://journeys") as client:
            return await client.get(path, headers={"Authorization": f"Bearer {key}"} if key else {})

    async def fetch(self, query: str) -> list[Any]:
        async with self.database.connect() as connection:
            return [tuple(row) for row in await connection.fetch(query)]

    async def counted(self) -> None:
        """The tallies say what counting would."""
        tallies = await self.fetch(
            "SELECT journey, version, status, reason, goal, sum(count)::int FROM journeys.tallies"
            " WHERE status <> 'mailed' GROUP BY 1, 2, 3, 4, 5 HAVING sum(count) <> 0 ORDER BY 1, 2, 3, 4, 5"
        )
        assert tallies == await self.fetch(
            "SELECT journey, version, status, reason, goal_at IS NOT NULL, count(*)::int FROM journeys.enrollments"
            " GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5"
        )


@pytest_asyncio.fixture
async def town(database: Database) -> AsyncIterator[Town]:
    log = PostgresLog(database, PARTITIONS)
    await log.start()
    async with database.connect() as connection:
        installation = await open_installation(connection, PARTITIONS, 1.0)
    town = Town(database, log, installation)
    await town.service.start()
    yield town
    await town.service.stop()
    await log.close()


CART = {"cart_id": "c1", "total": 50}


async def test_forgotten_cart_becomes_two_messages_over_a_restart(town: Town) -> None:
    await town.apply(playbook(), NOON)
    await town.tell("ann", town.did("ann", "Cart Updated", NOON, CART))
    await town.time_is(NOON + HOUR)
    [reminder] = await town.requests(1)
    assert (reminder.message, reminder.due, reminder.address) == ("reminder", NOON + HOUR, "ann@example.com")
    assert (reminder.data["trigger"], reminder.data["with"]) == (CART, {"orders": 0})

    await town.service.stop()
    town.service = town.build()
    await town.service.start()
    await town.tell("ann", town.sent(reminder))
    await town.time_is(NOON + 2 * DAY)
    [_, last] = await town.requests(2)
    assert (last.message, last.due) == ("last-call", NOON + DAY)
    await town.tell("ann", town.sent(last))
    await town.tell("ann", town.did("ann", "Order Completed", NOON + 3 * DAY, CART))
    # The order is remembered, so that nobody is credited with it again.
    await town.time_is(NOON + 15 * DAY)
    assert await town.fetch("SELECT count(*) FROM journeys.customers") == [(1,)]
    [found] = (await town.get("/v1/journeys")).json()["journeys"]
    assert (found["sent"], found["goal"], found["orders"], found["attributed"]) == (2, 1, 1, {"EUR": 50.0})
    [enrolled] = (await town.get("/v1/customers/ann/enrollments")).json()["enrollments"]
    assert (enrolled["attributed"], enrolled["currency"]) == (50.0, "EUR")
    await town.counted()
    await town.time_is(NOON + 94 * DAY)
    assert await town.fetch("SELECT count(*) FROM journeys.customers") == [(0,)]
    assert await town.fetch("SELECT count(*) FROM processing.timers WHERE service = 'journeys'") == [(0,)]


async def test_pages_tell_who_is_where(town: Town) -> None:
    before = REGISTRY.get_sample_value("rapport_journeys_ended_total", {"journey": "abandoned-cart", "reason": "goal"})
    await town.apply(playbook(), NOON)
    for key in ("ann", "bo", "cy"):
        await town.tell(key, town.did(key, "Cart Updated", NOON, {**CART, "cart_id": key}))
    await town.tell("bo", town.did("bo", "Order Completed", NOON + MINUTE, {"cart_id": "bo"}))
    await town.time_is(NOON + 2 * MINUTE)
    await town.tell("cy", town.did("cy", "Cart Updated", NOON + HOUR, {"cart_id": "c2", "total": 5}))
    await town.time_is(NOON + HOUR)
    await town.requests(2)

    counts = (await town.get("/v1/journeys")).json()["journeys"]
    assert counts == [
        {
            "journey": "abandoned-cart",
            "entered": 3,
            "inside": {"sending": 2},
            "ended": {"goal": 1},
            "sent": 0,
            "goal": 1,
            "orders": 0,
            "attributed": {},
            "held_out": None,
        }
    ]
    [bo] = (await town.get("/v1/customers/bo/enrollments")).json()["enrollments"]
    assert (bo["journey"], bo["key"], bo["status"], bo["reason"]) == ("abandoned-cart", "bo", "ended", "goal")
    assert bo["goal_at"] == "2026-03-02T12:01:00Z"
    assert (await town.get("/v1/customers/nobody/enrollments")).json()["enrollments"] == []
    assert (await town.get("/v1/journeys", key=None)).status_code == 401
    assert (await town.get("/v1/journeys", key="a-write-key")).status_code == 403
    assert (await town.get("/readyz", key=None)).status_code == 200
    after = REGISTRY.get_sample_value("rapport_journeys_ended_total", {"journey": "abandoned-cart", "reason": "goal"})
    assert (after or 0) - (before or 0) == 1
    await town.counted()


async def test_backlog_of_an_outage_is_taken_in_the_order_of_the_road(town: Town) -> None:
    await town.service.stop()
    await town.apply(playbook(), NOON)
    buyers = [f"buyer-{n}" for n in range(50)]
    for key in buyers:
        await town.tell(key, town.did(key, "Cart Updated", NOON, {"cart_id": key, "total": 50}))
    await town.tell("late", town.did("late", "Cart Updated", NOON, {"cart_id": "late", "total": 50}))
    for key in buyers:
        await town.tell(key, town.did(key, "Order Completed", NOON + 30 * MINUTE, {"cart_id": key}))
    await town.tell("late", town.did("late", "Order Completed", NOON + 90 * MINUTE, {"cart_id": "late"}))
    town.service = town.build()
    await town.service.start()
    await town.time_is(NOON + DAY)
    [request] = await town.requests(1)
    assert request.customer == "late"
    cancelled = [message for message in await town.told() if isinstance(message, MessageCancelled)]
    assert [(message.id, message.reason) for message in cancelled] == [(request.id, "goal")]
    await town.counted()


async def test_what_a_pause_held_goes_on_when_it_ends(town: Town) -> None:
    await town.apply(playbook(), NOON)
    keys = [f"customer-{n}" for n in range(30)]
    for key in keys:
        await town.tell(key, town.did(key, "Cart Updated", NOON, {"cart_id": key, "total": 50}))
    await town.apply(playbook(JOURNEY.replace("status: live", "status: paused")), NOON + MINUTE)
    await town.time_is(NOON + 3 * HOUR)
    assert await town.fetch("SELECT status, count(*) FROM journeys.enrollments GROUP BY 1") == [("parked", 30)]
    await town.apply(playbook(JOURNEY.replace("a forgotten", "the forgotten")), NOON + 4 * HOUR)

    async def all_sending() -> bool:
        await town.time_is(NOON + 5 * HOUR)
        found = await town.fetch("SELECT status, count(*) FROM journeys.enrollments GROUP BY 1")
        return found == [("sending", 30)]

    await until(all_sending)
    assert {message.due for message in await town.requests(30)} == {NOON + 4 * HOUR}
    await town.counted()


async def test_those_inside_are_taken_along_by_whoever_owns_them(town: Town) -> None:
    """Nothing passes by them but the sweep, and its worker ends before it has begun."""
    people = [f"c{number}" for number in range(40)]
    await town.apply(playbook(), NOON)
    for key in people:
        await town.tell(key, town.did(key, "Cart Updated", NOON, CART))
    await town.time_is(NOON + MINUTE)
    edited = playbook(JOURNEY.replace("- wait: 1h", "- id: wait-1h\n    wait: 2h"))
    await town.service.stop()
    await town.apply(edited, NOON + 2 * MINUTE, moves=("abandoned-cart",))
    town.service = town.build()
    await town.service.start()
    version = edited.journeys["abandoned-cart"].version

    async def all_moved() -> bool:
        await town.time_is(NOON + 3 * MINUTE)
        return await town.fetch("SELECT version, due, count(*) FROM journeys.enrollments GROUP BY 1, 2") == [
            (version, NOON + 2 * HOUR, 40)
        ]

    await until(all_moved)
    await town.counted()
    await town.time_is(NOON + 2 * HOUR)
    assert {message.due for message in await town.requests(40)} == {NOON + 2 * HOUR}


async def test_a_pause_by_hand_outlasts_another_playbook(town: Town) -> None:
    await town.apply(playbook(), NOON)
    await town.apply(playbook(), NOON + MINUTE, paused=("abandoned-cart",))
    await town.apply(playbook(JOURNEY.replace("23h", "22h")), NOON + 2 * MINUTE)
    await town.tell("ann", town.did("ann", "Cart Updated", NOON + 3 * MINUTE, CART))
    await town.time_is(NOON + 3 * MINUTE)
    assert await town.fetch("SELECT count(*) FROM journeys.enrollments") == [(0,)]
    async with town.database.connect() as connection:
        told = [one.summary for one in await playbooks.history(connection, 3)]
    assert told == ["journeys: changed abandoned-cart", "paused abandoned-cart", "the first"]
    await town.apply(playbook(), NOON + 4 * MINUTE, paused=())
    await town.tell("ann", town.did("ann", "Cart Updated", NOON + 5 * MINUTE, CART))
    await town.time_is(NOON + 5 * MINUTE)
    assert await town.fetch("SELECT count(*) FROM journeys.enrollments") == [(1,)]


async def test_edit_while_customers_are_inside(town: Town) -> None:
    old, new = playbook(), playbook(JOURNEY.replace("wait: 1h", "wait: 2h"))
    await town.apply(old, NOON)
    await town.tell("ann", town.did("ann", "Cart Updated", NOON, CART))
    await town.apply(new, NOON + MINUTE)
    await town.tell("bo", town.did("bo", "Cart Updated", NOON + 2 * MINUTE, CART))
    await town.time_is(NOON + 10 * MINUTE)
    async with town.database.connect() as connection:
        assert await store.playbooks_in_use(connection) == {old.hash, new.hash}
    # A process that starts anew reads the old version from the database.
    await town.service.stop()
    town.service = town.build()
    await town.service.start()
    await town.time_is(NOON + 3 * HOUR)
    requests = await town.requests(2)
    assert [(message.customer, message.due - NOON) for message in requests] == [("ann", HOUR), ("bo", 122 * MINUTE)]


async def test_what_has_ended_is_shown_for_90_days_and_counted_for_ever(town: Town) -> None:
    await town.apply(playbook(), NOON)
    for key in ("ann", "bo", "cy"):
        await town.tell(key, town.did(key, "Cart Updated", NOON, {"cart_id": key, "total": 50}))
    await town.time_is(NOON + HOUR)
    await town.requests(3)
    # Two have ordered, one of them later; the mailer never says what became of the third one's mail.
    for key, when in (("ann", HOUR), ("bo", 2 * DAY)):
        await town.tell(key, town.did(key, "Order Completed", NOON + when, {"cart_id": key}))
    await town.time_is(NOON + 90 * DAY)
    shown = "SELECT customer FROM journeys.enrollments ORDER BY customer"
    assert await town.fetch(shown) == [("ann",), ("bo",), ("cy",)]

    await town.time_is(NOON + 91 * DAY)

    async def ann_is_gone() -> bool:
        return await town.fetch(shown) == [("bo",), ("cy",)]

    await until(ann_is_gone)
    assert (await town.get("/v1/customers/ann/enrollments")).json()["enrollments"] == []
    [counts] = (await town.get("/v1/journeys")).json()["journeys"]
    assert (counts["entered"], counts["ended"]) == (3, {"goal": 2})

    async def only_bos_order_is_told() -> bool:
        decided = await town.fetch("SELECT customer, at FROM journeys.decisions ORDER BY customer")
        return decided == [("bo", NOON + 2 * DAY)]

    await until(only_bos_order_is_told)


async def test_a_story_of_which_a_part_is_missing_is_not_told(town: Town) -> None:
    await town.apply(playbook(), NOON)
    answer = await town.get("/v1/customers/ann/story")
    assert answer.status_code == 503
    assert "RAPPORT_SEGMENTER_URL is not set" in answer.json()["message"]


async def test_plans_made_over_empty_tables_hold_when_the_tables_have_grown(town: Town) -> None:
    await town.apply(playbook(), NOON)
    async with town.database.connect() as connection:
        await connection.execute("VACUUM ANALYZE")
    # So often that PostgreSQL settles for one plan for each statement, over tables that it holds for empty.
    for number in range(8):
        when = NOON + number * DAY
        await town.tell("first", town.did("first", "Cart Updated", when, {**CART, "cart_id": f"c{number}"}))
        await town.time_is(when + HOUR)
        await town.tell("first", town.did("first", "Order Completed", when + 2 * HOUR, {"cart_id": f"c{number}"}))
        await town.time_is(when + 3 * HOUR)
    customers, when = 3000, NOON + 30 * DAY
    entries: dict[int, list[Entry]] = {partition: [] for partition in range(PARTITIONS)}
    for number in range(customers):
        key = f"customer-{number}"
        record = town.did(key, "Cart Updated", when, {**CART, "cart_id": key})
        entries[partition_of(key, PARTITIONS)].append(Entry(key, msgspec.json.encode(record)))
    for partition, those in entries.items():
        await town.log.append(CUSTOMERS, partition, those)
    await town.time_is(when + HOUR)
    await town.requests(8 + customers)
    await town.service.stop()
    # What was read is told as connections end.
    await town.database.close()
    read = {
        table: (sequentially, by_index)
        for table, sequentially, by_index in await town.fetch(
            "SELECT relname, sum(seq_tup_read)::int,"
            " (SELECT sum(idx_tup_read)::int FROM pg_stat_user_indexes i WHERE i.relid = t.relid)"
            "  FROM pg_stat_user_tables t WHERE relname IN ('customers', 'enrollments', 'timers')"
            " GROUP BY relname, relid"
        )
    }
    # Each row is found a few times by its key: to be read, moved, deleted. A plan that reads a table through would have
    # read each of them for each of them.
    assert all(sequentially == 0 and by_index < 10 * customers for sequentially, by_index in read.values()), read


async def test_record_that_cannot_be_read_is_set_aside(town: Town) -> None:
    await town.apply(playbook(), NOON)
    partition = partition_of("ann", PARTITIONS)
    await town.log.append(CUSTOMERS, partition, [Entry("ann", b'{"kind":"updated","as_of":"yesterday"}')])
    await town.tell("ann", town.did("ann", "Cart Updated", NOON, CART))
    await town.time_is(NOON + HOUR)
    await town.requests(1)
    [(code, message)] = await town.fetch("SELECT code, message FROM processing.dead_letters")
    assert code == "poison"
    assert "customers, key 'ann'" in message


async def test_record_of_a_newer_release_is_waited_for(town: Town) -> None:
    await town.apply(playbook(), NOON)
    partition = partition_of("ann", PARTITIONS)
    newer = b'{"kind":"merged","as_of":"2026-03-02T12:00:00Z","v":99}'
    await town.log.append(CUSTOMERS, partition, [Entry("ann", newer)])
    await town.tell("ann", town.did("ann", "Cart Updated", NOON, CART))

    async def stands_still() -> bool:
        return partition not in town.service.worker.owned

    await until(stands_still)
    assert await town.fetch("SELECT count(*) FROM processing.dead_letters") == [(0,)]
    assert await town.fetch("SELECT count(*) FROM journeys.enrollments") == [(0,)]


async def test_migrations_are_complete(town: Town) -> None:
    assert await behind(town.database, [journeys.MIGRATIONS]) == []
