"""Where a batch's outputs go. One of two ways, by what the log is.

On the log in PostgreSQL a batch appends to the streams inside its own transaction. On Kafka it writes them to the
outbox there, and they are published in order after COMMIT: one append in flight for each destination, deleted from the
front a moment after they are acknowledged. What a crash leaves in the outbox is published by the next owner; readers
drop what they had.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import structlog

from shared.backoff import back_off
from shared.database.clauses import Clause
from shared.database.engine import Database, is_transient
from shared.errors import Unavailable
from shared.log.port import Entry, Log
from shared.log.postgres import PostgresLog
from shared.log.postgres_reader import Appended
from shared.processing import store
from shared.processing.faults import reached
from shared.processing.store import Destination
from shared.telemetry import OUTBOX
from shared.trouble import Trouble

Outputs = Mapping[Destination, Sequence[Entry]]

_ENTRIES_AT_ONCE = 2000
"""Of one append."""
_EMPTY_SECONDS = 0.05
"""How far apart the outbox is emptied of what is acknowledged."""

# Of one partition for one destination, committed and not published, held in memory.
_MOST_BATCHES = 64
_MOST_ENTRIES = 10_000


class Outlet(Protocol):
    def clause(self, outputs: Mapping[int, Outputs]) -> Clause | None:
        """With the last statement of the fenced transaction: what each source partition puts out."""
        ...

    def wrote(self, outputs: Mapping[int, Outputs], rows: Sequence[Any]) -> None:
        """The statement has been carried out, and these rows came of it; its COMMIT may be still to come."""
        ...

    def committed(self, outputs: Mapping[int, Outputs]) -> None: ...

    async def recover(self, partition: int) -> None:
        """On claiming: take up what a predecessor committed and may not have published."""
        ...

    def full(self, partition: int) -> bool:
        """More is committed and unpublished than is good; wait before adding to it."""
        ...

    async def drained(self, partition: int) -> None:
        """Wait until all that this partition committed is published, but not for a log or a database that is away."""
        ...

    def forget(self, partition: int) -> None:
        """The partition was let go or lost."""
        ...

    async def close(self) -> None:
        """Every partition was let go: returns when nothing is under way any more."""
        ...


class StreamOutlet:
    """The log in PostgreSQL: the transaction itself appends."""

    def __init__(self, log: PostgresLog) -> None:
        self._log = log
        self._appended: dict[int, Appended] = {}
        """By source partition: what its transaction, or one that it shares, has appended and not committed yet."""

    def clause(self, outputs: Mapping[int, Outputs]) -> Clause | None:
        merged = _merged(outputs)
        return self._log.append_in(merged) if merged else None

    def wrote(self, outputs: Mapping[int, Outputs], rows: Sequence[Any]) -> None:
        self._appended.update(dict.fromkeys(outputs, self._log.appended(_merged(outputs), rows)))

    def committed(self, outputs: Mapping[int, Outputs]) -> None:
        # Those that share a transaction share what it appended.
        for appended in {id(one): one for one in (self._appended.pop(partition) for partition in outputs)}.values():
            self._log.announce(appended)

    async def recover(self, partition: int) -> None:
        return

    def full(self, partition: int) -> bool:
        return False

    async def drained(self, partition: int) -> None:
        return

    def forget(self, partition: int) -> None:
        self._appended.pop(partition, None)

    async def close(self) -> None:
        return


def _merged(outputs: Mapping[int, Outputs]) -> dict[Destination, list[Entry]]:
    merged: dict[Destination, list[Entry]] = {}
    for one in outputs.values():
        for destination, entries in one.items():
            merged.setdefault(destination, []).extend(entries)
    return merged


class OutboxOutlet:
    """Kafka: the transaction writes the outbox, and a publisher for each destination empties it.

    `patience` is how many seconds who leaves waits for a log or a database that has failed: a pause, and one attempt
    more."""

    def __init__(
        self, log: Log, database: Database, service: str, trouble: Trouble | None = None, *, patience: float = 15.0
    ) -> None:
        self._log = log
        self._database = database
        self._service = service
        self._patience = patience
        self._queues: dict[tuple[int, Destination], deque[Sequence[Entry]]] = {}
        self._publishers: dict[tuple[int, Destination], asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        """Publishers of partitions that were let go, which have not ended yet."""
        self._failing: set[tuple[int, Destination]] = set()
        self._acknowledged: dict[tuple[int, Destination], int] = {}
        """Up to which sequence the log has what still stands in the outbox."""
        self._emptying: asyncio.Task[None] | None = None
        self._stuck = False
        """What is acknowledged could not be deleted, the last time that it was tried."""
        self._logger = structlog.get_logger(service=service)
        self._trouble = trouble or Trouble("publishing", "It goes on by itself.", logger=self._logger)

    def clause(self, outputs: Mapping[int, Outputs]) -> Clause | None:
        return store.outbox(self._service, outputs) if any(outputs.values()) else None

    def wrote(self, outputs: Mapping[int, Outputs], rows: Sequence[Any]) -> None:
        return

    def committed(self, outputs: Mapping[int, Outputs]) -> None:
        for partition, one in outputs.items():
            for destination, entries in one.items():
                self._add(partition, destination, entries)

    async def recover(self, partition: int) -> None:
        self.forget(partition)
        async with self._database.connect() as connection:
            left = await store.read_outbox(connection, self._service, partition)
        for destination, _, entries in left:
            self._add(partition, destination, entries)

    def full(self, partition: int) -> bool:
        return any(
            len(queue) >= _MOST_BATCHES or sum(map(len, queue)) >= _MOST_ENTRIES
            for key, queue in self._queues.items()
            if key[0] == partition
        )

    async def drained(self, partition: int) -> None:
        # What the log or the database does not take then is published or deleted by the next owner as well as by us.
        until = asyncio.get_running_loop().time() + self._patience
        while True:
            patient = asyncio.get_running_loop().time() < until
            tasks = [
                task
                for key, task in self._publishers.items()
                if key[0] == partition and (patient or key not in self._failing)
            ]
            emptying = self._emptying if any(key[0] == partition for key in self._acknowledged) else None
            if emptying is not None and not emptying.done() and (patient or not self._stuck):
                tasks.append(emptying)
            if not tasks:
                return
            await asyncio.wait(tasks, timeout=0.1)

    def forget(self, partition: int) -> None:
        for key in [key for key in self._publishers if key[0] == partition]:
            publisher = self._publishers.pop(key)
            publisher.cancel()
            self._ending.add(publisher)
            publisher.add_done_callback(self._ending.discard)
            self._failing.discard(key)
            self._trouble.over(("publishing", *key))
        for key in [key for key in self._queues if key[0] == partition]:
            self._queues.pop(key)
        for key in [key for key in self._acknowledged if key[0] == partition]:
            self._acknowledged.pop(key)
        self._measure()

    async def close(self) -> None:
        tasks = [*self._ending, *([self._emptying] if self._emptying is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _add(self, partition: int, destination: Destination, entries: Sequence[Entry]) -> None:
        key = (partition, destination)
        self._queues.setdefault(key, deque()).append(entries)
        if key not in self._publishers:
            self._begin(key)
        self._measure()

    def _begin(self, key: tuple[int, Destination]) -> None:
        task = self._publishers[key] = asyncio.create_task(self._publish(*key, self._queues[key]))
        task.add_done_callback(lambda done: self._published(key, done))

    def _published(self, key: tuple[int, Destination], task: asyncio.Task[None]) -> None:
        if self._publishers.get(key) is task:
            del self._publishers[key]
            if self._queues.get(key):
                self._begin(key)  # something was added between the task's last look and this call

    async def _publish(self, partition: int, destination: Destination, queue: deque[Sequence[Entry]]) -> None:
        failures = 0
        while queue:
            taken = list(queue[0])
            batches = 1
            while batches < len(queue) and len(taken) + len(queue[batches]) <= _ENTRIES_AT_ONCE:
                taken += queue[batches]
                batches += 1
            try:
                await self._log.append(*destination, taken)
            except Exception as error:
                # What is committed has to go out, whatever stands in the way: nothing can take its place.
                failures += 1
                self._failing.add((partition, destination))
                if failures == 1 and not isinstance(error, Unavailable):
                    self._logger.error("publishing failed, and is tried again", exc_info=error)
                self._trouble.met(("publishing", partition, destination), error)
                await asyncio.sleep(back_off(failures))
                continue
            reached(f"{self._service}.published")
            for _ in range(batches):
                queue.popleft()
            self._measure()
            origin = taken[-1].origin
            assert origin is not None
            failures = 0
            self._failing.discard((partition, destination))
            self._trouble.over(("publishing", partition, destination))
            self._acknowledged[partition, destination] = origin.seq
            if self._emptying is None or self._emptying.done():
                self._emptying = asyncio.create_task(self._empty())

    async def _empty(self) -> None:
        """Delete what is acknowledged, of all partitions in one statement: for each alone it would cost more than all
        else of it. What a crash leaves is published again by the next owner, and dropped by its readers."""
        failures = 0
        while self._acknowledged:
            await asyncio.sleep(_EMPTY_SECONDS)
            gone = dict(self._acknowledged)
            if not gone:
                return
            try:
                async with self._database.connect() as connection:
                    await store.delete_outbox(connection, self._service, gone)
            except Exception as error:
                failures += 1
                self._stuck = True
                if not is_transient(error) and failures == 1:
                    self._logger.error("the outbox cannot be emptied", exc_info=error)
                await asyncio.sleep(back_off(failures))
            else:
                reached(f"{self._service}.emptied")
                failures, self._stuck = 0, False
                for key, seq in gone.items():
                    if self._acknowledged.get(key) == seq:
                        del self._acknowledged[key]

    def _measure(self) -> None:
        OUTBOX.labels(self._service).set(sum(map(len, self._queues.values())))
