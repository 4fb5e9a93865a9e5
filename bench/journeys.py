"""How many records journeys takes in a second.

Of a hundred records 70 concern nobody who is in a journey, 5 begin an enrollment, 5 move one to its mail, and 20 touch
one: 5 outcomes of those mails, 5 orders that reach the goal, and 10 that mean nothing to it. So as many are inside at
the end as at the beginning. The service is the real one, over a backlog in its stream, with its log and its state in
one PostgreSQL; beside it the very statements of its batches, with nothing decoded, decided or encoded in between.
"""

from __future__ import annotations

import asyncio
import pickle
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import msgspec

from bench.measure import Series
from bench.prepared import making, on_the_services_loop, prepared
from services.journeys import main, store
from services.journeys.batch import JourneysBatch
from services.journeys.enrollment import Entry as Entered
from services.journeys.enrollment import effect_id, enrollment_id
from services.journeys.settings import JourneysSettings
from services.journeys.worker import SERVICE, JourneysProcessor
from shared.clock import SystemClock
from shared.contracts.customers import Activation, Customer, CustomerRecord, CustomerUpdated
from shared.contracts.events import EMAIL_SENT, MAILER_SOURCE, Event
from shared.contracts.streams import CUSTOMERS, DEFAULT_PARTITIONS, MESSAGES, partition_of
from shared.database.engine import Database
from shared.language import load
from shared.language.playbook import Playbook
from shared.log.port import Entry
from shared.log.postgres import MIGRATIONS as LOG
from shared.log.postgres import PostgresLog
from shared.processing import MIGRATIONS as PROCESSING
from shared.processing import playbooks
from shared.processing import store as mechanics
from shared.processing.installation import open_installation
from shared.processing.outlets import StreamOutlet
from shared.processing.playbooks import PlaybookShelf
from shared.processing.port import Connection, Given, Outputs, Timer, Writes
from shared.processing.store import Destination, Fence
from shared.processing.worker import Worker
from shared.runtime import Runtime

ALL_MIGRATIONS = (LOG, PROCESSING, main.MIGRATIONS)

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
RECORDS = 200_000
INSIDE = 60_000
"""Enrollments that are open as a round begins."""
SENDING = 3_000
"""Those of them whose mail is on its way."""
KNOWN = 1_000_000
"""Customers that records may be about."""
OTHER_JOURNEYS = 7

CART = """
journey: abandoned-cart
title: Bring back a forgotten cart
status: live
trigger: {event: Cart Updated, where: event.total >= 20, key: event.cart_id}
mode: restart
again: 14d
goal: {event: Order Completed, where: event.cart_id == key, within: 7d}
exit_on:
  - {event: Cart Emptied, where: event.cart_id == key}
defaults: {topic: cart-reminders, expires: 14h}
steps:
  - wait_for: {event: Checkout Started, where: event.cart_id == key}
    timeout: 2h
  - email: reminder
    with: {orders: 'count("Order Completed")'}
  - wait: 23h
  - if: customer.stage == "convert"
    then:
      - email: last-call
"""

OTHER = """
journey: other-{number}
title: Another one
status: live
trigger: {{event: Event {number}}}
defaults: {{topic: cart-reminders}}
steps:
  - wait: 1h
  - email: reminder
    with: {{orders: '0'}}
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
    "stages.yaml": 'stages:\n  convert: count("Cart Updated") >= 1\n  attract: true\n',
    "segments.yaml": "segments: {}\n",
    "topics.yaml": """
topics:
  cart-reminders: {title: Cart reminders, description: A note., kind: promotional, default: opt_out}
