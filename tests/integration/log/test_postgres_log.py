"""What only the log in PostgreSQL does: it joins other transactions, and it keeps its streams for a while."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio

from shared.contracts.streams import CUSTOMERS, EVENTS, MESSAGES, STREAMS
from shared.database.clauses import execute
from shared.database.engine import Database
from shared.errors import RapportError
from shared.log.packing import pack
from shared.log.port import LARGEST_RECORD, Entry, Reader, Record, RecordTooLarge
from shared.log.postgres import Connection, PostgresLog
from shared.log.postgres_reader import FETCH_ROWS, HANDED_BYTES, LOOK_ROW_BYTES, LOOK_ROWS, Appended, Key

WEEK = timedelta(days=7)


@pytest_asyncio.fixture
async def log(database: Database) -> AsyncIterator[PostgresLog]:
    log = PostgresLog(database, 4)
    await log.start()
    yield log
    await log.close()


def entries(*values: str) -> list[Entry]:
    return [Entry("customer", value.encode()) for value in values]


async def read_all(reader: Reader, partition: int, limit: int = 1000) -> list[Record]:
    records: list[Record] = []
    async with asyncio.timeout(30):
        while True:
            fetched = await reader.fetch(partition, limit, 0.5)
            records += fetched.records
            if fetched.drained:
                return records


async def append_in(connection: Connection, log: PostgresLog, outputs: Mapping[Key, Sequence[Entry]]) -> Appended:
    return log.appended(outputs, await execute(connection, [log.append_in(outputs)]))


async def test_what_a_transaction_appends_is_there_after_its_commit_and_wakes_readers(
    log: PostgresLog, database: Database
) -> None:
    reader = log.reader(CUSTOMERS)
    reader.assign({1: 0})
    assert await read_all(reader, 1) == []
    waiting = asyncio.create_task(reader.fetch(1, 10, 20))
    async with database.transaction() as connection:
        appended = await append_in(connection, log, {(CUSTOMERS, 1): entries("a", "b"), (MESSAGES, 0): entries("c")})
        assert await log.ends(CUSTOMERS) == {0: 0, 1: 0, 2: 0, 3: 0}
    log.announce(appended)
    assert [record.value for record in (await waiting).records] == [b"a", b"b"]
    assert (await log.ends(MESSAGES))[0] == 1
    assert (await log.ends(EVENTS))[3] == 0


async def test_what_a_transaction_appends_goes_with_its_rollback(log: PostgresLog, database: Database) -> None:
    async with database.connect() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await append_in(connection, log, {(CUSTOMERS, 1): entries("never")})
        await transaction.rollback()
    await log.append(CUSTOMERS, 1, entries("first"))
    reader = log.reader(CUSTOMERS)
    reader.assign({1: 0})
    assert await read_all(reader, 1) == [Record(0, "customer", b"first")]


async def test_who_keeps_up_is_handed_what_this_process_appends(log: PostgresLog, database: Database) -> None:
    reader, late = log.reader(CUSTOMERS), log.reader(CUSTOMERS)
    reader.assign({1: 0})
    assert await read_all(reader, 1) == []
    await log.append(CUSTOMERS, 1, entries("a"))
    await log.append(CUSTOMERS, 1, entries("b"))
    async with database.connect() as connection:
        await connection.execute("ALTER TABLE log.rows RENAME TO rows_elsewhere")
        fetched = await reader.fetch(1, 10, 20)
        assert [(record.offset, record.value) for record in fetched.records] == [(0, b"a"), (1, b"b")]
        assert not fetched.drained, "nobody has asked the log since"
        await connection.execute("ALTER TABLE log.rows_elsewhere RENAME TO rows")
    late.assign({1: 0})
    assert [record.value for record in await read_all(late, 1)] == [b"a", b"b"]


async def test_what_others_append_comes_in_order_however_much_of_it_a_look_brings(
    log: PostgresLog, database: Database
) -> None:
    """More rows than a look brings, and one among them that is too large for it."""
    other = PostgresLog(database, 4)
    reader = log.reader(EVENTS)
    reader.assign({2: 0})
    assert await read_all(reader, 2) == []
    said = [f"r{number}".encode() for number in range(3 * LOOK_ROWS)]
    said[LOOK_ROWS // 2] = b"x" * (LOOK_ROW_BYTES + 1)

    async def say() -> None:
        for value in said:
            await other.append(EVENTS, 2, [Entry("customer", value)])

    saying = asyncio.create_task(say())
    heard: list[Record] = []
    async with asyncio.timeout(60):
        while len(heard) < len(said):
            heard += (await reader.fetch(2, 5, 0.5)).records
    await saying
    assert [record.value for record in heard] == said
    assert [record.offset for record in heard] == list(range(len(said)))


async def test_what_exceeds_the_memory_for_it_is_read_in_its_turn(log: PostgresLog) -> None:
    reader = log.reader(CUSTOMERS)
    reader.assign({1: 0})
    assert await read_all(reader, 1) == []
    sizes = [HANDED_BYTES // 3 + n for n in range(7)]
    for size in sizes:
        await log.append(CUSTOMERS, 1, [Entry("customer", bytes(size))])
    assert len(reader._lane(1).ahead) < len(sizes)
    assert [len(record.value) for record in await read_all(reader, 1)] == sizes


async def test_a_record_that_is_too_large_is_refused_before_anything_is_written(
    log: PostgresLog,
) -> None:
    with pytest.raises(RecordTooLarge):
        log.append_in({(EVENTS, 0): entries("good"), (EVENTS, 1): [Entry("k", bytes(LARGEST_RECORD))]})
    assert await log.ends(EVENTS) == {0: 0, 1: 0, 2: 0, 3: 0}


async def test_where_one_partition_has_no_head_nothing_is_appended_at_all(log: PostgresLog, database: Database) -> None:
    async with database.connect() as connection:
        await connection.execute("DELETE FROM log.heads WHERE stream = $1 AND partition = 1", EVENTS)
        with pytest.raises(asyncpg.NotNullViolationError):
            await append_in(connection, log, {(EVENTS, 0): entries("good"), (EVENTS, 1): entries("lost")})
        assert await connection.fetchval("SELECT count(*) FROM log.rows") == 0
    with pytest.raises(RapportError, match="no head row"):
        await log.append(EVENTS, 1, entries("lost"))


async def test_transactions_over_many_streams_neither_lock_each_other_out_nor_show_gaps(
    log: PostgresLog, database: Database
) -> None:
    """Writers take heads in any order they like; a reader that follows meanwhile sees every offset once, in order."""
    other = PostgresLog(database, 4)
    chosen = random.Random(7)
    keys = [(stream, partition) for stream in STREAMS for partition in range(4)]
    written = dict.fromkeys(keys, 0)

    async def write_in_transactions() -> None:
        for _ in range(40):
            some = chosen.sample(keys, 5)
            async with database.transaction() as connection:
                appended = await append_in(connection, log, {key: entries("t") for key in some})
            log.announce(appended)
            for key in some:
                written[key] += 1

    async def write_alone(writer: PostgresLog) -> None:
        for _ in range(60):
            key = chosen.choice(keys)
            await writer.append(*key, entries("a", "b"))
            written[key] += 2

    async def follow(stream: str, partition: int) -> int:
        reader = log.reader(stream)
        reader.assign({partition: 0})
        expected = 0
        while not (done.is_set() and expected == (await log.ends(stream))[partition]):
            for record in (await reader.fetch(partition, 7, 0.01)).records:
                assert record.offset == expected
                expected += 1
        return expected

    done = asyncio.Event()
    followers = {key: asyncio.create_task(follow(*key)) for key in keys}
    await asyncio.gather(
        *(write_in_transactions() for _ in range(3)),
        *(write_alone(writer) for writer in (log, other) for _ in range(4)),
    )
    done.set()
    async with asyncio.timeout(30):
        assert {key: await follower for key, follower in followers.items()} == written
    await other.close()


async def test_streams_are_kept_until_seven_days_after_every_reader_has_passed(
    log: PostgresLog, database: Database
) -> None:
    for start in range(0, 50, 10):
        await log.append(EVENTS, 0, entries(*map(str, range(start, start + 10))))
    reader = log.reader(EVENTS)

    async def days_pass(days: int) -> None:
        async with database.connect() as connection:
            await connection.execute("UPDATE log.passed SET noted_at = noted_at - $1::interval", timedelta(days=days))

    async def kept() -> list[int]:
        earliest = 50
        async with database.connect() as connection:
            earliest = await connection.fetchval(
                "SELECT earliest FROM log.heads WHERE stream = 'events' AND partition = 0"
            )
        reader.assign({})
        reader.assign({0: earliest})
        return [record.offset for record in await read_all(reader, 0)]

    assert await log.trim(EVENTS, 0, 25, WEEK) == 0
    await days_pass(6)
    assert await log.trim(EVENTS, 0, 40, WEEK) == 0
    assert await kept() == list(range(50))
    await days_pass(2)
    # Passed eight days ago: 25. The row of 20 to 29 is kept whole.
    assert await log.trim(EVENTS, 0, 50, WEEK) == 2
    assert await kept() == list(range(20, 50))
    await days_pass(8)
    # A reader was set back to 30 on purpose: what it needs stays, although it was passed long ago.
    assert await log.trim(EVENTS, 0, 30, WEEK) == 1
    assert await kept() == list(range(30, 50))
    assert await log.trim(EVENTS, 0, 50, WEEK) == 2
    assert await kept() == []
    await log.append(EVENTS, 0, entries("next"))
    assert await kept() == [50]


async def test_a_backlog_of_small_rows_is_read_in_full_batches(log: PostgresLog, database: Database) -> None:
    count = FETCH_ROWS * 2 + 300
    async with database.transaction() as connection:
        for n in range(count):
            await append_in(connection, log, {(EVENTS, 0): entries(str(n))})
    reader = log.reader(EVENTS)
    reader.assign({0: 0})
    fetched = await reader.fetch(0, 2000, 0)
    assert [int(record.value) for record in fetched.records] == list(range(count))
    assert fetched.drained


async def test_reading_stays_quick_on_a_table_that_was_empty_when_its_plans_were_made(
    log: PostgresLog, database: Database
) -> None:
    """Plans are kept by connections. One made over an empty table reads all of it, unless an index is used for sure."""
    reader = log.reader(EVENTS)
    async with database.connect() as connection:
        await connection.execute("VACUUM ANALYZE log.rows")
    for _ in range(10):
        reader.assign({})
        reader.assign({0: 0})
        await reader.fetch(0, 10, 0)
    async with database.connect() as connection:
        await connection.execute(
            "INSERT INTO log.rows (stream, partition, first, last, size, body)"
            " SELECT 'events', p, n, n, 10, $1 FROM generate_series(0, 3) p, generate_series(0, 9999) n",
            pack(entries("x")),
        )
        await connection.execute("UPDATE log.heads SET next = 10000 WHERE stream = 'events'")
    before = await rows_read_without_index(database)
    for offset in range(5000, 5010):
        reader.assign({})
        reader.assign({0: offset})
        assert len((await reader.fetch(0, 10, 0)).records) == 10
    assert await rows_read_without_index(database) == before


async def rows_read_without_index(database: Database) -> int:
    async with database.connect() as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        read: int = await connection.fetchval("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'rows'")
        return read


async def test_a_database_without_the_tables_says_what_to_do(bare_database_url: str) -> None:
    database = Database(bare_database_url)
    log = PostgresLog(database, 4)
    with pytest.raises(RapportError, match="Run `rapport migrate`"):
        await log.start()
    assert "rapport migrate" in (await log.ready() or "")
    await database.close()


async def test_what_the_database_refuses_is_told_in_the_drivers_own_words(database_url: str) -> None:
    database = Database(database_url + "_of_nobody")
    problem = await PostgresLog(database, 4).ready() or ""
    await database.close()
    assert "InvalidCatalogNameError" in problem
    assert "sqlalche" not in problem
