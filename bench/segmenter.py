"""How many events the segmenter takes in a second: two worker processes over 1M known customers, and its heart alone.

A data folder is prepared once: 1M customers with a past, as the service itself stores them, and a day's backlog of 1M
events packed as ingest would. Each round lets the next slice of that backlog into the log and has two ordinary service
processes take it. The limit executes the same statements over the same slice in two processes, with no heart between
reading and writing; its clock starts when all that it needs has been made. Both have PostgreSQL, fsync on, beside them
on the same cores.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

import asyncpg
import msgspec
import uvloop

from bench.measure import Series
from bench.prepared import a_moment, serving, shared_out
from services.segmenter import fingerprints, history, spans, store
from services.segmenter.batch import DATE, FLIP
from services.segmenter.history import Row
from services.segmenter.profile import Profile, apply, pass_time, reach_date
from services.segmenter.rules import Rules, compile_rules
from services.segmenter.store import Seen, pack_profile
from services.segmenter.worker import SegmenterProcessor
from services.serving import MIGRATIONS
from shared.contracts.customers import Customer, CustomerUpdated
from shared.contracts.events import Event
from shared.contracts.streams import CUSTOMERS, DEFAULT_PARTITIONS, EVENTS, partition_of
from shared.database.clauses import execute
from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database, inside
from shared.database.migrations import migrate
from shared.language import SHIPPED, load, read_folder
from shared.log.packing import pack, size_of
from shared.log.port import Entry, Origin
from shared.log.postgres import PostgresLog
from shared.memory import collect_seldom
from shared.processing import playbooks
from shared.processing import store as mechanics
from shared.processing.installation import open_installation
from shared.processing.playbooks import PlaybookShelf
from shared.processing.port import Connection
from shared.processing.store import Fence
from shared.settings import Settings

CUSTOMERS_KNOWN = 1_000_000
BACKLOG = 1_000_000
SLICE = 200_000
"""Events of one round: the whole backlog in five."""
PROCESSES = 2
BEGIN = datetime(2026, 3, 2, 6, tzinfo=UTC)
APART = timedelta(days=1) / BACKLOG
"""The backlog is a day's. Of the customers' 1M flips and birthdays those of that day fall due on the way."""

LIVES = 2_000
"""Different pasts; every so many customers have the same one."""
HEART_CUSTOMERS = 20_000
HEART_EVENTS = 100_000

# What the heart adds to the events, and the limit therefore writes too: the share of events from which another follows
# (of carts), and the share after which a timer is moved.
DERIVED = 0.19
MOVED = 0.10

SERVER = {"shared_buffers": "2GB", "max_wal_size": "16GB", "checkpoint_timeout": "30min"}
"""As one sets up a server for a million customers. Each round begins with a fresh checkpoint, so nearly every page that
it touches is written whole into the WAL once; compressing those would cost a quarter of all throughput."""
_COPY_SECONDS = 300
_WARM = ("profiles", "profiles_pkey")
_WARM_TIMERS = ("timers", "timers_pkey", "timers_due")

Pick = Callable[[random.Random], int]
"""Chooses a customer."""


def uniform(chance: random.Random) -> int:
    return chance.randrange(CUSTOMERS_KNOWN)


def zipf(chance: random.Random) -> int:
    """The customer of rank r comes 1/r as often as the first: who leads has 7% of all events."""
    return int(CUSTOMERS_KNOWN ** chance.random()) - 1


# The shop


CONTEXT = msgspec.Raw(
    msgspec.json.encode(
        {
            "library": {"name": "analytics-python", "version": "2.3.4"},
            "locale": "nb-NO",
            "timezone": "Europe/Oslo",
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0",
            "page": {"url": "https://lamps.example/p/17", "referrer": "https://lamps.example/", "title": "Lamp 17"},
        }
    )
)
PRODUCTS = [
    msgspec.Raw(
        msgspec.json.encode(
            {
                "product_id": f"p{number}",
                "name": "Desk lamp, brass",
                "category": ["lamps", "bulbs", "shades"][number % 3],
                "price": 9.9 + number,
                "quantity": 1,
                "currency": "EUR",
                "url": "https://lamps.example/p/17",
                "image_url": "https://lamps.example/i/17.jpg",
            }
        )
    )
    for number in range(300)
]
ORDERS = [
    msgspec.Raw(msgspec.json.encode({"order_id": f"o{number}", "total": 19.9 + number, "currency": "EUR"}))
    for number in range(300)
]
PAGE = msgspec.Raw(b'{"path":"/about","title":"About us"}')
NAMES = ["Product Viewed", "Product Added", "Order Completed", "Page Viewed", ""]
SHARES = [50, 65, 70, 92, 100]
"""In a hundred, summed up; "" is an identify call."""


def key_of(customer: int) -> str:
    return f"customer-{customer:07d}"


def traits_of(life: int) -> msgspec.Raw:
    birthday = f"19{60 + life % 40}-{1 + life % 12:02}-{1 + life % 28:02}"
    traits = {"email": f"c{life}@example.com", "name": "Ann Lund", "country": "NO"}
    return msgspec.Raw(msgspec.json.encode(traits | ({"birthday": birthday} if life % 3 == 0 else {})))


TRAITS = [traits_of(life) for life in range(LIVES)]


def event_of(chance: random.Random, number: int, customer: int, at: datetime) -> Event:
    """One of a shop's usual mix; about 1 KB on the road."""
    (name,) = chance.choices(NAMES, cum_weights=SHARES)
    properties = PAGE
    if name == "Order Completed":
        properties = chance.choice(ORDERS)
    elif name.startswith("Product"):
        properties = chance.choice(PRODUCTS)
    return Event(
        id=f"3f2c8e9a-1b7d-4c55-9d0e-{number:012d}",
        source="shop",
        key=key_of(customer),
        user_id=key_of(customer),
        type="track" if name else "identify",
        name=name,
        occurred_at=at,
        received_at=at,
        properties=properties if name else msgspec.Raw(b"{}"),
        # Shops repeat all that they know with each call.
        traits=msgspec.Raw(b"{}") if name else TRAITS[customer % LIVES],
        context=CONTEXT,
    )


