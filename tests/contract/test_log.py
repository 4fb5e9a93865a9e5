"""What every log does, whoever keeps it: one suite, run on PostgreSQL, on Kafka, and on the fake in memory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition
from fakes.memory_log import MemoryLog
from kafka_for_tests import MOCK_PARTITIONS, Kafka, RealKafka, also_on_kafka
from wire import Wire

from shared.contracts.streams import EVENTS, MESSAGES
from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database
from shared.database.migrations import migrate
from shared.errors import RapportError, Unavailable
from shared.log.kafka import KafkaLog
from shared.log.port import (
    LARGEST_RECORD,
    Entry,
    Fetched,
    Log,
    OffsetOutOfRange,
    Origin,
    Reader,
    Record,
    RecordTooLarge,
)
from shared.log.postgres import MIGRATIONS, PostgresLog

PARTITIONS = MOCK_PARTITIONS

# As long as a sound server may take on a busy machine; no test waits so long when all is well.
PATIENCE = 30.0

_numbers = itertools.count(1)


class Server(Protocol):
    """What keeps the log, as a test handles it."""

    async def connect(self, partitions: int = PARTITIONS) -> Log:
        """The log as one more process sees it; not started."""
        ...


class Mortal(Server, Protocol):
    """One that can crash, be silent and forget."""

    async def crash(self) -> None: ...

    async def recover(self) -> None: ...

    def hush(self) -> None:
        """Connections stay open, and nothing answers."""
        ...

    def speak(self) -> None: ...

    async def forget(self, log: Log, partition: int, before: int) -> None:
        """Let what is kept of the events' partition begin at about `before`."""
        ...


class OnMemory:
    """The fake that other tests use: one object is the log for all."""

    def __init__(self) -> None:
        self._log = MemoryLog(PARTITIONS)

    async def connect(self, partitions: int = PARTITIONS) -> Log:
        return self._log


class OnPostgres:
    def __init__(self, postgres: EmbeddedPostgres, url: str, wire: Wire) -> None:
        self._postgres = postgres
        self._url = url.replace(f":{postgres.port}/", f":{wire.port}/")
        self._wire = wire
        self.databases: list[Database] = []

    async def connect(self, partitions: int = PARTITIONS) -> Log:
        database = Database(self._url)
        self.databases.append(database)
        return PostgresLog(database, partitions, append_deadline=3)

    async def crash(self) -> None:
        await self._postgres.stop(immediate=True)

    async def recover(self) -> None:
        await self._postgres.start()

    def hush(self) -> None:
        self._wire.hush()

    def speak(self) -> None:
        self._wire.speak()

    async def forget(self, log: Log, partition: int, before: int) -> None:
        assert isinstance(log, PostgresLog)
        await log.trim(EVENTS, partition, before, timedelta(0))


class OnKafka:
    def __init__(self, kafka: Kafka, prefix: str) -> None:
        self._kafka = kafka
        self._prefix = prefix

    async def connect(self, partitions: int = PARTITIONS) -> Log:
        return KafkaLog(self._kafka.bootstrap, partitions, prefix=self._prefix, append_deadline=3)

    async def write_as_a_stranger(self, partition: int, written: Sequence[tuple[bytes | None, Any]]) -> None:
        """Records that nothing of ours would write, by their keys and headers."""
        producer = AIOKafkaProducer(bootstrap_servers=self._kafka.bootstrap)
        await producer.start()
        for key, headers in written:
            await producer.send_and_wait(self._prefix + EVENTS, b"{}", key, partition, headers=headers)
        await producer.stop()

    @property
    def _broker(self) -> RealKafka:
        assert isinstance(self._kafka, RealKafka)
        return self._kafka

    async def crash(self) -> None:
        await self._broker.kill()

    async def recover(self) -> None:
        await self._broker.start()

    def hush(self) -> None:
        self._broker.pause()

    def speak(self) -> None:
        self._broker.resume()

    async def forget(self, log: Log, partition: int, before: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._broker.bootstrap)
        await admin.start()
        await admin.delete_records({TopicPartition(self._prefix + EVENTS, partition): RecordsToDelete(before)})
        await admin.close()


