"""Reading from Kafka: one consumer for the partitions of a stream, each read from the offset that its owner names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic, time
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from shared.errors import RapportError, Unavailable
from shared.log.kafka_appends import ORIGIN, TRACE
from shared.log.kafka_clients import CONNECT_DEADLINE, Clients, stop_consumer, unavailable
from shared.log.port import Fetched, OffsetOutOfRange, Origin, Record

SILENT = 2.0
"""Seconds without an answer after which the log counts as unavailable."""
GIVEN_UP = 10.0
"""Seconds without an answer after which a consumer is replaced."""


class _Lane:
    """The reading position in one partition, and when the log was last seen to have answered for it."""

    def __init__(self, offset: int) -> None:
        self.position = offset
        self.answered = monotonic()
        self.polled: int | None = None

    def look(self, polled: int | None) -> None:
        """`polled` is the consumer's wall time of the last answer (milliseconds)."""
        if polled is not None and polled != self.polled:
            self.polled, self.answered = polled, monotonic()

    def answered_since(self, began: float) -> bool:
        """Both by the wall clock, which knows when the answer came, and by one that is never set, as `began` is."""
        if self.polled is None or self.answered < began:
            return False
        return 0 <= time() * 1000 - self.polled <= (monotonic() - began) * 1000


class KafkaReader:
    """Reads partitions of one stream with one consumer. Get it from `KafkaLog.reader`."""

    def __init__(self, clients: Clients, stream: str, topic: str, closed: Callable[[KafkaReader], None]) -> None:
        self._clients = clients
        self._stream = stream
        self._topic = topic
        self._closed = closed
        self._lanes: dict[int, _Lane] = {}
        self._consumer: Any = None
        self._starting = asyncio.Lock()

    def assign(self, offsets: Mapping[int, int]) -> None:
        lanes = {partition: self._lanes.get(partition) or _Lane(offset) for partition, offset in offsets.items()}
        if lanes.keys() != self._lanes.keys():
            self._lanes = lanes
            if self._consumer is not None:
                self._point(self._consumer)

    def seek(self, partition: int, offset: int) -> None:
        self._lane(partition).position = offset
        if self._consumer is not None:
            self._consumer.seek(self._place(partition), offset)

    async def close(self) -> None:
        self._lanes = {}
        self._closed(self)
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop_consumer(consumer)

    async def fetch(self, partition: int, limit: int, wait: float) -> Fetched:
        lane = self._lane(partition)
        place = self._place(partition)
        began = monotonic()
        deadline = began + wait
        while True:
            consumer = await self._started()
            if self._lanes.get(partition) is not lane:
                return Fetched((), lane.position, False)  # let go of meanwhile
            left = max(0.0, deadline - monotonic())
            # From here to the new position nothing is awaited but the records, so no assignment can come between.
            try:
                found = await consumer.getmany(place, timeout_ms=int(left * 1000), max_records=limit)
            except OffsetOutOfRangeError:
                raise await self._out_of_range(partition, lane) from None
            except (KafkaError, OSError) as error:
                self._drop(consumer)
                raise unavailable(f"{self._stream}[{partition}]", error) from error
            if self._lanes.get(partition) is not lane:
                return Fetched((), lane.position, False)
            if consumer is not self._consumer:
                continue  # it was replaced meanwhile; the new one begins at our position
            records = [_record(message) for message in found.get(place, ())]
            # Asked of the consumer, since a log may have gaps. It has an answer at once and awaits nothing.
            lane.position = await consumer.position(place)
            lane.look(consumer.last_poll_timestamp(place))
            drained = lane.answered_since(began) and consumer.highwater(place) == lane.position
            if not records and not drained:
                silence = monotonic() - lane.answered
                if silence > GIVEN_UP:
                    self._drop(consumer)
                if silence > SILENT:
                    raise Unavailable(f"log: {self._stream}[{partition}] has not answered for {silence:.1f} s.")
            return Fetched(records, lane.position, drained)

    async def _started(self) -> Any:
        """The consumer, made and pointed to our partitions where there is none."""
        async with self._starting:
            if self._consumer is None:
                consumer = self._clients.consumer()
                try:
                    async with asyncio.timeout(CONNECT_DEADLINE):
                        await consumer.start()
                except BaseException as error:
                    self._clients.end_beside(stop_consumer(consumer))
                    if isinstance(error, (KafkaError, TimeoutError, OSError)):
                        raise unavailable(f"the stream {self._stream}", error) from error
                    raise
                self._consumer = consumer
                self._point(consumer)
            return self._consumer

    def _point(self, consumer: Any) -> None:
        """Assign and seek in one tick, so that no fetch begins anywhere else."""
        consumer.assign([self._place(partition) for partition in self._lanes])
        for partition, lane in self._lanes.items():
            consumer.seek(self._place(partition), lane.position)
            lane.answered, lane.polled = monotonic(), None

    def _drop(self, consumer: Any) -> None:
        """Have the next fetch make another consumer."""
        if self._consumer is consumer:
            self._consumer = None
            self._clients.end_beside(stop_consumer(consumer))

    async def _out_of_range(self, partition: int, lane: _Lane) -> Exception:
        asked = lane.position
        earliest, end = await self._clients.range_of(self._topic, partition)
        if earliest <= asked <= end:
            return Unavailable(f"log: {self._stream}[{partition}] was just restored; offset {asked} is there now.")
        return OffsetOutOfRange(self._stream, partition, asked, earliest, end)

    def _place(self, partition: int) -> Any:
        return TopicPartition(self._topic, partition)

    def _lane(self, partition: int) -> _Lane:
        try:
            return self._lanes[partition]
        except KeyError:
            raise RapportError(f"log: {self._stream}[{partition}] is not assigned to this reader.") from None


def _record(message: Any) -> Record:
    origin: Origin | None = None
    trace: str | None = None
    try:
        key = (message.key or b"").decode()
        for name, value in message.headers:
            if name == ORIGIN:
                service, partition, generation, seq = value.decode().rsplit(":", 3)
                origin = Origin(service, int(partition), int(generation), int(seq))
            elif name == TRACE:
                trace = value.decode()
    except ValueError as error:
        # Anybody who may write to the topic may have written this; it must not stand in the way of what follows.
        broken = f"its key or a header is none of Rapport's: {error}. Find out what else writes to {message.topic}."
        key = (message.key or b"").decode(errors="replace")
        return Record(message.offset, key, message.value or b"", broken=broken)
    return Record(message.offset, key, message.value or b"", origin, trace)
