"""One open batch per partition: what many requests bring within a few milliseconds goes to the log in one append."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from time import perf_counter

import msgspec
import structlog

from shared.errors import RapportError, Unavailable
from shared.log.port import Entry, Log, RecordTooLarge
from shared.processing.faults import reached
from shared.telemetry import INGEST_APPEND_SECONDS, INGEST_BYTES_IN_FLIGHT
from shared.trouble import Trouble

APPEND_BYTES = 1024 * 1024
"""A batch that has this many bytes takes no further request; the next one opens."""
MANY_REQUESTS = 16
"""After an append of so many, as many are soon there again; after one of few, waiting would gather hardly any."""

_TICK = 0.001
"""Seconds by which a loop's timer may come too early."""

_logger = structlog.get_logger("rapport.ingest")


def pause_after(requests: int, most: float) -> float:
    """From the begin of an append of so many requests to that of the next, where `most` is after many."""
    return most * min(1.0, requests / MANY_REQUESTS)


class OpenBatches:
    """Gathers entries and hands them to the log, in the order in which they came to each partition.

    At most one append per partition is under way, so the log sees a customer's events in the order of the requests. A
    request's entries for one partition are never torn over two appends: of a request that is sent again because of a
    failure, the log has either a beginning or nothing.
    """

    def __init__(
        self,
        log: Log,
        stream: str,
        *,
        flush_seconds: float,
        answer_seconds: float,
        bytes_in_flight: int,
    ) -> None:
        """`flush_seconds`: how far apart appends begin where each has many requests; where they have few, the next may
        follow sooner. `answer_seconds`: after which time a request is told that the log has not confirmed.
        `bytes_in_flight`: how much may wait for bodies and for the log."""
        self._log, self._stream = log, stream
        self._flush_seconds, self._answer_seconds = flush_seconds, answer_seconds
        self._limit, self._in_flight = bytes_in_flight, 0
        self._lanes: defaultdict[int, _Lane] = defaultdict(_Lane)
        self._waiting: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._closed = False
        self._trouble = Trouble(
            "taking events",
            "Bring back the log. Shops are answered 503 meanwhile, and send again.",
            logger=_logger.bind(service="ingest"),
        )
        INGEST_BYTES_IN_FLIGHT.set_function(lambda: self._in_flight)

    def reserve(self, size: int) -> bool:
        """Count `size` bytes as in flight; False where that would be too many."""
        if self._in_flight + size > self._limit:
            return False
        self._in_flight += size
        return True

    def release(self, size: int) -> None:
        self._in_flight -= size

    @property
    def in_flight(self) -> int:
        """Bytes of bodies that are being read and of entries that wait for the log."""
        return self._in_flight

    @property
    def closed(self) -> bool:
        return self._closed

    def append(self, entries: Mapping[int, Sequence[Entry]]) -> asyncio.Future[None] | None:
        """A future that is done when the log has all entries (by partition), or raises Unavailable or RecordTooLarge.

        None where they exceed the bytes in flight, or after `close`: nothing was taken then."""
        size = sum([len(entry.value) for some in entries.values() for entry in some])
        if self._closed or not self.reserve(size):
            return None
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        if not entries:
            done.set_result(None)
        request = _Request(done, len(entries))
        for partition, some in entries.items():
            lane = self._lanes[partition]
            if not lane.batches or lane.batches[-1].size >= APPEND_BYTES:
                self._open(loop, lane)
            lane.batches[-1].add(some, request)
            if lane.writer is None and not lane.waiting:
                lane.waiting = True
                self._waiting.append(partition)
        if self._timer is None and self._waiting:
            self._timer = loop.call_at(max(self._next_at, loop.time()), self._flush)
        return done

    async def close(self) -> None:
        """Take nothing more, and wait until the log has (or has refused) everything that was taken.

        A log that does not answer is waited for as long as a request is."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._flush()
        writers = [lane.writer for lane in self._lanes.values() if lane.writer is not None]
        if writers:
            _, hanging = await asyncio.wait(writers, timeout=self._answer_seconds)
            self._give_up_until(math.inf)
            for writer in hanging:
                writer.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)
        if self._watch is not None:
            self._watch.cancel()

    def _open(self, loop: asyncio.AbstractEventLoop, lane: _Lane) -> None:
        deadline = loop.time() + self._answer_seconds
        lane.batches.append(_Batch(deadline))
        if self._watch is None:
            self._watch = loop.call_at(deadline, self._look_for_late)

    def _flush(self) -> None:
        self._timer = None
        waiting, self._waiting = self._waiting, []
        requests = sum(len(batch.parts) for partition in waiting for batch in self._lanes[partition].batches)
        self._next_at = asyncio.get_running_loop().time() + pause_after(requests, self._flush_seconds)
        for partition in waiting:
            lane = self._lanes[partition]
            lane.waiting = False
            lane.writer = asyncio.get_running_loop().create_task(self._write(partition, lane))

    async def _write(self, partition: int, lane: _Lane) -> None:
        """Write the lane's batches one after the other, and those that come meanwhile."""
        try:
            while lane.batches:
                batch = lane.writing = lane.batches.popleft()
                try:
                    await self._write_batch(partition, batch)
                finally:
                    lane.writing = None
                    self.release(batch.size)
        finally:
            lane.writer = None

    async def _write_batch(self, partition: int, batch: _Batch) -> None:
        try:
            started = perf_counter()
            await self._log.append(self._stream, partition, batch.entries)
            reached("ingest.appended")
            INGEST_APPEND_SECONDS.observe(perf_counter() - started)
        except RecordTooLarge as refused:
            if len(batch.parts) == 1:
                batch.settle(refused)
            else:
                # One request's record must not be the end of the others'.
                for part in batch.parts:
                    await self._write_batch(partition, _Batch(batch.deadline, [part]))
        except Unavailable as trouble:
            self._trouble.met("log", trouble)
            batch.settle(trouble)
        except Exception as defect:
            # Whatever it is, nobody may wait for ever, and nobody may be told that the log has it.
            _logger.exception("append failed", stream=self._stream, partition=partition, records=len(batch.entries))
            batch.settle(Unavailable(f"{self._stream}[{partition}]: the append failed: {type(defect).__name__}"))
        except asyncio.CancelledError:
            batch.settle(Unavailable(f"{self._stream}[{partition}]: the append was cancelled."))
            raise
        else:
            self._trouble.over("log")
            batch.settle(None)

    def _look_for_late(self) -> None:
        self._watch = None
        loop = asyncio.get_running_loop()
        deadlines = self._give_up_until(loop.time() + _TICK)
        if deadlines:
            self._watch = loop.call_at(min(deadlines), self._look_for_late)

    def _give_up_until(self, late: float) -> list[float]:
        """Tell those who may wait until `late` at most that the log has not confirmed; gives the others' deadlines.

        What has not been handed to the log is dropped: it will be sent again, and must not then come after what
        followed it."""
        deadlines: list[float] = []
        for lane in self._lanes.values():
            while lane.batches and lane.batches[0].deadline <= late:
                dropped = lane.batches.popleft()
                self.release(dropped.size)
                self._give_up(dropped)
            if lane.writing is not None and not lane.writing.settled:
                if lane.writing.deadline <= late:
                    self._give_up(lane.writing)
                else:
                    deadlines.append(lane.writing.deadline)
            if lane.batches:
                deadlines.append(lane.batches[0].deadline)
        return deadlines

    def _give_up(self, batch: _Batch) -> None:
        batch.settle(Unavailable(f"{self._stream}: no confirmation within {self._answer_seconds:g} s."))