@pytest_asyncio.fixture
async def on_postgres(postgres: EmbeddedPostgres, database_url: str) -> AsyncIterator[OnPostgres]:
    async with Wire(lambda: postgres.port) as wire:
        server = OnPostgres(postgres, database_url, wire)
        yield server
        for database in server.databases:
            await database.close()


@pytest_asyncio.fixture
async def on_mortal_postgres() -> AsyncIterator[OnPostgres]:
    """A server of the test's own, in the test's own loop: it is crashed, and its reviver must not be another loop's."""
    with tempfile.TemporaryDirectory(prefix="rapport-test-") as folder:
        Path(folder).chmod(0o755)
        async with EmbeddedPostgres(Path(folder) / "postgres") as postgres, Wire(lambda: postgres.port) as wire:
            database = Database(postgres.url)
            await migrate(database, [MIGRATIONS])
            await database.close()
            server = OnPostgres(postgres, postgres.url, wire)
            yield server
            for database in server.databases:
                await database.close()


@pytest_asyncio.fixture
async def on_kafka(kafka_broker: Kafka) -> OnKafka:
    prefix = f"contract-{next(_numbers)}."
    await kafka_broker.make_topics(prefix, PARTITIONS)
    return OnKafka(kafka_broker, prefix)


@pytest.fixture
def on_memory() -> OnMemory:
    return OnMemory()


@pytest.fixture(params=["memory", "postgres", pytest.param("kafka", marks=pytest.mark.kafka)])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(f"on_{request.param}")
    return found


@pytest.fixture(params=["postgres", pytest.param("kafka", marks=pytest.mark.kafka)])
def installed(request: pytest.FixtureRequest) -> Server:
    """A server whose streams are made before the log is first opened."""
    found: Server = request.getfixturevalue(f"on_{request.param}")
    return found


@pytest.fixture(params=also_on_kafka(["mortal_postgres"]))
def mortal(request: pytest.FixtureRequest) -> Mortal:
    found: Mortal = request.getfixturevalue(f"on_{request.param}")
    return found


@contextlib.asynccontextmanager
async def started(server: Server) -> AsyncIterator[Log]:
    log = await server.connect()
    async with asyncio.timeout(PATIENCE):
        while await refused(log.start()):  # a broker that has much else to do
            pass
    try:
        yield log
    finally:
        await log.close()


def numbered(count: int, *, start: int = 0, writer: str = "w") -> list[Entry]:
    return [Entry(f"customer-{n}", f"{writer} {n}".encode()) for n in range(start, start + count)]


async def read_all(log: Log, reader: Reader, partition: int, *, limit: int = 500) -> list[Record]:
    """The events from the reader's position to what is now the end; the log may be away for a while."""
    records: list[Record] = []
    end = -1
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                end = end if end >= 0 else (await log.ends(EVENTS))[partition]
                fetched = await reader.fetch(partition, limit, 0.5)
            except Unavailable:
                await asyncio.sleep(0.05)
                continue
            records += fetched.records
            if fetched.drained and fetched.next_offset >= end:
                return records


async def first(reader: Reader, partition: int, limit: int) -> Fetched:
    """The first fetch that brings records."""
    async with asyncio.timeout(PATIENCE):
        while True:
            fetched = await reader.fetch(partition, limit, PATIENCE)
            if fetched.records:
                return fetched


async def test_records_come_back_as_they_were_appended(server: Server) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    entries = [
        Entry("ann", b'{"v":1}', Origin("segmenter", 2, 1, 7), trace),
        Entry("Zoë ünïcode", bytes(range(256)), Origin("journeys", 0, 3, 2**40)),
        Entry("", b"", None, trace),
    ]
    async with started(server) as log:
        await log.append(EVENTS, 2, entries[:1])
        await log.append(EVENTS, 2, entries[1:])
        reader = log.reader(EVENTS)
        reader.assign({2: 0})
        assert await read_all(log, reader, 2) == [Record(offset, *entry) for offset, entry in enumerate(entries)]
        assert (await log.ends(EVENTS)) == {0: 0, 1: 0, 2: 3, 3: 0}
        assert (await log.ends(MESSAGES)) == {0: 0, 1: 0, 2: 0, 3: 0}


