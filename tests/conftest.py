"""Fixtures that every kind of test shares: a PostgreSQL server, and a database of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedPostgres]:
    """One server for the whole run. Its folder lies where the unprivileged account may enter it."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="rapport-test-") as folder:
        Path(folder).chmod(0o755)
        async with EmbeddedPostgres(Path(folder) / "postgres") as server:
            yield server


@pytest_asyncio.fixture
async def database_url(postgres: EmbeddedPostgres) -> str:
    """A fresh, empty database."""
    name = f"test_{next(_numbers)}"
    connection = await asyncpg.connect(postgres.url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return postgres.url.rsplit("/", 1)[0] + f"/{name}"


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.close()