def backlog(pick: Pick, count: int) -> Iterator[Event]:
    chance = random.Random(1)
    for number in range(count):
        yield event_of(chance, number, pick(chance), BEGIN + number * APART)


def lives(rules: Rules) -> list[Profile]:
    """What customers are as the backlog begins: each after some events of the last hundred days, and the time since."""
    chance = random.Random(2)
    found = []
    for life in range(LIVES):
        moments = sorted(BEGIN - timedelta(days=100) * chance.random() for _ in range(chance.randint(2, 20)))
        profile: Profile | None = None
        for number, at in enumerate(moments):
            profile = passed(profile, rules, at)
            event = event_of(chance, number, life, at)
            if number == 0:
                event = msgspec.structs.replace(event, type="identify", name="", traits=TRAITS[life])
            profile, _ = apply(profile, event, rules, at)
        profile = passed(profile, rules, BEGIN)
        assert profile is not None
        found.append(profile)
    return found


def passed(profile: Profile | None, rules: Rules, until: datetime) -> Profile | None:
    """After every flip and date up to `until`, in their order."""
    while profile is not None and (due := _next(profile)) is not None and due[0] <= until:
        at, journey = due
        if journey:
            profile, _ = reach_date(profile, "", rules, journey, at)
        else:
            profile, _ = pass_time(profile, "", rules, at)
    return profile


def _next(profile: Profile) -> tuple[datetime, str] | None:
    moments = [(held.due, journey) for journey, held in profile.dates.items() if held.due is not None]
    if profile.timer is not None:
        moments.append((profile.timer, ""))
    return min(moments, default=None)


# The heart alone


def heart(folder: Path) -> float:
    """Events a second of processor time."""
    rules = compile_rules(load(read_folder(SHIPPED)))
    past = lives(rules)
    profiles = {key_of(customer): past[customer % LIVES] for customer in range(HEART_CUSTOMERS)}
    chance = random.Random(3)
    events = [
        event_of(chance, number, chance.randrange(HEART_CUSTOMERS), BEGIN + number * APART)
        for number in range(HEART_EVENTS)
    ]
    began = time.process_time()
    for event in events:
        profiles[event.key], _ = apply(profiles[event.key], event, rules, event.received_at)
    return len(events) / (time.process_time() - began)


# The prepared data


def prepare(folder: Path, pick: Pick) -> None:
    asyncio.run(_prepare(folder, pick))


