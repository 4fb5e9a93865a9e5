"""The Kafka of a test run: the real broker where Java and Maven are there, else librdkafka's mock cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from confluent_kafka import Producer
from patience import answered

from deploy.dev.broker import VERSION, KafkaBroker, lacking
from shared.contracts.streams import STREAMS
from shared.log.kafka import KafkaLog

MOCK_PARTITIONS = 4
"""What the mock cluster gives every topic; it cannot be told otherwise."""


class Kafka(Protocol):
    """A running Kafka."""

    @property
    def name(self) -> str:
        """What the end of the run says of it."""
        ...

    @property
    def bootstrap(self) -> str: ...

    async def make_topics(self, prefix: str, partitions: int = MOCK_PARTITIONS) -> None:
        """The streams of one installation, under a prefix of their own."""
        ...

    async def end(self) -> None: ...


class RealKafka(KafkaBroker):
    """The broker itself; it can be stopped, killed and made silent."""

    name = f"real broker {VERSION}"

    async def make_topics(self, prefix: str, partitions: int = MOCK_PARTITIONS) -> None:
        log = KafkaLog(self.bootstrap, partitions, prefix=prefix)
        await answered(log.ensure_streams, "the topics")

    async def end(self) -> None:
        await self.kill()  # nothing of it is kept


class MockKafka:
    """A cluster within librdkafka, in memory. It is as alive as the producer that made it."""

    def __init__(self, reason: str) -> None:
        self.name = f"librdkafka mock cluster ({reason})"
        self._producer = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 1})
        (broker,) = self._producer.list_topics(timeout=60).brokers.values()
        self.bootstrap = f"{broker.host}:{broker.port}"

    async def make_topics(self, prefix: str, partitions: int = MOCK_PARTITIONS) -> None:
        assert partitions == MOCK_PARTITIONS, "the mock cluster has one partition count for all"
        for stream in (*STREAMS, "installation"):
            self._producer.list_topics(prefix + stream, timeout=60)  # it makes what it is asked about

    async def end(self) -> None:
        return


def real() -> bool:
    """Whether tests that need the broker itself can run here."""
    return lacking() is None


def also_on_kafka(others: Sequence[str]) -> list[str]:
    """Parameters for tests that stop and silence the server: the mock cluster cannot be."""
    return [*others, "kafka"] if real() else [*others]


async def start_kafka(folder: Path) -> Kafka:
    reason = lacking()
    if reason is not None:
        return MockKafka(reason)
    broker = RealKafka(folder)
    await broker.start()
    return broker
