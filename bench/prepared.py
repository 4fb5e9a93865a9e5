"""A PostgreSQL in a series' folder, as the embedded default sets it up; each round finds what `prepare` left there. And
the processes of a service that work on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import uvloop

from shared.contracts.streams import DEFAULT_PARTITIONS
from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database
from shared.database.migrations import migrate
from shared.database.revisions import Migrations

T = TypeVar("T")


def on_the_services_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run it on the event loop that the services run on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


@contextlib.asynccontextmanager
async def making(
    folder: Path, migrations: Sequence[Migrations], settings: Mapping[str, str] | None = None
) -> AsyncIterator[Database]:
    """The database that rounds will find, to be filled. `settings` are PostgreSQL's, for the filling alone."""
    async with EmbeddedPostgres(folder / "postgres", settings=dict(settings or {})) as server:
        database = Database(server.url)
        await migrate(database, list(migrations))
        yield database
        async with database.connect() as connection:
            await connection.execute("VACUUM ANALYZE", timeout=600)
        await database.close()


@contextlib.asynccontextmanager
async def prepared(folder: Path, *, copy: bool = True) -> AsyncIterator[Database]:
    """A copy of what was prepared, gone with the round; or (without `copy`) the very thing, which the round uses up."""
    async with EmbeddedPostgres(folder / "postgres") as server:
        url, name = server.url.rsplit("/", 1)
        admin = await asyncpg.connect(f"{url}/postgres")
        if copy:
            await admin.execute("DROP DATABASE IF EXISTS round")
            await admin.execute(f"CREATE DATABASE round TEMPLATE {name} STRATEGY file_copy")
        # What the copying has left to be written must not be written while the round is measured.
        await admin.execute("CHECKPOINT")
        database = Database(f"{url}/round" if copy else server.url)
        yield database
        await database.close()
        if copy:
            await admin.execute("DROP DATABASE round")
        await admin.close()


@contextlib.contextmanager
def serving(service: str, url: str, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many processes of a service, as `rapport serve` starts them."""
    command = [sys.executable, "-m", "services", "serve", service, "--host", "127.0.0.1", "--port", "0"]
    environment = {**os.environ, "DATABASE_URL": url, "RAPPORT_LOG_LEVEL": "warning"}
    processes = [subprocess.Popen(command, env=environment) for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


async def shared_out(
    connection: asyncpg.Connection, service: str, processes: Sequence[subprocess.Popen[bytes]]
) -> None:
    """Until each process owns its part of the partitions."""
    parts = [DEFAULT_PARTITIONS // len(processes)] * len(processes)
    while True:
        rows = await connection.fetch(
            "SELECT count(*) FROM processing.partitions WHERE service = $1 AND owner IS NOT NULL GROUP BY owner",
            service,
        )
        if [row[0] for row in rows] == parts:
            return
        await a_moment(processes)


async def a_moment(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Raises RuntimeError where one of them has ended."""
    await asyncio.sleep(0.02)
    if any(process.poll() is not None for process in processes):
        raise RuntimeError("a worker ended; what it said stands above.")
