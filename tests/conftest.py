"""Fixtures that every kind of test shares: a PostgreSQL server with a database for each test, and a Kafka."""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Iterator
from io import StringIO
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
import structlog
from hypothesis import HealthCheck, settings
from kafka_for_tests import Kafka, start_kafka

from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database
from shared.telemetry import configure_logging

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("rapport", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rapport")

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


_KAFKA_USED = pytest.StashKey[str]()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka_broker(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> AsyncIterator[Kafka]:
    """One Kafka for the whole run. A test makes topics of its own in it: `await kafka_broker.make_topics(prefix)`."""
    kafka = await start_kafka(tmp_path_factory.mktemp("kafka") / "broker")
    pytestconfig.stash[_KAFKA_USED] = kafka.name
    yield kafka
    await kafka.end()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if used := config.stash.get(_KAFKA_USED, None):
        terminalreporter.write_line(f"Kafka: {used}")
