"""Appending to Kafka: one batch in flight for each partition, and a producer that is replaced after every failure.

The producer is idempotent. A batch that expires without a leader burns its sequence numbers for good (aiokafka's issue
1017), so after a failure another one goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from shared.errors import RapportError
from shared.log.kafka_clients import CONNECT_DEADLINE, Clients, stop_producer, unavailable
from shared.log.port import Entry, RecordTooLarge

ORIGIN = "origin"
TRACE = "traceparent"
"""Names of headers."""


@dataclass(eq=False)
class _Call:
    entries: Sequence[Entry]
    done: asyncio.Future[None]
    taken: int = 0
    """How many of the entries have been put into batches."""


@dataclass
class _Line:
    """The appends to one partition: one batch is in flight, the calls that arrive meanwhile share the next."""

    topic: str
    partition: int
    calls: deque[_Call] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


@dataclass
class _Producing:
    """A producer, how many batches it has in hand, and whether it takes more."""

    producer: Any
    batches: int = 0
    retired: bool = False


class Appends:
    """All appends of a process. `deadline` is how long one may take, in seconds, before its outcome counts as
    unknown."""

    def __init__(self, clients: Clients, deadline: float) -> None:
        self._clients = clients
        self._deadline = deadline
        self._lines: dict[tuple[str, int], _Line] = {}
        self._producing: _Producing | None = None
        self._renewing = asyncio.Lock()

    async def start(self) -> None:
        """Connects. Raises Unavailable where there is nobody to connect to."""
        await self._current_producer()

    async def close(self) -> None:
        """Finishes what is under way."""
        tasks = [line.task for line in self._lines.values() if line.task is not None]
        if tasks:
            await asyncio.wait(tasks)
        if self._producing is not None:
            self._retire(self._producing)

    async def append(self, topic: str, partition: int, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        line = self._lines.get((topic, partition))
        if line is None:
            line = self._lines[topic, partition] = _Line(topic, partition)
        call = _Call(entries, asyncio.get_running_loop().create_future())
        line.calls.append(call)
        if line.task is None or line.task.done():
            line.task = asyncio.create_task(self._send_calls(line), name=f"log-append-{topic}-{partition}")
        await call.done

    async def _send_calls(self, line: _Line) -> None:
        while line.calls:
            try:
                async with asyncio.timeout(self._deadline):
                    sent = await self._send_batch(line, await self._current_producer())
            except Exception as error:
                # Those that wait would most likely fail in their turn, each after a deadline of its own.
                alone = isinstance(error, MessageSizeTooLargeError)
                failed = [call for call in line.calls if call.taken or not alone]
                for call in failed:
                    line.calls.remove(call)
                    if not call.done.done():
                        call.done.set_exception(_append_error(line, error, call))
            else:
                for call in sent:
                    if call.taken == len(call.entries):
                        line.calls.remove(call)
                        if not call.done.done():
                            call.done.set_result(None)

    async def _send_batch(self, line: _Line, producing: _Producing) -> list[_Call]:
        """Send what fits one batch, from the oldest call on; returns the calls that have entries in it."""
        producing.batches += 1
        try:
            batch = producing.producer.create_batch()
            sent: list[_Call] = []
            for call in line.calls:
                sent.append(call)
                while call.taken < len(call.entries):
                    entry = call.entries[call.taken]
                    room = batch.append(
                        timestamp=None, key=entry.key.encode(), value=entry.value, headers=_headers(entry)
                    )
                    if room is None:
                        break
                    call.taken += 1
                else:
                    continue
                break
            batch.close()
            await (await producing.producer.send_batch(batch, line.topic, partition=line.partition))
            return sent
        except BaseException:
            self._retire(producing)
            raise
        finally:
            producing.batches -= 1
            if producing.retired and not producing.batches:
                self._clients.end_beside(stop_producer(producing.producer))

    async def _current_producer(self) -> _Producing:
        async with self._renewing:
            if self._producing is None:
                producer = self._clients.producer()
                producing = _Producing(producer)
                try:
                    async with asyncio.timeout(CONNECT_DEADLINE):
                        await producer.start()
                except BaseException as error:
                    self._retire(producing)
                    if isinstance(error, (KafkaError, TimeoutError, OSError)):
                        raise self._clients.away(error) from error
                    raise
                self._producing = producing
            return self._producing

    def _retire(self, producing: _Producing) -> None:
        """Give it no more batches, and close it when those it has are done with."""
        if self._producing is producing:
            self._producing = None
        if not producing.retired:
            producing.retired = True
            if not producing.batches:
                self._clients.end_beside(stop_producer(producing.producer))


def _headers(entry: Entry) -> list[tuple[str, bytes]]:
    headers: list[tuple[str, bytes]] = []
    if entry.origin is not None:
        service, partition, generation, seq = entry.origin
        headers.append((ORIGIN, f"{service}:{partition}:{generation}:{seq}".encode()))
    if entry.trace is not None:
        headers.append((TRACE, entry.trace.encode()))
    return headers


def _append_error(line: _Line, error: Exception, call: _Call) -> RapportError:
    place = f"{line.topic}[{line.partition}]"
    if isinstance(error, MessageSizeTooLargeError) and len(call.entries) == 1:
        return RecordTooLarge(f"{place}: Kafka refuses a record as too large. Raise the topic's max.message.bytes.")
    return unavailable(f"{place}: an append failed, or its outcome is unknown", error)
