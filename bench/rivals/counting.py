"""State by customer on Kafka, beside others: a count for each of 20,000 customers, and a record of each new count.

The same 100,000 events of about 1 KB lie in twelve partitions of the same broker. The time counts from when the first
record of the answer was written until the last can be read by one who reads only what is committed; each has one
process. Ours keeps counts in PostgreSQL (fsync on), quixstreams in RocksDB with a changelog topic, both such that a
crash changes no count; faust-streaming, which keeps them alike, may count twice after one. The rivals run in
environments of their own, made once under `.cache/rivals`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer

from bench.measure import ROOT, Series
from bench.traffic import CONTEXT, PRODUCT, customer
from deploy.dev.broker import KafkaBroker
from services import serving
from shared.clock import SystemClock
from shared.contracts.events import Event, EventRecord
from shared.contracts.streams import CUSTOMERS, EVENTS, partition_of
from shared.database.clauses import Clause
from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database
from shared.database.migrations import migrate
from shared.log.kafka import KafkaLog
from shared.log.port import Entry
from shared.memory import collect_seldom
from shared.processing.installation import open_installation
from shared.processing.port import Connection, Given, Lane, Outputs, Timer, Writes
from shared.processing.records import decoder
from shared.processing.worker import Worker
from shared.runtime import Runtime
from shared.settings import Settings

COUNT = 100_000
PEOPLE = 20_000
PARTITIONS = 12
PREFIX = "rival."
HERE = Path(__file__).parent / "state"
PACKAGES = {"quix": ["quixstreams==3.28.1"], "faust": ["faust-streaming[rocksdb]==0.15.3", "aiokafka[lz4]"]}
ARGUMENTS = {"faust": ("worker", "--loglevel=error")}
DEADLINE_SECONDS = 240


class Counted(msgspec.Struct):
    customer: str
    event: str
    count: int


class CountBatch:
    def __init__(self, counts: dict[str, int], memo: bytes) -> None:
        self._counts, self._memo, self.changed = counts, memo, dict[str, int]()

    def handle(self, event: Event, out: Outputs) -> None:
        self._counts[event.key] = self.changed[event.key] = count = self._counts.get(event.key, 0) + 1
        out.emit(CUSTOMERS, event.key, msgspec.json.encode(Counted(event.key, event.id, count)))

    def fire(self, timer: Timer, out: Outputs) -> None:
        raise NotImplementedError

    def nothing_to_save(self) -> bool:
        return not self.changed

    def memo(self) -> bytes:
        return self._memo


class Counting:
    """The same as a service of ours (`shared.processing.port.Processor`)."""

    service = "counting"
    stream = EVENTS
    decode = staticmethod(decoder(EVENTS, EventRecord, 1))

    def as_of(self, message: Event) -> datetime:
        return message.received_at

    async def load(self, connection: Connection, given: Sequence[Given]) -> list[CountBatch]:
        keys = list({message.key for one in given for message in one.messages})
        rows = await connection.fetch("SELECT customer, count FROM counts WHERE customer = ANY($1::text[])", keys)
        counts = {row[0]: row[1] for row in rows}
        return [CountBatch(counts, one.memo) for one in given]

    async def provide(self, connection: Connection, batch: CountBatch) -> bool:
        return False

    def save(self, batches: Sequence[CountBatch]) -> Writes:
        changed = {customer: count for batch in batches for customer, count in batch.changed.items()}
        counted = (
            "counted AS (INSERT INTO counts SELECT * FROM unnest($1::text[], $2::bigint[])"
            " ON CONFLICT (customer) DO UPDATE SET count = EXCLUDED.count)"
        )
        return Writes([Clause(counted, [list(changed), list(changed.values())])])

    def tick(self, as_of: datetime, after: int) -> None:
        return None

    def beside(self) -> None:
        return None

    async def attend(self, lane: Lane) -> None:
        return


async def _ours(url: str, bootstrap: str) -> None:
    """What a process of ours does, until it is ended."""
    database = Database(url)
    log = KafkaLog(bootstrap, PARTITIONS, prefix=PREFIX)
    await log.start()
    async with database.connect() as connection:
        installation = await open_installation(connection, PARTITIONS, 1.0)
    settings = Settings.read(database_url=url, kafka_bootstrap_servers=bootstrap)
    await Worker(Runtime(log, SystemClock(), database, installation), Counting(), settings).start()
    await asyncio.Event().wait()


def run(folder: Path, *, who: str) -> Mapping[str, float]:
    return uvloop.run(_measure(folder, who))


async def _measure(folder: Path, who: str) -> Mapping[str, float]:
    here = folder / "round"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir(mode=0o755)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(KafkaBroker(here / "kafka"))
        log = KafkaLog(broker.bootstrap, PARTITIONS, prefix=PREFIX)
        await log.ensure_streams(1)
        await log.start()
        stack.push_async_callback(log.close)
        await _post(log)
        environment = dict(os.environ)
        if who == "ours":
            server = await stack.enter_async_context(EmbeddedPostgres(here / "postgres"))
            database = Database(server.url)
            await migrate(database, serving.MIGRATIONS)
            async with database.connect() as connection:
                await connection.execute("CREATE TABLE counts (customer text PRIMARY KEY, count bigint)")
            await database.close()
            command = [sys.executable, "-m", "bench.rivals.counting", server.url, broker.bootstrap]
        else:
            command = [_python(who), str(HERE / f"{who}_app.py"), *ARGUMENTS.get(who, ())]
            environment |= {
                "RIVAL_BROKER": broker.bootstrap,
                "RIVAL_SOURCE": PREFIX + EVENTS,
                "RIVAL_TARGET": PREFIX + CUSTOMERS,
                "RIVAL_PARTITIONS": str(PARTITIONS),
                "RIVAL_FOLDER": str(here / "state"),
            }
        reader = await stack.enter_async_context(_Reader(broker.bootstrap))
        with open(here / "said", "wb") as said:  # noqa: ASYNC230
            process = await asyncio.create_subprocess_exec(*command, stdout=said, stderr=said, env=environment)
        stack.push_async_callback(_end, process)
        reading = asyncio.create_task(reader.rate())
        ending = asyncio.create_task(process.wait())
        done, _ = await asyncio.wait({reading, ending}, timeout=DEADLINE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if reading not in done:
            reading.cancel()
            raise RuntimeError(f"{who} did not answer all: {(here / 'said').read_text(errors='replace')[-1500:]}")
        return {"": await reading}


async def _post(log: KafkaLog) -> None:
    now = datetime.now(UTC)
    entries: dict[int, list[Entry]] = {}
    for number in range(COUNT):
        event = Event(
            id=f"event-{number}",
            source="shop",
            key=customer(number * 7919 % PEOPLE),
            name="Product Viewed",
            occurred_at=now,
            received_at=now,
            properties=msgspec.Raw((PRODUCT % 1).encode()),
            context=msgspec.Raw(CONTEXT.encode()),
        )
        entries.setdefault(partition_of(event.key, PARTITIONS), []).append(Entry(event.key, msgspec.json.encode(event)))
    await asyncio.gather(*(log.append(EVENTS, partition, some) for partition, some in entries.items()))


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


class _Reader:
    """Of the answers, as they are committed."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = AIOKafkaConsumer(
            PREFIX + CUSTOMERS,
            bootstrap_servers=bootstrap,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )

    async def __aenter__(self) -> _Reader:
        await self._consumer.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._consumer.stop()

    async def rate(self) -> float:
        """Events a second, from when the first answer was written until the last could be read. Wrong counts are an
        error."""
        seen, first, total = 0, float("inf"), 0
        while seen < COUNT:
            for some in (await self._consumer.getmany(timeout_ms=100)).values():
                seen += len(some)
                first = min([first, *(record.timestamp / 1000 for record in some)])
                total += sum(msgspec.json.decode(record.value, type=Counted).count for record in some)
        took = time.time() - first
        each = COUNT // PEOPLE
        if total != PEOPLE * each * (each + 1) // 2:
            raise RuntimeError(f"the counts are wrong: their sum is {total}.")
        return COUNT / took


def prepare(folder: Path, *, who: str) -> None:
    """Its environment, made once."""
    if not Path(_python(who)).exists():
        venv.create(ROOT / ".cache" / "rivals" / who, with_pip=True)
    done = subprocess.run([_python(who), "-m", "pip", "install", "-q", *PACKAGES[who]], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{PACKAGES[who]} cannot be installed: {done.stderr[-1000:]}")


def _python(who: str) -> str:
    return str(ROOT / ".cache" / "rivals" / who / "bin" / "python")


def _series(name: str, who: str, *, rounds: int) -> Series:
    """Ours, beside it: above 1 we are ahead."""
    return Series(
        name=f"rival: {name}",
        unit="events/s",
        run=partial(run, who="ours"),
        limit=partial(run, who=who),
        limit_name=name,
        ratio_goal=1.0,
        prepare=partial(prepare, who=who),
        rounds=rounds,
        long=True,
    )


# A round of faust-streaming takes more than a minute.
SERIES = (_series("quixstreams", "quix", rounds=3), _series("faust-streaming", "faust", rounds=1))


if __name__ == "__main__":
    collect_seldom()
    uvloop.run(_ours(*sys.argv[1:]))
