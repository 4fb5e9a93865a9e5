"""Connections to PostgreSQL: what is broken is not handed out again."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from shared.database.engine import Database, is_transient


async def test_connections_that_the_server_ended_in_the_pool_are_replaced(database_url: str) -> None:
    database = Database(database_url, size=3)
    try:
        async with database.connect() as one, database.connect() as two:
            pids = [one.get_server_pid(), two.get_server_pid()]
        other = await asyncpg.connect(database_url)
        await other.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", pids)
        await other.close()
        while not (one.is_closed() and two.is_closed()):
            await asyncio.sleep(0.01)
        for _ in range(3):
            async with database.connect() as connection:
                assert await connection.fetchval("SELECT 1") == 1
    finally:
        await database.close()


async def test_a_transaction_that_is_cancelled_is_rolled_back_and_its_connection_is_usable(database: Database) -> None:
    async with database.connect() as connection:
        await connection.execute("CREATE TABLE told (n int)")
    begun = asyncio.Event()

    async def work() -> None:
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO told VALUES (1)")
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.connect() as connection:
        assert await connection.fetchval("SELECT count(*) FROM told") == 0


async def test_what_is_transient_is_told_from_what_is_wrong(database: Database) -> None:
    async with database.connect() as connection:
        with pytest.raises(asyncpg.PostgresError) as wrong:
            await connection.execute("SELECT nonsense")
        assert not is_transient(wrong.value)
    away = Database("postgresql://rapport:none@127.0.0.1:9/rapport")
    try:
        with pytest.raises(Exception) as refused:  # noqa: PT011
            async with away.connect():
                pass
        assert is_transient(refused.value)
    finally:
        await away.close()