STRANGERS: list[tuple[bytes | None, list[tuple[str, bytes]]]] = [
    (b"\xff\xfe", []),
    (b"ann", [("origin", b"no origin")]),
    (b"ann", [("origin", b"shop:0:1:many")]),
    (b"ann", [("traceparent", b"\xff")]),
]


@pytest.mark.kafka
async def test_what_a_stranger_wrote_is_told_and_stands_in_nobodys_way(on_kafka: OnKafka) -> None:
    async with started(on_kafka) as log:
        await on_kafka.write_as_a_stranger(0, STRANGERS)
        await log.append(EVENTS, 0, [Entry("bob", b"ours")])
        reader = log.reader(EVENTS)
        reader.assign({0: 0})
        records = await read_all(log, reader, 0)
    assert [bool(record.broken) for record in records] == [True, True, True, True, False]
    assert records[0].key == "\ufffd\ufffd"
    assert records[-1] == Record(4, "bob", b"ours")


async def test_a_reader_takes_a_batch_in_bites_and_goes_on_where_it_was(server: Server) -> None:
    async with started(server) as log:
        await log.append(EVENTS, 0, numbered(25))
        reader = log.reader(EVENTS)
        reader.assign({0: 4})
        seen = []
        while len(seen) < 21:
            fetched = await first(reader, 0, 10)
            assert len(fetched.records) <= 10
            assert fetched.next_offset == fetched.records[-1].offset + 1
            seen += [record.offset for record in fetched.records]
        assert seen == list(range(4, 25))


async def test_seek_reads_again_from_anywhere(server: Server) -> None:
    async with started(server) as log:
        await log.append(EVENTS, 1, numbered(10))
        await log.append(EVENTS, 1, numbered(10, start=10))
        reader = log.reader(EVENTS)
        reader.assign({1: 0})
        assert len(await read_all(log, reader, 1)) == 20
        for offset in (13, 0, 9, 19):
            reader.seek(1, offset)
            assert [record.offset for record in await read_all(log, reader, 1)] == list(range(offset, 20))


async def test_drained_says_that_nothing_follows_and_never_too_early(server: Server) -> None:
    async with started(server) as log:
        reader = log.reader(EVENTS)
        reader.assign({0: 0, 1: 0})
        assert await read_all(log, reader, 0) == []
        await log.append(EVENTS, 0, numbered(30))
        fetched = await first(reader, 0, 10)
        assert not fetched.drained
        assert len(await read_all(log, reader, 0)) + len(fetched.records) == 30
        assert await read_all(log, reader, 1) == []


async def test_appenders_at_the_same_time_keep_their_own_order_and_lose_nothing(server: Server) -> None:
    async with started(server) as one, started(server) as other:

        async def write(log: Log, writer: str) -> None:
            for start in range(0, 60, 3):
                await log.append(EVENTS, 3, numbered(3, start=start, writer=writer))

        await asyncio.gather(*(write(log, f"{name}{n}") for name, log in (("a", one), ("b", other)) for n in range(5)))
        reader = one.reader(EVENTS)
        reader.assign({3: 0})
        records = await read_all(one, reader, 3)
        assert [record.offset for record in records] == list(range(600))
        by_writer: dict[bytes, list[int]] = {}
        for record in records:
            writer, number = record.value.split()
            by_writer.setdefault(writer, []).append(int(number))
        assert len(by_writer) == 10
        assert all(numbers == list(range(60)) for numbers in by_writer.values())


@pytest.mark.parametrize("whose", ["its own process", "another process"])
async def test_a_waiting_reader_is_woken_by_an_append(server: Server, whose: str) -> None:
    async with started(server) as log, started(server) as other:
        reader = log.reader(EVENTS)
        reader.assign({0: 0, 1: 0, 2: 0, 3: 0})
        await read_all(log, reader, 2)
        waiting = asyncio.create_task(reader.fetch(2, 10, PATIENCE))
        elsewhere = asyncio.create_task(reader.fetch(3, 10, 0.3))
        assert not (await elsewhere).records
        began = monotonic()
        await (log if whose == "its own process" else other).append(EVENTS, 2, numbered(1))
        fetched = await waiting
        assert [record.value for record in fetched.records] == [b"w 0"]
        assert monotonic() - began < PATIENCE / 2  # woken, and not by the end of its wait