async def _prepare(folder: Path, pick: Pick) -> None:
    async with server(folder) as postgres:
        async with open_database(postgres.url) as database:
            await migrate(database, MIGRATIONS)
            async with database.connect() as connection:
                await open_installation(connection, DEFAULT_PARTITIONS, None)
                await set_clock(connection, BEGIN)
                log = PostgresLog(database, DEFAULT_PARTITIONS)
                await log.start()
                playbook = load(read_folder(SHIPPED))
                await playbooks.activate(log, connection, playbook, BEGIN)
                await log.close()
                with serving("segmenter", postgres.url, 1) as processes:
                    await until(connection, DEFAULT_PARTITIONS, processes)
                await copy_customers(connection, compile_rules(playbook))
                await copy_backlog(connection, pick)
                await connection.execute("CREATE EXTENSION pg_prewarm")
                await connection.execute("VACUUM ANALYZE segmenter.profiles, processing.timers", timeout=_COPY_SECONDS)
        administration = await asyncpg.connect(_named(postgres.url, "postgres"))
        # A second one of the same kind: the limit must not find what the service wrote.
        await administration.execute("CREATE DATABASE bare TEMPLATE rapport STRATEGY file_copy")
        await administration.close()


async def copy_customers(connection: Connection, rules: Rules) -> None:
    past = lives(rules)
    stored = [(profile.stage, pack_profile(profile)) for profile in past]
    keys = [key_of(customer) for customer in range(CUSTOMERS_KNOWN)]
    lanes = [partition_of(key, DEFAULT_PARTITIONS) for key in keys]
    await connection.copy_records_to_table(
        "profiles",
        schema_name="segmenter",
        timeout=_COPY_SECONDS,
        records=((lane, key, *stored[n % LIVES]) for n, (lane, key) in enumerate(zip(lanes, keys, strict=True))),
    )
    timers = [
        [(FLIP, "", profile.timer)] * (profile.timer is not None)
        + [(DATE, f"{journey}\n", held.due) for journey, held in profile.dates.items() if held.due is not None]
        for profile in past
    ]
    await connection.copy_records_to_table(
        "timers",
        schema_name="processing",
        timeout=_COPY_SECONDS,
        records=(
            (SegmenterProcessor.service, lane, kind, before + key, due)
            for n, (lane, key) in enumerate(zip(lanes, keys, strict=True))
            for kind, before, due in timers[n % LIVES]
        ),
    )