""",
    "messages/reminder/message.yaml": "title: Reminder\nvariables: [orders]\n",
    "messages/reminder/subject.txt": "Your cart\n",
    "messages/reminder/body.html": '<p>Still there: {{ orders }}.</p>\n<a href="{{ unsubscribe_url }}">Off</a>\n',
    "messages/last-call/message.yaml": "title: Last call\n",
    "messages/last-call/subject.txt": "Your cart, once more\n",
    "messages/last-call/body.html": '<p>Going soon.</p><a href="{{ unsubscribe_url }}">Unsubscribe</a>\n',
}

TRAITS = {
    "email": "ann.lund@example.com",
    "name": "Ann Lund",
    "first_name": "Ann",
    "last_name": "Lund",
    "country": "NO",
    "city": "Oslo",
    "birthday": "1990-06-15",
    "plan": "lamps",
}
PRODUCT = {"product_id": "p17", "name": "Desk lamp, brass", "price": 49.9, "url": "https://lamps.example/p/17"}


def playbook(others: int = OTHER_JOURNEYS) -> Playbook:
    journeys = {"journeys/abandoned-cart.yaml": CART}
    journeys |= {f"journeys/other-{number}.yaml": OTHER.format(number=number) for number in range(others)}
    return load({path: text.encode() for path, text in {**FILES, **journeys}.items()})


def updated(key: str, name: str, at: datetime, properties: dict[str, Any], source: str = "shop") -> CustomerUpdated:
    """A record of about 1.2 KB, as segmenter writes them."""
    event = Event(
        id=f"{name}/{at.timestamp():.6f}",
        source=source,
        key=key,
        name=name,
        user_id=key,
        occurred_at=at,
        received_at=at,
        properties=msgspec.Raw(msgspec.json.encode(properties)),
        context=msgspec.Raw(b'{"library":{"name":"analytics.js","version":"2.11.1"},"locale":"nb-NO"}'),
    )
    customer = Customer(
        key=key,
        traits=TRAITS,
        consent={"cart-reminders": True, "newsletter": False},
        stage="convert",
        segments=("nordic", "recent"),
        locale="nb-NO",
        timezone="Europe/Oslo",
        first_seen=START - timedelta(days=90),
        last_seen=at,
        address=f"{key}@example.com",
    )
    return CustomerUpdated(as_of=at, customer=customer, event=event)


class Town:
    """Customers, and what they do next."""

    def __init__(self) -> None:
        self._chance = random.Random(3)
        self._at = START
        self._new = 0
        self._listening: deque[tuple[str, str]] = deque()
        """Who is in the cart's journey, with the id of the enrollment."""
        self._sending: deque[tuple[str, str]] = deque()
        self._waiting: deque[tuple[str, str]] = deque()

    def _moment(self) -> datetime:
        self._at += timedelta(milliseconds=1)
        return self._at

    def begins(self) -> CustomerUpdated:
        key, at = f"customer-{self._new:07}", self._moment()
        self._new += 1
        record = updated(key, "Cart Updated", at, {"cart_id": key, "total": 50, "products": [PRODUCT] * 2})
        assert record.event is not None
        cause = f"event\nshop\n{record.event.id}"
        self._listening.append((key, enrollment_id(key, "abandoned-cart", Entered(at, cause, key))))
        return record

    def checks_out(self) -> CustomerUpdated:
        key, enrollment = self._listening.popleft()
        self._sending.append((key, enrollment))
        return updated(key, "Checkout Started", self._moment(), {"cart_id": key, "products": [PRODUCT] * 2})

    def gets_mail(self) -> CustomerUpdated:
        key, enrollment = self._sending.popleft()
        self._waiting.append((key, enrollment))
        at = self._moment()
        properties = {
            "message_id": effect_id(enrollment, "reminder", 1),
            "enrollment": enrollment,
            "journey": "abandoned-cart",
            "decided_for": at.isoformat(),
        }
        return updated(key, EMAIL_SENT, at, properties, MAILER_SOURCE)

    def orders(self) -> CustomerUpdated:
        key, _ = self._waiting.popleft()
        return updated(key, "Order Completed", self._moment(), {"cart_id": key, "total": 50})

    def looks(self) -> CustomerUpdated:
        """Somebody who is inside."""
        key, _ = self._chance.choice(self._listening)
        return updated(key, "Product Viewed", self._moment(), PRODUCT)

    def passes_by(self) -> CustomerUpdated:
        """Somebody who is not."""
        key = f"visitor-{self._chance.randrange(KNOWN):07}"
        return updated(key, "Product Viewed", self._moment(), PRODUCT)

    def moves_in(self) -> Iterator[CustomerUpdated]:
        """All who are inside as a round begins."""
        for _ in range(INSIDE):
            yield self.begins()
        for _ in range(2 * SENDING):
            yield self.checks_out()
        for _ in range(SENDING):
            yield self.gets_mail()

    def goes_on(self, records: int) -> Iterator[CustomerUpdated]:
        share = [self.begins, self.checks_out, self.gets_mail, self.orders, self.looks, self.looks]
        hundred = [does for does in share for _ in range(5)] + [self.passes_by] * 70
        for done in range(0, records, len(hundred)):
            self._chance.shuffle(hundred)
            for does in hundred[: records - done]:
                yield does()