async def test_a_reader_reads_what_it_is_assigned_and_keeps_its_place_in_what_it_keeps(server: Server) -> None:
    async with started(server) as log:
        for partition in range(3):
            await log.append(EVENTS, partition, numbered(6))
        reader = log.reader(EVENTS)
        with pytest.raises(RapportError, match=r"events\[1\] is not assigned"):
            await reader.fetch(1, 10, 0)
        reader.assign({0: 0, 1: 2})
        assert [record.offset for record in (await first(reader, 0, 4)).records] == [0, 1, 2, 3]
        reader.assign({0: 0, 2: 5})
        assert [record.offset for record in await read_all(log, reader, 0)] == [4, 5]
        assert [record.offset for record in await read_all(log, reader, 2)] == [5]
        with pytest.raises(RapportError, match=r"events\[1\] is not assigned"):
            await reader.fetch(1, 10, 0)
        reader.assign({})
        reader.assign({1: 5})
        assert [record.offset for record in await read_all(log, reader, 1)] == [5]


async def test_an_offset_after_the_end_is_refused_with_the_range_that_there_is(server: Server) -> None:
    async with started(server) as log:
        await log.append(EVENTS, 0, numbered(3))
        reader = log.reader(EVENTS)
        reader.assign({0: 100})
        with pytest.raises(OffsetOutOfRange) as refusal:
            await fetch_until_heard(reader, 0)
        assert (refusal.value.offset, refusal.value.earliest, refusal.value.end) == (100, 0, 3)
        reader.seek(0, 3)
        assert await read_all(log, reader, 0) == []


async def test_an_offset_that_is_no_longer_kept_is_refused_and_not_skipped(mortal: Mortal) -> None:
    async with started(mortal) as log:
        await log.append(EVENTS, 0, numbered(5))
        await log.append(EVENTS, 0, numbered(5))
        await mortal.forget(log, 0, 5)
        reader = log.reader(EVENTS)
        reader.assign({0: 2})
        with pytest.raises(OffsetOutOfRange) as refusal:
            await fetch_until_heard(reader, 0)
        assert (refusal.value.offset, refusal.value.earliest, refusal.value.end) == (2, 5, 10)
        reader.seek(0, 5)
        assert [record.offset for record in await read_all(log, reader, 0)] == [5, 6, 7, 8, 9]


async def fetch_until_heard(reader: Reader, partition: int) -> Fetched:
    async with asyncio.timeout(PATIENCE):
        while True:
            fetched = await reader.fetch(partition, 10, 0.5)
            assert not fetched.records
            if fetched.drained:
                return fetched


async def test_the_largest_record_is_taken_and_a_larger_one_refused(server: Server) -> None:
    largest = Entry("k", b"\xa7" * (LARGEST_RECORD - 1))
    async with started(server) as log:
        good = asyncio.create_task(log.append(EVENTS, 0, numbered(2)))
        with pytest.raises(RecordTooLarge, match="1,000,001 bytes"):
            await log.append(EVENTS, 0, [*numbered(1), largest._replace(key="kk")])
        await good
        await log.append(EVENTS, 0, [largest])
        reader = log.reader(EVENTS)
        reader.assign({0: 0})
        assert [record.value for record in await read_all(log, reader, 0)] == [b"w 0", b"w 1", largest.value]


async def test_more_than_one_batch_holds_is_appended_in_order(server: Server) -> None:
    entries = [Entry(str(n), bytes([n]) * 400_000) for n in range(25)]
    async with started(server) as log:
        await asyncio.gather(log.append(EVENTS, 0, entries), log.append(EVENTS, 0, numbered(3)))
        reader = log.reader(EVENTS)
        reader.assign({0: 0})
        records = await read_all(log, reader, 0)
        assert [(record.key, record.value) for record in records[:25]] == [(e.key, e.value) for e in entries]
        assert [record.value for record in records[25:]] == [b"w 0", b"w 1", b"w 2"]