async def copy_backlog(connection: Connection, pick: Pick) -> None:
    """Slices of packed rows, each beside the offsets that it will have in the log. An activation is at offset 0."""
    await connection.execute("CREATE SCHEMA bench")
    await connection.execute("CREATE TABLE bench.backlog (slice int, LIKE log.rows)")
    rows = []
    following = [1] * DEFAULT_PARTITIONS
    waiting: list[list[Entry]] = [[] for _ in range(DEFAULT_PARTITIONS)]
    encode = msgspec.json.Encoder().encode
    for number, event in enumerate(backlog(pick, BACKLOG)):
        lane = partition_of(event.key, DEFAULT_PARTITIONS)
        waiting[lane].append(Entry(event.key, encode(event)))
        last_of_slice = (number + 1) % SLICE == 0
        for one in range(DEFAULT_PARTITIONS) if last_of_slice else (lane,):
            # What ingest under load puts into one row.
            if waiting[one] and (last_of_slice or len(waiting[one]) == 100):
                entries, waiting[one] = waiting[one], []
                first, following[one] = following[one], following[one] + len(entries)
                size = sum(map(size_of, entries))
                rows.append((number // SLICE, EVENTS, one, first, following[one] - 1, size, pack(entries)))
    await connection.copy_records_to_table("backlog", schema_name="bench", records=rows, timeout=_COPY_SECONDS)


class Round(NamedTuple):
    """Which slice is next, how many events were taken before it, and how many will be when it is done."""

    slice: int
    before: int
    after: int


async def next_slice(connection: Connection) -> Round:
    """Let the next slice into the log, and the clock show its end."""
    number: int = await connection.fetchval("SELECT min(slice) FROM bench.backlog")
    await set_clock(connection, BEGIN + (number + 1) * SLICE * APART)
    before = await taken(connection, "segmenter")
    async with connection.transaction():
        await connection.execute(
            "INSERT INTO log.rows SELECT stream, partition, first, last, size, body FROM bench.backlog WHERE slice = $1"
            " ORDER BY stream, partition, last",
            number,
        )
        await connection.execute(
            "UPDATE log.heads h SET next = r.next FROM (SELECT stream, partition, max(last) + 1 AS next"
            " FROM bench.backlog WHERE slice = $1 GROUP BY 1, 2) r"
            " WHERE h.stream = r.stream AND h.partition = r.partition",
            number,
        )
        await connection.execute("DELETE FROM bench.backlog WHERE slice = $1", number)
    after: int = await connection.fetchval("SELECT sum(next)::bigint FROM log.heads WHERE stream = $1", EVENTS)
    for schema, tables in (("segmenter", _WARM), ("processing", _WARM_TIMERS)):
        for table in tables:
            await connection.execute("SELECT pg_prewarm($1)", f"{schema}.{table}")
    return Round(number, before, after)


async def set_clock(connection: Connection, shown: datetime) -> None:
    await connection.execute("UPDATE processing.installation SET clock_real = now(), clock_shown = $1", shown)


async def taken(connection: Connection, service: str) -> int:
    """The records of `events` that are behind this service."""
    found: int = await connection.fetchval(
        "SELECT coalesce(sum(next_offset), 0)::bigint FROM processing.partitions WHERE service = $1", service
    )
    return found


async def until(connection: Connection, records: int, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until the service has taken so many."""
    while await taken(connection, "segmenter") < records:
        await a_moment(processes)


# The whole service


def run(folder: Path) -> float:
    return asyncio.run(_run(folder))


async def _run(folder: Path) -> float:
    """Events a second from when both processes own their share until the slice is done."""
    async with server(folder) as postgres, open_database(postgres.url) as database, database.connect() as connection:
        slice_ = await next_slice(connection)
        with serving("segmenter", postgres.url, PROCESSES) as processes:
            await shared_out(connection, "segmenter", processes)
            began, first = time.perf_counter(), await taken(connection, "segmenter")
            await until(connection, slice_.after, processes)
            return (slice_.after - first) / (time.perf_counter() - began)


# The limit: the same statements, no heart


@dataclass
class Prepared:
    """What is to be written for the records of one partition's slice, a place for each record."""

    keys: list[str]
    ids: list[bytes]
    seen: list[Seen]
    rows: list[Row]
    values: list[bytes]


class Span(NamedTuple):
    """What one process was about, in its monotonic seconds, which are the machine's."""

    begin: float
    end: float
    events: int


def limit(folder: Path) -> float:
    return asyncio.run(_limit(folder))


async def _limit(folder: Path) -> float:
    async with server(folder) as postgres:
        url = _named(postgres.url, "bare")
        async with open_database(url) as database, database.connect() as connection:
            await next_slice(connection)
            days = {spans.day("seen", BEGIN), spans.day("seen", BEGIN + spans.DAY)}
            await store.make_room(connection, days | {spans.month("history", BEGIN)})
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(PROCESSES)
        answers: multiprocessing.Queue[Span] = context.Queue()
        processes = [
            context.Process(target=bare_process, args=(url, number, barrier, answers)) for number in range(PROCESSES)
        ]
        for process in processes:
            process.start()
        found = [await asyncio.to_thread(answers.get) for _ in processes]
        for process in processes:
            process.join()
        ended, began = max(span.end for span in found), min(span.begin for span in found)
        return sum(span.events for span in found) / (ended - began)


def bare_process(url: str, number: int, barrier: Barrier, answers: multiprocessing.Queue[Span]) -> None:
    collect_seldom()  # as the processes of the services do
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answers.put(runner.run(_bare_process(url, number, barrier)))


async def _bare_process(url: str, number: int, barrier: Barrier) -> Span:
    """A share of the partitions, as many in flight as in the service."""
    settings = Settings.read()
    async with open_database(url) as database:
        log = PostgresLog(database, DEFAULT_PARTITIONS)
        lanes = [
            await BareLane.open(database, log, partition) for partition in range(number, DEFAULT_PARTITIONS, PROCESSES)
        ]
        turns = asyncio.Semaphore(settings.partitions_in_flight)
        barrier.wait()
        began = time.monotonic()
        await asyncio.gather(*(lane.run(turns, settings.batch_records) for lane in lanes))
        return Span(began, time.monotonic(), sum(len(lane.prepared.keys) for lane in lanes))


class BareLane:
    """A partition whose records are read, and for which is written what the service would write."""

    def __init__(self, database: Database, log: PostgresLog, fence: Fence, prepared: Prepared) -> None:
        self.database, self.log, self.fence, self.prepared = database, log, fence, prepared

    @classmethod
    async def open(cls, database: Database, log: PostgresLog, partition: int) -> BareLane:
        processor = SegmenterProcessor(PlaybookShelf())
        async with database.connect() as connection:
            row = await connection.fetchrow(
                "SELECT epoch, version, next_offset, as_of FROM processing.partitions"
                " WHERE service = 'segmenter' AND partition = $1",
                partition,
            )
        assert row is not None
        prepared = Prepared([], [], [], [], [])
        reader = log.reader(EVENTS)
        reader.assign({partition: row["next_offset"]})
        while records := (await reader.fetch(partition, 10_000, 0)).records:
            for record in records:
                event = processor.decode(record.key, record.value)
                assert isinstance(event, Event)
                prepared.keys.append(event.key)
                prepared.ids.append(fingerprints.identity(event.source, event.id))
                prepared.seen.append(Seen(fingerprints.content(event), event.received_at))
                told = CustomerUpdated(as_of=event.received_at, customer=Customer(key=event.key), event=event)
                prepared.rows.append(history.row(told))
                prepared.values.append(record.value)
        await reader.close()
        fence = Fence(partition, row["epoch"], row["version"], row["next_offset"], row["as_of"], {}, {}, b"", 0, 0)
        return cls(database, log, fence, prepared)

    async def run(self, turns: asyncio.Semaphore, batch_records: int) -> None:
        prepared, partition = self.prepared, self.fence.partition
        reader = self.log.reader(EVENTS)
        reader.assign({partition: self.fence.next_offset})
        begin = 0
        while begin < len(prepared.keys):
            fetched = await reader.fetch(partition, batch_records, 1.0)
            end = begin + len(fetched.records)
            async with turns:
                await self._batch(slice(begin, end), fetched.next_offset)
            begin = end
        await reader.close()

    async def _batch(self, part: slice, next_offset: int) -> None:
        prepared, partition = self.prepared, self.fence.partition
        keys, ids, rows = prepared.keys[part], prepared.ids[part], prepared.rows[part]
        road = rows[-1].occurred_at
        async with self.database.connect() as connection:
            await mechanics.due_timers(connection, "segmenter", partition, self.fence.as_of, road, 2000)
            since = rows[0].occurred_at - fingerprints.WINDOW
            known = await store.known(
                connection, {(partition, key) for key in keys}, [(partition, id) for id in ids], since
            )
            states = known.profiles[partition]
        derived = int(DERIVED * len(rows))
        entries = [
            Entry(key, value, Origin("segmenter", partition, 1, 1), None)
            for key, value in zip(keys, prepared.values[part], strict=True)
        ]
        moved = {(FLIP, key): road + timedelta(days=30) for key in keys[: int(MOVED * len(keys))]}
        async with self.database.connect() as connection:
            changes = store.Changes(
                [(key, "convert", states[key]) for key in sorted(states)],
                [(id, seen.content, seen.seen_at) for id, seen in zip(ids, prepared.seen[part], strict=True)],
                rows + rows[:derived],
                store.Counts(len(ids), 0, road),
                known.places[partition],
            )
            clauses, work = store.changed({partition: changes})
            last = [
                *mechanics.timers("segmenter", {partition: moved}),
                self.log.append_in({(CUSTOMERS, partition): entries + entries[:derived]}),
            ]
            if work is None:
                await mechanics.fence(connection, "segmenter", [self.fence], [*clauses, *last])
            else:
                async with inside(connection):
                    await mechanics.fence(connection, "segmenter", [self.fence], clauses)
                    await execute(connection, [*await work(connection), *last])
        self.fence = self.fence._replace(version=self.fence.version + 1, next_offset=next_offset, as_of=road)


# The server


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    async with EmbeddedPostgres(folder / "postgres", settings=SERVER) as postgres:
        yield postgres


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


def _named(url: str, database: str) -> str:
    return f"{url.rpartition('/')[0]}/{database}"


def _of(name: str, pick: Pick) -> Series:
    return Series(
        name=f"segmenter, {name}",
        unit="events/s",
        prepare=partial(prepare, pick=pick),
        run=run,
        limit=limit,
        limit_name="the statements alone",
        goal=20_000,
        ratio_goal=0.5,
        rounds=3,
    )


SERIES = (
    Series(name="segmenter, heart alone", unit="events/s of one core", run=heart, rounds=3),
    _of("uniform", uniform),
    _of("zipf", zipf),
)