async def tell(log: PostgresLog, records: Iterator[CustomerRecord]) -> None:
    """Append to the stream that journeys reads, in rows as a busy segmenter writes them."""
    waiting: dict[int, list[Entry]] = {partition: [] for partition in range(log.partitions)}
    for record in records:
        assert isinstance(record, CustomerUpdated)
        key = record.customer.key
        partition = partition_of(key, log.partitions)
        waiting[partition].append(Entry(key, msgspec.json.encode(record)))
        if len(waiting[partition]) == 500:
            await log.append(CUSTOMERS, partition, waiting[partition])
            waiting[partition] = []
    for partition, entries in waiting.items():
        await log.append(CUSTOMERS, partition, entries)


async def tell_all(log: PostgresLog, record: CustomerRecord) -> None:
    for partition in range(log.partitions):
        await log.append(CUSTOMERS, partition, [Entry("", msgspec.json.encode(record))])


@asynccontextmanager
async def runtime(database: Database, partitions: int = DEFAULT_PARTITIONS) -> Any:
    log = PostgresLog(database, partitions)
    await log.start()
    async with database.connect() as connection:
        installation = await open_installation(connection, partitions, 1.0)
    yield Runtime(log, SystemClock(), database, installation)
    await log.close()


async def apply(runtime: Runtime, book: Playbook, now: datetime) -> None:
    assert runtime.database is not None
    assert isinstance(runtime.log, PostgresLog)
    async with runtime.database.connect() as connection:
        await playbooks.activate(runtime.log, connection, book, now)
    await tell_all(runtime.log, Activation(as_of=now, playbook=book.hash))


async def drained(runtime: Runtime, worker: Worker) -> float:
    """Run a worker until it has taken all of its stream; the seconds that took."""
    assert isinstance(runtime.log, PostgresLog)
    ends = await runtime.log.ends(CUSTOMERS)
    began = perf_counter()
    await worker.start()

    def there(partition: int, end: int) -> bool:
        lane = worker.lane(partition)
        if lane is not None and lane.halted:
            raise RuntimeError(lane.halted)
        return lane is not None and lane.position.next_offset >= end

    while not all(there(partition, end) for partition, end in ends.items()):  # noqa: ASYNC110  it does not know of us
        await asyncio.sleep(0.002)
    took = perf_counter() - began
    await worker.stop()
    return took


# What the service has PostgreSQL do for one batch, written down as it was done.


class Done(NamedTuple):
    partition: int
    keys: Sequence[str]
    timers: int
    changes: store.Changes
    agenda: Mapping[tuple[str, str], datetime | None]
    outputs: Mapping[Destination, Sequence[Entry]]


class _Noted:
    """A batch that notes what it writes (`shared.processing.port.Batch`)."""

    def __init__(
        self, batch: JourneysBatch, partition: int, keys: Sequence[str], timers: int, done: list[Done]
    ) -> None:
        self.of, self._partition, self._keys, self._timers, self._done = batch, partition, keys, timers, done
        self._out: Any = None

    def handle(self, message: Any, out: Outputs) -> None:
        self._out = out
        self.of.handle(message, out)

    def fire(self, timer: Timer, out: Outputs) -> None:
        self._out = out
        self.of.fire(timer, out)

    def nothing_to_save(self) -> bool:
        return False

    def memo(self) -> bytes:
        return self.of.memo()

    def note(self) -> None:
        run, changes = self._out, self.of.changes()
        done = Done(self._partition, self._keys, self._timers, changes, dict(run.agenda.changed), dict(run.outputs))
        self._done.append(done)


class Noting(JourneysProcessor):
    """Journeys, with a pencil."""

    def __init__(self, done: list[Done]) -> None:
        super().__init__(PlaybookShelf())
        self._noted = done

    async def load(self, connection: Connection, given: Sequence[Given]) -> Any:
        return [
            _Noted(batch, one.partition, _keys(one), len(one.timers), self._noted)
            for one, batch in zip(given, await super().load(connection, given), strict=True)
        ]

    async def provide(self, connection: Connection, batch: Any) -> bool:
        return await super().provide(connection, batch.of)

    def save(self, batches: Sequence[Any]) -> Writes:
        for batch in batches:
            batch.note()
        return super().save([batch.of for batch in batches])


def _keys(given: Given) -> list[str]:
    keys = {timer.subject for timer in given.timers}
    return list(keys.union(m.customer.key for m in given.messages if isinstance(m, CustomerUpdated)))


async def noted(folder: Path) -> list[Done]:
    done: list[Done] = []
    async with prepared(folder) as database, runtime(database) as built:
        await drained(built, Worker(built, Noting(done), JourneysSettings.read()))
    return done


