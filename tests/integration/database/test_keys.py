"""Rows of several partitions by their keys."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest_asyncio

from shared.database.engine import Database
from shared.database.keys import ALSO_ASKED, ALSO_THEIRS, ASKED, THEIRS, by_partition

_READ = f"""
    SELECT s.* FROM {ASKED}, LATERAL (SELECT partition, key FROM shelf
     WHERE partition = asked.partition AND key = {THEIRS} OFFSET 0) AS s"""

_READ_BOTH = f"""{_READ} UNION ALL
    SELECT s.partition, encode(id, 'escape') FROM {ALSO_ASKED}, LATERAL (SELECT partition, id FROM stubs
     WHERE partition = asked.partition AND id = {ALSO_THEIRS} OFFSET 0) AS s"""


@pytest_asyncio.fixture
async def connection(database: Database) -> AsyncIterator[asyncpg.Connection]:
    async with database.connect() as connection:
        await connection.execute("CREATE TABLE shelf (partition smallint, key text, PRIMARY KEY (partition, key))")
        await connection.execute("CREATE TABLE stubs (partition smallint, id bytea, PRIMARY KEY (partition, id))")
        yield connection


async def test_each_key_is_asked_for_in_its_own_partition(connection: asyncpg.Connection) -> None:
    await connection.execute("INSERT INTO shelf SELECT p, k FROM generate_series(0, 2) p, unnest('{a,b,c}'::text[]) k")
    rows = await connection.fetch(_READ, *by_partition([(2, "c"), (0, "a"), (2, "a"), (1, "x"), (0, "b")]))
    assert sorted(tuple(row) for row in rows) == [(0, "a"), (0, "b"), (2, "a"), (2, "c")]


async def test_nothing_is_found_where_nothing_is_asked_for(connection: asyncpg.Connection) -> None:
    await connection.execute("INSERT INTO shelf VALUES (0, 'a')")
    assert await connection.fetch(_READ, *by_partition([])) == []


async def test_a_plan_made_over_an_empty_table_goes_by_partition_and_key(connection: asyncpg.Connection) -> None:
    rows = await connection.fetch(f"EXPLAIN {_READ}", *by_partition([(0, "a")]))
    plan = "\n".join(row[0] for row in rows)
    assert "Index Cond: ((partition = asked.partition) AND (key = ANY (" in plan, plan


async def test_a_second_table_is_asked_in_the_same_statement(connection: asyncpg.Connection) -> None:
    await connection.execute("INSERT INTO shelf VALUES (0, 'a'), (1, 'a')")
    await connection.execute("INSERT INTO stubs VALUES (0, 'x'), (0, 'y'), (1, 'x'), (1, 'z')")
    both = *by_partition([(1, "a")]), *by_partition([(1, b"z"), (0, b"x"), (1, b"y")])
    assert sorted(tuple(row) for row in await connection.fetch(_READ_BOTH, *both)) == [(0, "x"), (1, "a"), (1, "z")]
    plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {_READ_BOTH}", *both))
    assert "Index Cond: ((partition = asked_1.partition) AND (id = ANY (" in plan, plan
