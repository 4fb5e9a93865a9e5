"""Fixtures that every kind of test shares: a PostgreSQL server with a database for each test, and a Kafka."""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
import structlog
from hypothesis import HealthCheck, settings
from kafka_for_tests import Kafka, start_kafka

from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database
from shared.telemetry import configure_logging

# How long an example takes says more of what else the machine does than of the code. A run has the same examples as the
# one before, so that what fails was broken by what changed; `--hypothesis-profile=explore` looks for what is unknown.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("rapport", settings.get_profile("explore"), derandomize=True)
settings.load_profile("rapport")

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedPostgres]:
    """One server for all tests of a process. Its folder lies where the unprivileged account may enter it."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="rapport-test-") as folder:
        Path(folder).chmod(0o755)
        # Nothing of it outlives a crash of the machine, or the tests; and it has a hundred small databases in it.
        quick = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "shared_buffers": "128MB"}
        server = EmbeddedPostgres(Path(folder) / "postgres", settings=quick)
        await server.start()
        try:
            yield server
        finally:
            await server.stop(immediate=True)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def every_table(postgres: EmbeddedPostgres) -> str:
    """The name of a database with every table, to be copied: the migrations take ten times as long as a copy."""
    # Not at the top: most unit tests need none of it.
    from services.serving import MIGRATIONS
    from shared.database.migrations import migrate

    database = Database(await _new_database(postgres, "every_table"))
    await migrate(database, MIGRATIONS)
    return "every_table"


@pytest_asyncio.fixture
async def database_url(postgres: EmbeddedPostgres, every_table: str) -> AsyncIterator[str]:
    """A fresh database, whose tables are empty."""
    name = f"test_{next(_numbers)}"
    yield await _new_database(postgres, name, copied=every_table)
    await _drop(postgres, name)


@pytest_asyncio.fixture
async def bare_database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A fresh database without any table."""
    name = f"test_{next(_numbers)}"
    yield await _new_database(postgres, name)
    await _drop(postgres, name)


async def _new_database(postgres: EmbeddedPostgres, name: str, *, copied: str = "template1") -> str:
    connection = await asyncpg.connect(postgres.url)
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {copied}")
    finally:
        await connection.close()
    return postgres.url.rsplit("/", 1)[0] + f"/{name}"


async def _drop(postgres: EmbeddedPostgres, name: str) -> None:
    """At once: most of its files have not been written to the disk yet, and never need be."""
    # What cannot be dropped now goes with the server.
    with suppress(asyncpg.PostgresError, OSError, TimeoutError):
        connection = await asyncpg.connect(postgres.url, timeout=20)
        try:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)", timeout=20)
        finally:
            await connection.close(timeout=20)


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
def logged() -> Iterator[StringIO]:
    """The lines of the log, as they are in earnest; libraries' too."""
    handlers, level, before = logging.root.handlers[:], logging.root.level, structlog.get_config()
    lines = StringIO()
    configure_logging("info", "json", lines)
    yield lines
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.configure(**before)


_TOLD = pytest.StashKey[list[str]]()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka_broker(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> AsyncIterator[Kafka]:
    """One Kafka for all tests of a process. Each makes topics of its own: `await kafka_broker.make_topics(prefix)`."""
    kafka = await start_kafka(tmp_path_factory.mktemp("kafka") / "broker")
    tell_at_the_end(pytestconfig, f"Kafka: {kafka.name}")
    yield kafka
    await kafka.end()


@pytest.fixture
def measured(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """What was measured, to be told at the end of the run: figures of a busy machine prove nothing by themselves."""
    return lambda figure: tell_at_the_end(pytestconfig, f"measured: {figure}")


def tell_at_the_end(config: pytest.Config, line: str) -> None:
    config.stash.setdefault(_TOLD, []).append(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # one of several processes, none of which speaks for the whole run
        session.config.workeroutput["told"] = session.config.stash.get(_TOLD, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash.setdefault(_TOLD, []).extend(getattr(node, "workeroutput", {}).get("told", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in dict.fromkeys(config.stash.get(_TOLD, [])):
        terminalreporter.write_line(line)