async def repeated(runtime: Runtime, done: Sequence[Done], settings: JourneysSettings) -> float:
    """The statements of these batches again, as many partitions at a time as the service has; the seconds."""
    database, log = runtime.database, runtime.log
    assert database is not None
    assert isinstance(log, PostgresLog)
    outlet, in_flight = StreamOutlet(log), asyncio.Semaphore(settings.partitions_in_flight)
    ends = await log.ends(CUSTOMERS)
    reader = log.reader(CUSTOMERS)
    async with database.connect() as connection:
        await mechanics.make_partitions(connection, SERVICE, log.partitions)
        rows = await connection.fetch("SELECT * FROM processing.partitions WHERE service = $1", SERVICE)
    offsets = {row["partition"]: row["next_offset"] for row in rows}
    fences = {
        row["partition"]: Fence(row["partition"], row["epoch"], row["version"], 0, START, {}, {}, b"", 0, 0)
        for row in rows
    }
    reader.assign(offsets)
    began = perf_counter()

    async def lane(partition: int) -> None:
        fence, low = fences[partition], START
        offset = offsets[partition]
        for one in (one for one in done if one.partition == partition):
            if offset < ends[partition]:
                offset = (await reader.fetch(partition, settings.batch_records, 0.25)).next_offset
            async with in_flight:
                async with database.connect() as connection:
                    until = START + timedelta(days=3650) if one.timers else low
                    await mechanics.due_timers(
                        connection, SERVICE, partition, low, until, one.timers or settings.batch_records
                    )
                    read = await store.customers(connection, [(partition, key) for key in one.keys])
                    outputs = {partition: one.outputs}
                    clauses = [
                        *store.changed({partition: _where_it_stands(one.changes, read.get(partition, {}))}),
                        *mechanics.timers(SERVICE, {partition: one.agenda}),
                        *filter(None, [outlet.clause(outputs)]),
                    ]
                    outlet.wrote(outputs, await mechanics.fence(connection, SERVICE, [fence], clauses))
            fence = fence._replace(version=fence.version + 1)

    await asyncio.gather(*(lane(partition) for partition in fences))
    took = perf_counter() - began
    await reader.close()
    return took


def _where_it_stands(changes: store.Changes, read: Mapping[str, store.StoredCustomer]) -> store.Changes:
    """These changes of rows that were read elsewhere when they were noted."""
    places = {key: row.place for key, row in read.items()}
    return changes._replace(customers=[row._replace(place=places.get(row.customer)) for row in changes.customers])


def pickled(done: Sequence[Done], folder: Path) -> None:
    (folder / "done").write_bytes(pickle.dumps(done))


def unpickled(folder: Path) -> list[Done]:
    found: list[Done] = pickle.loads((folder / "done").read_bytes())
    return found


# The series.


@dataclass(frozen=True)
class Size:
    records: int = RECORDS
    others: int = OTHER_JOURNEYS


def prepare(folder: Path, size: Size = Size()) -> None:
    async def fill() -> None:
        async with making(folder, ALL_MIGRATIONS) as database, runtime(database) as built:
            town = Town()
            await apply(built, playbook(size.others), START)
            await tell(built.log, town.moves_in())
            await drained(built, main.build(built, JourneysSettings.read()).worker)
            await tell(built.log, town.goes_on(size.records))
        pickled(await noted(folder), folder)

    asyncio.run(fill())


def run(folder: Path) -> float:
    async def once() -> float:
        async with prepared(folder) as database, runtime(database) as built:
            before = await _progress(database)
            took = await drained(built, main.build(built, JourneysSettings.read()).worker)
            records, sent = (after - was for after, was in zip(await _progress(database), before, strict=True))
            # Five in a hundred ask for a mail; a batch may tell the time besides.
            assert records * 0.05 <= sent < records * 0.052, (records, sent)
            return records / took

    return on_the_services_loop(once())


def limit(folder: Path) -> float:
    async def once() -> float:
        done = unpickled(folder)
        async with prepared(folder) as database, runtime(database) as built:
            records, _ = await _progress(database)
            left: int = sum((await built.log.ends(CUSTOMERS)).values()) - records
            return left / await repeated(built, done, JourneysSettings.read())

    return on_the_services_loop(once())


async def _progress(database: Database) -> tuple[int, int]:
    """How many records were taken, and how many put out."""
    async with database.connect() as connection:
        taken = await connection.fetchval(
            "SELECT coalesce(sum(next_offset), 0)::bigint FROM processing.partitions WHERE service = $1", SERVICE
        )
        out = await connection.fetchval("SELECT sum(next)::bigint FROM log.heads WHERE stream = $1", MESSAGES)
    return taken, out


SERIES = (
    Series(
        "journeys",
        "records/s",
        run,
        limit,
        "its statements alone",
        goal=30_000,
        prepare=prepare,
    ),
)