async def test_a_partition_or_stream_that_does_not_exist_is_an_error_of_the_caller(server: Server) -> None:
    async with started(server) as log:
        with pytest.raises(RapportError, match=r"no events\[4\] among 4 partitions"):
            await log.append(EVENTS, 4, numbered(1))
        with pytest.raises(RapportError, match=r"no gossip\[0\]"):
            await log.append("gossip", 0, numbered(1))


async def test_another_partition_count_than_was_installed_is_refused(installed: Server) -> None:
    async with started(installed):
        other = await installed.connect(partitions=6)
        with pytest.raises(RapportError, match="set RAPPORT_PARTITIONS=4"):
            await other.start()
        await other.close()


async def test_the_log_knows_whose_it_is(server: Server) -> None:
    async with started(server) as log, started(server) as other:
        assert await log.installation() is None
        await log.set_installation("shop-1")
        await other.set_installation("shop-1")
        assert await other.installation() == "shop-1"
        with pytest.raises(RapportError, match="belong to the installation shop-1, not to shop-2"):
            await other.set_installation("shop-2")


async def test_a_crash_of_the_server_loses_nothing_that_was_acknowledged(mortal: Mortal) -> None:
    async with started(mortal) as log:
        reader = log.reader(EVENTS)
        reader.assign(dict.fromkeys(range(PARTITIONS), 0))
        acknowledged: list[int] = []
        refused: list[int] = []
        healed = asyncio.Event()

        async def write(partition: int) -> None:
            for n in itertools.count():
                number = n * PARTITIONS + partition
                try:
                    await log.append(EVENTS, partition, [Entry("c", b"%d" % number)])
                except Unavailable:
                    refused.append(number)
                    await asyncio.sleep(0.02)
                else:
                    acknowledged.append(number)
                    if healed.is_set():
                        return

        writers = [asyncio.create_task(write(partition)) for partition in range(PARTITIONS)]
        await eventually(lambda: len(acknowledged) > 100)
        before = len(acknowledged)
        await mortal.crash()
        await eventually(lambda: len(refused) > 0)
        assert await log.ready() is not None
        await mortal.recover()
        await eventually(lambda: len(acknowledged) > before + 100)
        healed.set()
        await asyncio.gather(*writers)
        async with asyncio.timeout(PATIENCE):
            while await log.ready() is not None:
                pass
        found: list[int] = []
        for partition in range(PARTITIONS):
            records = await read_all(log, reader, partition)
            assert [record.offset for record in records] == list(range(len(records)))
            numbers = [int(record.value) for record in records]
            assert numbers == sorted(numbers)
            found += numbers
        assert set(acknowledged) <= set(found) <= set(acknowledged) | set(refused)
        assert len(found) == len(set(found))


async def test_a_silent_log_is_not_drained_and_hangs_nobody(mortal: Mortal) -> None:
    async with started(mortal) as log:
        reader = log.reader(EVENTS)
        reader.assign({0: 0})
        assert await read_all(log, reader, 0) == []
        mortal.hush()
        try:
            await asyncio.sleep(0.2)  # what was under way when it fell silent has come by then
            # What it said before is no answer to who asks now.
            await undrained(reader.fetch(0, 10, 0.05))
            async with asyncio.timeout(PATIENCE):
                while not await refused(undrained(reader.fetch(0, 10, 0.2))):
                    pass
                with pytest.raises(Unavailable):
                    await log.append(EVENTS, 0, numbered(1))
        finally:
            mortal.speak()
        async with asyncio.timeout(PATIENCE):
            while await refused(log.append(EVENTS, 0, numbered(1, writer="after"))):
                await asyncio.sleep(0.05)
        assert (await read_all(log, reader, 0))[-1].value == b"after 0"


async def undrained(fetching: Awaitable[Fetched]) -> None:
    assert not (await fetching).drained


async def refused(call: Awaitable[None]) -> bool:
    try:
        await call
    except Unavailable:
        return True
    return False


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


def test_the_suite_knows_both_logs() -> None:
    """The modules beside the port are the adapters; a third one belongs into this suite."""
    folder = Path(__file__).parents[2] / "shared" / "log"
    parts = {"kafka_appends", "kafka_clients", "kafka_reader", "postgres_reader", "postgres_retention"}
    assert {path.stem for path in folder.glob("*.py")} == {"__init__", "port", "packing", "postgres", "kafka", *parts}
