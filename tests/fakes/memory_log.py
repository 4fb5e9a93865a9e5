"""The log port in memory, for tests of what writes to it. It can be told to wait, to fail and to lose its answers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress

from shared.contracts.streams import STREAMS
from shared.errors import RapportError, Unavailable
from shared.log.port import LARGEST_RECORD, Entry, Fetched, OffsetOutOfRange, Reader, Record, RecordTooLarge


class MemoryLog:
    """Streams as lists. `appends` keeps each call as it came: (stream, partition, entries)."""

    def __init__(self, partitions: int = 12, largest_record: int = LARGEST_RECORD) -> None:
        self._partitions, self.largest_record = partitions, largest_record
        self._streams: defaultdict[tuple[str, int], list[Record]] = defaultdict(list)
        self._open = asyncio.Event()
        self._open.set()
        self._waiting: defaultdict[tuple[str, int], list[asyncio.Future[None]]] = defaultdict(list)
        self.appends: list[tuple[str, int, Sequence[Entry]]] = []
        self._installation: str | None = None
        self.waiting = 0
        self.away: str | None = None
        self.answers_to_lose = 0

    @property
    def partitions(self) -> int:
        return self._partitions

    def hold(self) -> None:
        """From now on appends wait, as on a log that is slow."""
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    def records(self, stream: str, partition: int | None = None) -> list[Record]:
        """All records of a stream, or of one of its partitions."""
        partitions = range(self._partitions) if partition is None else (partition,)
        return [record for some in partitions for record in self._streams[stream, some]]

    async def append(self, stream: str, partition: int, entries: Sequence[Entry]) -> None:
        """While `away` says why, it fails. Of `answers_to_lose`, the records are taken and the answer is lost."""
        if stream not in STREAMS or not 0 <= partition < self._partitions:
            raise RapportError(f"log: there is no {stream}[{partition}] among {self._partitions} partitions.")
        self.waiting += 1
        try:
            await self._open.wait()
        finally:
            self.waiting -= 1
        if self.away is not None:
            raise Unavailable(self.away)
        for entry in entries:
            if (size := len(entry.key.encode()) + len(entry.value)) > self.largest_record:
                raise RecordTooLarge(f"{stream}[{partition}]: a record of {size:,} bytes.")
        self.take(stream, partition, entries)
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            raise Unavailable(f"{stream}[{partition}]: the answer was lost.")

    def take(self, stream: str, partition: int, entries: Sequence[Entry]) -> None:
        """What an append comes to in the end."""
        self.appends.append((stream, partition, list(entries)))
        lane = self._streams[stream, partition]
        lane.extend(Record(offset, *entry) for offset, entry in enumerate(entries, len(lane)))
        for waiting in self._waiting.pop((stream, partition), ()):
            if not waiting.done():
                waiting.set_result(None)

    def reader(self, stream: str) -> Reader:
        return _MemoryReader(self, stream)

    async def ends(self, stream: str) -> dict[int, int]:
        return {partition: len(self._streams[stream, partition]) for partition in range(self._partitions)}

    def write_broken(self, stream: str, partition: int, key: str, value: bytes) -> None:
        """A record that a stranger wrote, whose key or headers cannot be read."""
        lane = self._streams[stream, partition]
        lane.append(Record(len(lane), key, value, broken="its key is none of Rapport's."))

    async def range_of(self, stream: str, partition: int) -> tuple[int, int]:
        return 0, len(self._streams[stream, partition])

    async def ready(self) -> str | None:
        return self.away

    async def installation(self) -> str | None:
        return self._installation

    async def set_installation(self, identity: str) -> None:
        if self._installation not in (None, identity):
            raise RapportError(f"log: the streams belong to the installation {self._installation}, not to {identity}.")
        self._installation = identity

    async def start(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to let go of."""


class _MemoryReader:
    def __init__(self, log: MemoryLog, stream: str) -> None:
        self._log, self._stream = log, stream
        self._offsets: dict[int, int] = {}

    def assign(self, offsets: Mapping[int, int]) -> None:
        self._offsets = {partition: self._offsets.get(partition, offset) for partition, offset in offsets.items()}

    async def fetch(self, partition: int, limit: int, wait: float) -> Fetched:
        lane = self._log._streams[self._stream, partition]
        if partition not in self._offsets:
            raise RapportError(f"log: {self._stream}[{partition}] is not assigned to this reader.")
        offset = self._offsets[partition]
        if not 0 <= offset <= len(lane):
            raise OffsetOutOfRange(self._stream, partition, offset, 0, len(lane))
        if offset == len(lane):
            arrived = asyncio.get_running_loop().create_future()
            self._log._waiting[self._stream, partition].append(arrived)
            await asyncio.wait([arrived], timeout=wait)
            if offset == len(lane):
                with suppress(ValueError):
                    self._log._waiting[self._stream, partition].remove(arrived)
                return Fetched((), offset, True)
        records = lane[offset : offset + limit]
        self._offsets[partition] = offset + len(records)
        return Fetched(records, offset + len(records), self._offsets[partition] == len(lane))

    def seek(self, partition: int, offset: int) -> None:
        self._offsets[partition] = offset

    async def close(self) -> None:
        self._offsets = {}
