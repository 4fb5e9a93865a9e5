"""A log of either kind, a database with the mechanics' tables, and workers of the tally service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from kafka_for_tests import Kafka
from patience import answered, until
from tally import START, Tally, make_table

from shared.clock import ManualClock
from shared.contracts.streams import partition_of
from shared.database.engine import Database
from shared.errors import Unavailable
from shared.log.kafka import KafkaLog
from shared.log.port import Entry, Log, Record
from shared.log.postgres import PostgresLog
from shared.processing.installation import Installation, open_installation
from shared.processing.worker import Worker
from shared.runtime import Runtime
from shared.settings import Settings

PARTITIONS = 4


@dataclass
class House:
    url: str
    database: Database
    log: Log
    clock: ManualClock
    installation: Installation
    settings: Settings
    stack: AsyncExitStack
    workers: list[Worker] = field(default_factory=list)

    async def worker(self, processor: Tally, **settings: Any) -> Worker:
        runtime = Runtime(self.log, self.clock, self.database, self.installation)
        changed = self.settings.model_copy(update=settings)
        worker = Worker(runtime, processor, changed)
        await worker.start()
        self.workers.append(worker)
        return worker

    async def post(self, key: str, *values: bytes) -> None:
        await self.log.append("events", partition_of(key, PARTITIONS), [Entry(key, value) for value in values])

    async def output(self, key: str) -> list[bytes]:
        """What a reader takes of the customer's partition of the stream that the tally writes: Kafka may have a record
        twice, and the sequence of its source tells. What was committed goes there after the commit, if not with it."""

        async def all_went_out() -> bool:
            async with self.database.connect() as connection:
                return not await connection.fetchval("SELECT count(*) FROM processing.outbox")

        await until(all_went_out)
        taken: list[bytes] = []
        for record in await self.records("customers", partition_of(key, PARTITIONS)):
            assert record.origin is not None
            if record.origin.seq > len(taken):
                assert record.origin.seq == len(taken) + 1, "records are missing"
                taken.append(record.value)
        return taken

    async def records(self, stream: str, partition: int, begin: int = 0) -> list[Record]:
        reader = self.log.reader(stream)
        reader.assign({partition: begin})
        found: list[Record] = []
        async with asyncio.timeout(60):
            while True:
                try:
                    fetched = await reader.fetch(partition, 1000, 0.2)
                except Unavailable:
                    continue  # a busy broker is silent for a while
                found += fetched.records
                if fetched.drained:
                    await reader.close()
                    return found


@pytest.fixture(params=["postgres", pytest.param("kafka", marks=pytest.mark.kafka)])
def kafka(request: pytest.FixtureRequest) -> Kafka | None:
    """The broker, or None for the log in PostgreSQL."""
    found: Kafka | None = request.getfixturevalue("kafka_broker") if request.param == "kafka" else None
    return found


@pytest_asyncio.fixture
async def house(kafka: Kafka | None, database_url: str, database: Database) -> AsyncIterator[House]:
    await make_table(database)
    log: Log
    if kafka is not None:
        prefix = f"tally-{uuid4().hex[:8]}."
        await kafka.make_topics(prefix, PARTITIONS)
        log = KafkaLog(kafka.bootstrap, PARTITIONS, prefix=prefix)
    else:
        log = PostgresLog(database, PARTITIONS)

    await answered(log.start, "the log")
    async with database.connect() as connection:
        installation = await open_installation(connection, PARTITIONS, 1.0)
    # A worker that a busy machine lets wait is not to look dead.
    settings = Settings(heartbeat_seconds=0.1, expiry_seconds=120.0)
    async with AsyncExitStack() as stack:
        house = House(database_url, database, log, ManualClock(START), installation, settings, stack)
        yield house
        for worker in house.workers:
            await worker.stop()
    await log.close()
