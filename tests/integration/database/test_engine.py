"""Connections: none goes back to the pool in the middle of something."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import UserList, deque
from contextlib import suppress

import asyncpg
import pytest
from patience import PATIENCE, until
from sqlalchemy.exc import TimeoutError as PoolExhausted

from shared.database.engine import Database, is_transient
from shared.errors import RapportError


async def test_whatever_columns_are_kept_in_goes_in_as_an_array(database: Database) -> None:
    given = {"b": 2, "a": 1}
    async with database.connect() as connection:
        for names in (
            given.keys(),
            list(given),
            tuple(given),
            set(given),
            frozenset(given),
            deque(given),
            {1: "a"}.values(),
        ):
            found = await connection.fetchval("SELECT $1::text[]", names)
            assert set(found) == set(names)
        assert await connection.fetchval("SELECT $1::bytea[]", [b"ab", None]) == [b"ab", None]
        assert await connection.fetchval("SELECT $1::bigint[]", [[1, 2], [3, 4]]) == [[1, 2], [3, 4]]
        # The last one the driver itself would take: that it does not, says that it asks what it was told to.
        for no_array in ("ab", b"ab", 1, given, UserList("ab")):
            with pytest.raises(asyncpg.DataError):
                await connection.fetchval("SELECT $1::text[]", no_array)


async def test_work_that_is_cancelled_anywhere_leaves_no_transaction_open(database_url: str) -> None:
    database = Database(database_url, size=2)

    async def work() -> None:
        async with database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(1)")

    for steps in range(120):
        task = asyncio.create_task(work())
        for _ in range(steps % 40):
            await asyncio.sleep(0)
        await asyncio.sleep(0.0001 * (steps % 7))
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        async with database.connect() as connection:
            await connection.fetchval("SELECT 1")
            assert not connection.is_in_transaction(), steps
    await database.close()


async def test_work_that_is_cancelled_ends_at_once_though_the_server_is_silent(database: Database) -> None:
    begun: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        async with database.transaction() as connection:
            begun.set_result(connection.get_server_pid())
            await connection.execute("SELECT pg_sleep(0.2)")
            await connection.execute("SELECT 1")

    task = asyncio.create_task(work())
    server = await begun
    os.kill(server, signal.SIGSTOP)
    try:
        task.cancel()
        _, late = await asyncio.wait([task], timeout=PATIENCE)
    finally:
        os.kill(server, signal.SIGCONT)
    assert not late
    with suppress(asyncio.CancelledError):
        await task


async def test_a_statement_that_takes_too_long_leaves_no_transaction_open(database: Database) -> None:
    with pytest.raises(TimeoutError):
        async with database.connect() as connection:
            await connection.execute("BEGIN; SELECT pg_sleep(10)", timeout=0.05)
    async with database.connect() as connection:
        await connection.fetchval("SELECT 1")
        assert not connection.is_in_transaction()


async def test_a_transaction_whose_error_was_swallowed_is_not_taken_for_committed(database: Database) -> None:
    async def work() -> None:
        async with database.transaction() as connection:
            await connection.execute("CREATE TABLE kept (n int)")
            with suppress(asyncpg.PostgresError):
                await connection.execute("SELECT 1 / 0")

    with pytest.raises(RapportError, match="swallowed"):
        await work()
    async with database.connect() as connection:
        assert await connection.fetchval("SELECT to_regclass('kept')") is None


async def test_a_transaction_that_was_ended_from_within_is_not_taken_for_committed(database: Database) -> None:
    with pytest.raises(RapportError, match="ended from within"):
        async with database.transaction() as connection:
            await connection.execute("ROLLBACK")


async def test_a_savepoint_inside_a_transaction_keeps_what_was_done_around_it(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("CREATE TABLE kept (n int)")
        with suppress(asyncpg.PostgresError):
            async with connection.transaction():
                await connection.execute("SELECT 1 / 0")
    async with database.connect() as connection:
        assert await connection.fetchval("SELECT to_regclass('kept')") is not None


async def test_a_database_that_is_to_be_encrypted_is_not_spoken_to_in_the_clear(database_url: str) -> None:
    database = Database(database_url + "?ssl=require")
    with pytest.raises(ConnectionError, match="SSL"):
        async with database.connect():
            pass
    await database.close()


async def test_connections_that_the_server_ended_are_not_handed_out(database_url: str) -> None:
    database = Database(database_url, size=4)
    all_in_use = asyncio.Barrier(4)

    async def use() -> asyncpg.Connection:
        async with database.connect() as connection:
            await connection.fetchval("SELECT 1")
            await all_in_use.wait()
            return connection

    used = await asyncio.gather(*(use() for _ in range(4)))
    other = await asyncpg.connect(database_url)
    ended = await other.fetch(
        "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await other.close()
    assert len(ended) == 4

    async def known() -> bool:
        return all(connection.is_closed() for connection in used)

    await until(known)
    await asyncio.gather(*(use() for _ in range(4)))
    await database.close()


async def test_a_connection_that_comes_back_after_the_end_is_closed(database_url: str) -> None:
    database = Database(database_url, size=4)
    async with database.connect() as late:
        await database.close()
        assert await late.fetchval("SELECT 1") == 1
    assert late.is_closed()
    async with database.connect() as anew:
        assert await anew.fetchval("SELECT 1") == 1
    async with database.connect() as again:
        assert again is anew
    await database.close()


@pytest.mark.parametrize(
    "error",
    [
        PoolExhausted(),
        asyncpg.ReadOnlySQLTransactionError("the server became a standby"),
        asyncpg.InvalidCachedStatementError("a migration changed the table"),
        asyncpg.CannotConnectNowError("the database system is starting up"),
    ],
)
def test_trouble_that_passes_is_no_fault_of_a_record(error: Exception) -> None:
    assert is_transient(error)


def test_a_value_that_does_not_fit_is_no_trouble_that_passes() -> None:
    assert not is_transient(asyncpg.DataError("invalid input for query argument $1"))
