"""The clients of Kafka: what each is told, and how it is ended in time.

Every call has a deadline, since aiokafka's `send` and `stop` may hang while brokers are away (its issue 1101).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from shared.errors import Unavailable
from shared.log.port import LARGEST_RECORD

CONNECT_DEADLINE = 5.0
STOP_DEADLINE = 2.0
REQUEST_DEADLINE = 4.0
"""Seconds that one request to a broker may take; less than an append may, so that it can be tried again."""

# Bytes before compression. One record of the largest size fits a batch, with its headers.
BATCH_BYTES = LARGEST_RECORD + 64 * 1024
TOPIC_BATCH_BYTES = 2 * BATCH_BYTES
FETCH_BYTES_PER_PARTITION = 4 << 20
FETCH_BYTES = 32 << 20
# A broker gets one fetch at a time from us, and holds it so long where there is nothing. A partition whose records were
# handed out meanwhile waits for the next one, so this bounds how late its following records come.
FETCH_HOLD = 0.05

_log = structlog.get_logger()


class Clients:
    """Makes the clients of one cluster. `security` are aiokafka's options for TLS and for logging in."""

    def __init__(self, bootstrap: str, security: Mapping[str, Any]) -> None:
        self.bootstrap = bootstrap
        self._options: dict[str, Any] = {
            "bootstrap_servers": bootstrap,
            "client_id": "rapport",
            "request_timeout_ms": int(REQUEST_DEADLINE * 1000),
            **security,
        }
        self._endings: set[asyncio.Task[None]] = set()

    def producer(self) -> Any:
        return AIOKafkaProducer(
            **self._options,
            acks="all",
            enable_idempotence=True,
            compression_type="lz4",
            max_batch_size=BATCH_BYTES,
            max_request_size=TOPIC_BATCH_BYTES,
            retry_backoff_ms=50,
        )

    def consumer(self) -> Any:
        return AIOKafkaConsumer(
            **self._options,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=int(FETCH_HOLD * 1000),
            max_partition_fetch_bytes=FETCH_BYTES_PER_PARTITION,
            fetch_max_bytes=FETCH_BYTES,
            retry_backoff_ms=100,
        )

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[Any]:
        """A connection for one administrative errand; any trouble with it is Unavailable."""
        admin = AIOKafkaAdminClient(**self._options)
        try:
            async with asyncio.timeout(CONNECT_DEADLINE * 2):
                await admin.start()
                yield admin
        except (KafkaError, TimeoutError, OSError) as error:
            raise self.away(error) from error
        finally:
            with contextlib.suppress(KafkaError, TimeoutError, OSError):
                async with asyncio.timeout(CONNECT_DEADLINE):
                    await admin.close()

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[Any]:
        """A consumer for one question."""
        consumer = self.consumer()
        try:
            async with asyncio.timeout(CONNECT_DEADLINE * 2):
                await consumer.start()
                yield consumer
        except (KafkaError, TimeoutError, OSError) as error:
            raise self.away(error) from error
        finally:
            self.end_beside(stop_consumer(consumer))

    async def range_of(self, topic: str, partition: int) -> tuple[int, int]:
        """The offset of the first record that is kept, and the one after the last."""
        place = TopicPartition(topic, partition)
        async with self.asking() as consumer:
            earliest, end = await consumer.beginning_offsets([place]), await consumer.end_offsets([place])
        return earliest[place], end[place]

    def away(self, error: BaseException) -> Unavailable:
        return unavailable(f"Kafka at {self.bootstrap}", error)

    def end_beside(self, ending: Coroutine[Any, Any, None]) -> None:
        """End a client beside the work."""
        task = asyncio.create_task(ending, name="log-client-stop")
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def close(self) -> None:
        """Returns when all that is being ended has ended."""
        if self._endings:
            await asyncio.wait(self._endings)


def unavailable(what: str, error: BaseException) -> Unavailable:
    if isinstance(error, Unavailable):
        return error
    # aiokafka's errors begin with their own names.
    text = str(error) if isinstance(error, KafkaError) else f"{type(error).__name__} {error}"
    return Unavailable(f"log: {what}: {text.strip()}")


async def stop_producer(producer: Any) -> None:
    """End a producer in time. Whatever it still holds was reported as failed, and is given up."""
    # Its own `stop` would first wait for what it holds, which it cannot deliver while its brokers are away.
    if producer._sender.sender_task is not None:
        await _in_time(producer._sender.close())
    producer._message_accumulator._batches.clear()
    producer._message_accumulator._pending_batches.clear()
    await _in_time(producer.stop())
    await _in_time(producer.client.close())


async def stop_consumer(consumer: Any) -> None:
    """End a consumer in time. It may raise the CancelledError of its own tasks, which is none of ours."""
    await _in_time(consumer.stop())
    await _in_time(consumer._client.close())


async def _in_time(ending: Coroutine[Any, Any, None]) -> None:
    """Await `ending` in a task of its own, for so long; what goes wrong with it is only worth a line in the log."""
    task = asyncio.create_task(ending)
    await asyncio.wait([task], timeout=STOP_DEADLINE)
    if not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=STOP_DEADLINE)
    if task.done() and not task.cancelled() and (error := task.exception()) is not None:
        _log.info("a client of Kafka did not stop in order", error=f"{type(error).__name__}: {error}")