class _Request(msgspec.Struct, eq=False):
    """Waits for as many batches as its entries went into; the first failure fails it."""

    done: asyncio.Future[None]
    missing: int


class _Batch:
    """Entries for one append, in parts: one part for each request."""

    __slots__ = ("deadline", "entries", "parts", "settled", "size")

    def __init__(self, deadline: float, parts: Sequence[_Part] = ()) -> None:
        self.deadline = deadline
        self.parts = list(parts)
        self.entries: list[Entry] = [entry for entries, _ in self.parts for entry in entries]
        self.size = 0
        self.settled = False

    def add(self, entries: Sequence[Entry], request: _Request) -> None:
        self.parts.append((entries, request))
        self.entries.extend(entries)
        for entry in entries:
            self.size += len(entry.value)

    def settle(self, failure: RapportError | None) -> None:
        if self.settled:
            return
        self.settled = True
        for _, request in self.parts:
            request.missing -= 1
            if request.done.done():
                continue
            if failure is not None:
                request.done.set_exception(failure)
            elif not request.missing:
                request.done.set_result(None)


_Part = tuple[Sequence[Entry], _Request]


class _Lane:
    """One partition's batches: the last one is open. `writer` writes them, `writing` is the one that it has in hand."""

    __slots__ = ("batches", "waiting", "writer", "writing")

    def __init__(self) -> None:
        self.batches: deque[_Batch] = deque()
        self.waiting = False
        self.writer: asyncio.Task[None] | None = None
        self.writing: _Batch | None = None
