"""What Rapport asks of a log of streams. `kafka.py` and `postgres.py` provide it; one contract suite holds both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from shared.contracts.streams import STREAMS
from shared.errors import RapportError

LARGEST_RECORD = 1_000_000
"""Bytes of key and value together that every log takes. Kafka's own bound is a little higher, for headers."""


class Origin(NamedTuple):
    """Who wrote a record, and its place in the writer's own sequence for this destination.

    `seq` counts from 1 for each (source service, source partition, generation) and destination stream and partition.
    """

    service: str
    partition: int
    generation: int
    seq: int


class Entry(NamedTuple):
    """A record to be appended. `trace` is a W3C `traceparent`."""

    key: str
    value: bytes
    origin: Origin | None = None
    trace: str | None = None


class Record(NamedTuple):
    """A record as it was read: its offset in its partition, and what was appended.

    `broken` says why its key or its headers cannot be read, where something else than Rapport wrote it."""

    offset: int
    key: str
    value: bytes
    origin: Origin | None = None
    trace: str | None = None
    broken: str | None = None


class Fetched(NamedTuple):
    """Records in order of offset. `drained` says that the log answered, since it was asked, that no more follow.

    A log that does not answer is silent, not drained. `next_offset` is where to read on (a log may have gaps).
    """

    records: Sequence[Record]
    next_offset: int
    drained: bool


class OffsetOutOfRange(RapportError):
    """The log no longer (or not yet) has the offset that was asked for; nothing is skipped in silence."""

    def __init__(self, stream: str, partition: int, offset: int, earliest: int, end: int) -> None:
        super().__init__(
            f"{stream}[{partition}]: offset {offset} is outside the log's range {earliest}..{end}. Restore the log, or "
            f"go on with what there is: rapport partitions seek."
        )
        self.stream, self.partition, self.offset, self.earliest, self.end = stream, partition, offset, earliest, end


class RecordTooLarge(RapportError):
    """An entry exceeds what the log takes; it is not transient."""


def check_append(stream: str, partition: int, partitions: int, entries: Sequence[Entry]) -> None:
    """What every log refuses before it writes any of it. Raises RapportError where there is no such partition among
    `partitions`, RecordTooLarge for an entry beyond `LARGEST_RECORD`."""
    if stream not in STREAMS or not 0 <= partition < partitions:
        raise RapportError(f"log: there is no {stream}[{partition}] among {partitions} partitions.")
    for entry in entries:
        if len(entry.value) + 4 * len(entry.key) <= LARGEST_RECORD:
            continue  # however its key is encoded
        size = len(entry.key.encode()) + len(entry.value)
        if size > LARGEST_RECORD:
            raise RecordTooLarge(
                f"{stream}[{partition}]: a record of {size:,} bytes is too large; the log takes {LARGEST_RECORD:,}."
            )


class Reader(Protocol):
    """Reads the partitions of one stream that its owner holds."""

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Read exactly these partitions from now on, each from its offset (partitions kept go on unchanged)."""
        ...

    async def fetch(self, partition: int, limit: int, wait: float) -> Fetched:
        """Up to `limit` records of an assigned partition; waits up to `wait` seconds for the first one.

        Advances the reading position. Raises OffsetOutOfRange, or Unavailable where the log cannot answer."""
        ...

    def seek(self, partition: int, offset: int) -> None:
        """Read this assigned partition from `offset` next."""
        ...

    async def close(self) -> None: ...


class Log(Protocol):
    """Streams of ordered, durable partitions."""

    @property
    def partitions(self) -> int:
        """How many partitions every stream has; fixed at installation."""
        ...

    async def append(self, stream: str, partition: int, entries: Sequence[Entry]) -> None:
        """Append in order; returns when the log has them durably (acks=all, or COMMIT).

        Concurrent calls may share one round trip. Raises Unavailable where the outcome is failed or unknown (the
        entries may be there), RecordTooLarge where they can never be taken."""
        ...

    def reader(self, stream: str) -> Reader: ...

    async def ends(self, stream: str) -> dict[int, int]:
        """The offset after the last record of each partition."""
        ...

    async def range_of(self, stream: str, partition: int) -> tuple[int, int]:
        """The offset of the first record that is kept, and the one after the last."""
        ...

    async def installation(self) -> str | None:
        """The id of the installation that the streams belong to; None where none has been set."""
        ...

    async def set_installation(self, id: str) -> None:
        """Mark the streams as `id`'s, once and for all. Raises RapportError where they are another's."""
        ...

    async def ready(self) -> str | None:
        """None where the log answers, else what is wrong, in one line."""
        ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...
