"""How many timers fire in a second, whatever is pending.

The timers are journeys' own, each the end of a wait, after which a mail is asked for: stories are read, moved and
written, timers deleted, requests appended. As waits of one length do, they fall due about in the order in which they
were set; a million of those who wait for the first of them are in the tables. A tick in each partition sets them going,
and two processes of the service do the rest. Beside it the bare take of due rows: the statements that find, fence and
delete them; and the mechanics in one process, with a service that does nothing when it is woken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.journeys import PRODUCT, START, apply, drained, playbook, runtime, tell, tell_all, updated
from bench.measure import Series
from bench.prepared import a_moment, making, on_the_services_loop, prepared, serving, shared_out
from services.journeys import main
from services.journeys.settings import JourneysSettings
from services.journeys.worker import SERVICE, JourneysProcessor
from services.serving import MIGRATIONS
from shared.contracts.customers import Tick
from shared.contracts.streams import CUSTOMERS
from shared.database.engine import Database
from shared.log.postgres import PostgresLog
from shared.processing import store as mechanics
from shared.processing.playbooks import PlaybookShelf
from shared.processing.port import Connection, Given, Lane, Outputs, Timer, Writes
from shared.processing.store import Fence
from shared.processing.worker import Worker
from shared.runtime import Runtime

FIRED = 100_000
"""How many of the pending timers fire in a round."""
_MODEL = "customer-00000000"
_DUE = START + timedelta(hours=1)
_CUSTOMERS = 1_000_000
_ROWS_AT_ONCE = 1_000_000
_PROCESSES = 2


async def fill(folder: Path, pending: int) -> None:
    """So many customers in a journey, each of whom a timer will wake: one real one, and copies of them."""
    settings = {"wal_level": "minimal", "max_wal_senders": "0", "max_wal_size": "16GB", "maintenance_work_mem": "1GB"}
    async with making(folder, MIGRATIONS, settings) as database, runtime(database) as built:
        await apply(built, playbook(), START)
        await tell(built.log, iter([updated(_MODEL, "Event 0", START, {"cart_id": _MODEL, "products": [PRODUCT] * 2})]))
        await drained(built, main.build(built, JourneysSettings.read()).worker)
        async with database.connect() as connection:
            assert await connection.fetchval("SELECT count(*) FROM processing.timers") == 1
            await connection.execute("DROP INDEX processing.timers_due")
            for first in range(1, pending, _ROWS_AT_ONCE):
                last = min(first + _ROWS_AT_ONCE, pending) - 1
                if last <= _CUSTOMERS:
                    await connection.execute(_COPY_CUSTOMERS, _MODEL, first, last, timeout=600)
                    await connection.execute(_COPY_ENROLLMENTS, _MODEL, first, last, timeout=600)
                await connection.execute(_COPY_TIMERS, _MODEL, first, last, _DUE, timeout=600)
            await connection.execute(
                "CREATE INDEX timers_due ON processing.timers (service, partition, due, kind, subject)", timeout=600
            )


_COPY_CUSTOMERS = """
    INSERT INTO journeys.customers
    SELECT (crc32(convert_to(copy.key, 'UTF8')) % 12)::smallint, copy.key,
           decode(replace(replace(encode(model.story, 'hex'), encode(convert_to($1, 'UTF8'), 'hex'),
                                  encode(convert_to(copy.key, 'UTF8'), 'hex')),
                          encode(convert_to(named.id, 'UTF8'), 'hex'),
                          encode(convert_to(md5(copy.key)::uuid::text, 'UTF8'), 'hex')), 'hex'),
           decode(replace(encode(model.snapshot, 'hex'), encode(convert_to($1, 'UTF8'), 'hex'),
                          encode(convert_to(copy.key, 'UTF8'), 'hex')), 'hex')
      FROM journeys.customers model
      CROSS JOIN (SELECT id::text FROM journeys.enrollments WHERE customer = $1) AS named
      CROSS JOIN (SELECT 'customer-' || to_char(n, 'FM00000000') AS key FROM generate_series($2::int, $3::int) AS n)
           AS copy
     WHERE model.customer = $1"""

_COPY_ENROLLMENTS = """
    INSERT INTO journeys.enrollments
           (partition, id, customer, journey, version, key, status, step, due, entered_at, reason)
    SELECT (crc32(convert_to(copy.key, 'UTF8')) % 12)::smallint, md5(copy.key)::uuid, copy.key, journey, version, m.key,
           status, step, due, entered_at, reason
      FROM journeys.enrollments m
      CROSS JOIN (SELECT 'customer-' || to_char(n, 'FM00000000') AS key FROM generate_series($2::int, $3::int) AS n)
           AS copy
     WHERE customer = $1"""

# Each 2,048 of them shuffled: multiplied by an odd number, the numbers of one bunch come in another order.
_COPY_TIMERS = """
    INSERT INTO processing.timers (service, partition, kind, subject, due)
    SELECT service, (crc32(convert_to(copy.key, 'UTF8')) % 12)::smallint, kind, copy.key,
           $4::timestamptz + copy.place * interval '1 ms'
      FROM processing.timers
      CROSS JOIN (SELECT 'customer-' || to_char(n, 'FM00000000') AS key, n / 2048 * 2048 + n * 7919 % 2048 AS place
                    FROM generate_series($2::bigint, $3::bigint) AS n) AS copy
     WHERE subject = $1"""


class Nothing:
    """A batch of which nothing comes (`shared.processing.port.Batch`)."""

    def __init__(self, memo: bytes) -> None:
        self._memo = memo

    def handle(self, message: Any, out: Outputs) -> None:
        return

    def fire(self, timer: Timer, out: Outputs) -> None:
        return

    def nothing_to_save(self) -> bool:
        return False

    def memo(self) -> bytes:
        return self._memo


class Idle:
    """A service that does nothing when it is woken (`shared.processing.port.Processor`)."""

    service = SERVICE
    stream = CUSTOMERS

    def __init__(self) -> None:
        self._journeys = JourneysProcessor(PlaybookShelf())
        self.decode, self.as_of, self.tick = self._journeys.decode, self._journeys.as_of, self._journeys.tick

    async def load(self, connection: Connection, given: Sequence[Given]) -> list[Nothing]:
        return [Nothing(one.memo) for one in given]

    async def provide(self, connection: Connection, batch: Nothing) -> bool:
        return False

    def save(self, batches: Sequence[Nothing]) -> Writes:
        return Writes()

    def beside(self) -> None:
        return None

    async def attend(self, lane: Lane) -> None:
        return


async def journeys(built: Runtime, database: Database, until: datetime) -> float:
    """Seconds in which processes of the service that own their share already fire all timers due by then."""
    with serving(SERVICE, database.url, _PROCESSES) as processes:
        async with database.connect() as connection:
            await shared_out(connection, SERVICE, processes)
            began = perf_counter()
            await _tick(built, until)
            while await connection.fetchval(_LEFT, SERVICE, range(built.log.partitions), until):
                await a_moment(processes)
            return perf_counter() - began


# The last one of each partition, since they fire in their order.
_LEFT = """
    SELECT count(*) FROM unnest($2::smallint[]) AS p (partition) CROSS JOIN LATERAL (
        SELECT FROM processing.timers WHERE service = $1 AND partition = p.partition AND due <= $3
         ORDER BY due DESC LIMIT 1) AS last"""


async def mechanics_alone(built: Runtime, database: Database, until: datetime) -> float:
    await _tick(built, until)
    return await drained(built, Worker(built, Idle(), JourneysSettings.read()))


async def _tick(built: Runtime, until: datetime) -> None:
    assert isinstance(built.log, PostgresLog)
    await tell_all(built.log, Tick(as_of=until))


def fire(folder: Path, *, copy: bool = True) -> dict[str, float]:
    return {name: fired(folder, work, copy) for name, work in KINDS.items()}


def fired(folder: Path, work: Callable[[Runtime, Database, datetime], Awaitable[float]], copy: bool) -> float:
    async def once() -> float:
        async with prepared(folder, copy=copy) as database, runtime(database) as built:
            until, before = await _first(database), await _pending(database)
            took = await work(built, database, until)
            return (before - await _pending(database)) / took

    return on_the_services_loop(once())


def take(folder: Path) -> dict[str, float]:
    """Find, fence, delete: all that a due timer asks of PostgreSQL, whatever it is for."""

    async def once() -> float:
        async with prepared(folder) as database:
            until, before = await _first(database), await _pending(database)
            async with database.connect() as connection:
                rows = await connection.fetch("SELECT * FROM processing.partitions WHERE service = $1", SERVICE)
            in_flight = asyncio.Semaphore(JourneysSettings.read().partitions_in_flight)
            began = perf_counter()
            await asyncio.gather(*(lane(database, row, until, in_flight) for row in rows))
            return (before - await _pending(database)) / (perf_counter() - began)

    async def lane(database: Database, row: Any, until: datetime, in_flight: asyncio.Semaphore) -> None:
        partition, low, limit = row["partition"], START, JourneysSettings.read().batch_records
        fence = Fence(partition, row["epoch"], row["version"], row["next_offset"], until, {}, {}, b"", 0, 0)
        more = True
        while more:
            async with in_flight:
                async with database.connect() as connection:
                    due, _ = await mechanics.due_timers(connection, SERVICE, partition, low, until, limit)
                    gone = dict.fromkeys((timer.kind, timer.subject) for timer in due)
                    clauses = mechanics.timers(SERVICE, {partition: gone})
                    await mechanics.fence(connection, SERVICE, [fence], clauses)
            fence = fence._replace(version=fence.version + 1)
            more = len(due) == limit
            low = due[-1].due if due else low

    return dict.fromkeys(KINDS, on_the_services_loop(once()))


async def _pending(database: Database) -> int:
    async with database.connect() as connection:
        found: int = await connection.fetchval("SELECT count(*) FROM processing.timers", timeout=120)
        return found


async def _first(database: Database) -> datetime:
    """When the first so many of those that are pending will have been due."""
    async with database.connect() as connection:
        first: datetime = await connection.fetchval("SELECT min(due) FROM processing.timers", timeout=120)
    return first + (FIRED - 1) * timedelta(milliseconds=1)


def _prepare(pending: int, folder: Path) -> None:
    asyncio.run(fill(folder, pending))


def _prepare_both(folder: Path) -> None:
    for name, pending in (("small", 100_000), ("big", 10_000_000)):
        (folder / name).mkdir(mode=0o755)
        _prepare(pending, folder / name)


KINDS = {"a mail is asked for, two processes": journeys, "nothing comes of it": mechanics_alone}
GOAL = dict.fromkeys(KINDS, 25_000.0)

SERIES = (
    *(
        Series(
            f"timers, {name} pending",
            "timers/s",
            fire,
            take,
            "taken bare",
            goal=GOAL,
            prepare=partial(_prepare, pending),
            rounds=3,
        )
        for name, pending in (("100k", 100_000), ("1M", 1_000_000))
    ),
    Series(
        "timers, 10M pending",
        "timers/s",
        lambda folder: fire(folder / "big", copy=False),
        lambda folder: fire(folder / "small"),
        "with 100k",
        goal=GOAL,
        ratio_goal=0.9,
        prepare=_prepare_both,
        rounds=3,
        seconds=900,
        long=True,
    ),
)
