"""Several writes as one statement: all of them or none."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from shared.database.clauses import Clause, execute
from shared.database.engine import Database


@pytest_asyncio.fixture
async def connection(database: Database) -> AsyncIterator[asyncpg.Connection]:
    async with database.connect() as connection:
        await connection.execute("CREATE TABLE shelf (place int PRIMARY KEY, book text NOT NULL)")
        yield connection


def put(name: str, place: int, book: str | None) -> Clause:
    return Clause(f"{name} AS (INSERT INTO shelf VALUES ($1, $2) RETURNING place, book)", [place, book], name)


def check(holds: bool) -> Clause:
    return Clause("checked AS MATERIALIZED (SELECT 1 / $1::boolean::integer AS one)", [holds])


async def books(connection: asyncpg.Connection) -> list[tuple[int, str]]:
    return [tuple(row) for row in await connection.fetch("SELECT place, book FROM shelf ORDER BY place")]


async def test_each_clause_has_its_own_arguments_and_one_gives_rows(connection: asyncpg.Connection) -> None:
    rows = await execute(connection, [check(True), put("a", 1, "Emma"), put("b", 2, "Ulysses")], first="checked")
    assert await books(connection) == [(1, "Emma"), (2, "Ulysses")]
    assert [tuple(row)[:2] for row in rows] == [(1, "Emma")]


async def test_a_clause_that_fails_undoes_the_others(connection: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.NotNullViolationError):
        await execute(connection, [put("a", 1, "Emma"), put("b", 2, None)])
    assert await books(connection) == []


async def test_what_is_asked_first_fails_before_anything_else_does(connection: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        await execute(connection, [put("a", 1, None), check(False), put("b", 2, None)], first="checked")
    assert await books(connection) == []


async def test_without_a_clause_nothing_is_asked(connection: asyncpg.Connection) -> None:
    assert await execute(connection, []) == []
