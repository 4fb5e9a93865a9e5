"""What the mechanics ask of a service, and what they give it. See `docs/architecture.md`.

A service is a `Processor`. For each transaction the mechanics call `load` (reads, one statement per table), then for
each partition in it `fire` and `handle` in the order of its road (pure, on copies), then `provide`, and `save` inside
the fenced transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import msgspec

from shared.database.clauses import Clause
from shared.errors import RapportError

if TYPE_CHECKING:
    import asyncio

    from asyncpg import Connection as Connection
else:
    # Commands that decide in memory begin twice as fast without a driver.
    Connection = Any

T = TypeVar("T")


class Timer(NamedTuple):
    """Wakes `subject` when the road has reached `due`. There is one timer for each (kind, subject) of a partition."""

    due: datetime
    kind: str
    subject: str


class Poison(RapportError):
    """A record that can never be processed; it goes to dead letters with this text, and the partition flows on."""


class NewerContract(RapportError):
    """A record of a version that this release does not know; the partition waits for a newer release."""


class Outputs(Protocol):
    """Where a heart's commands go; all of it commits with the batch or not at all."""

    @property
    def as_of(self) -> datetime:
        """The time the road has reached; while a timer fires, the time it was due."""
        ...

    @property
    def partition(self) -> int: ...

    def emit(self, stream: str, key: str, record: msgspec.Struct | bytes) -> None:
        """Append to the customer's partition of `stream`. Bytes stand as they are: they have been encoded before."""
        ...

    def emit_here(self, stream: str, key: str, record: msgspec.Struct | bytes) -> None:
        """Append to this very partition of `stream` (ticks and activations, which belong to no customer)."""
        ...

    def emit_everywhere(self, stream: str, record: msgspec.Struct | bytes) -> None:
        """Append to every partition of `stream` what one owner has to say to all."""
        ...

    def set_timer(self, kind: str, subject: str, due: datetime | None) -> None:
        """Set, move or (None) remove the timer of (kind, subject). One set in the past fires before the next record."""
        ...

    def dead_letter(self, key: str, body: bytes, code: str, message: str) -> None:
        """Keep what cannot be processed, with its reason, and go on."""
        ...


class Given(NamedTuple):
    """What a transaction has of one partition. `memo` is what its last batch left (b"" at first): a few small facts
    such as the playbook in force. The times that `timers` are due, and the messages, are in the order of the road."""

    partition: int
    memo: bytes
    messages: Sequence[Any]
    timers: Sequence[Timer]


class Batch(Protocol):
    """One batch of one partition, between `load` and `save`. Dropping it drops every change."""

    def handle(self, message: Any, out: Outputs) -> None:
        """Take one message. Raising Poison (or anything unexpected) isolates the record."""
        ...

    def fire(self, timer: Timer, out: Outputs) -> None: ...

    def nothing_to_save(self) -> bool:
        """Whether `Processor.save` would write nothing for it, and the memo is what was given: what came concerned
        nobody. Such a batch may share the commit of a later one."""
        ...

    def memo(self) -> bytes:
        """What the partition remembers from here on (see `Given`)."""
        ...


class Writes(NamedTuple):
    """What a fenced transaction writes: `clauses` go in one statement with its fence, and that is all of it where there
    is no `work`. `work` is for what has to be read there first, or changes what the clauses wrote; it gives what is to
    be written with the last statement."""

    clauses: Sequence[Clause] = ()
    work: Callable[[Connection], Awaitable[Sequence[Clause]]] | None = None


class Present(NamedTuple):
    """A partition that takes part in a transaction which several share. `memo` is as its records left it."""

    lane: Lane
    memo: bytes
    out: Outputs


class Beside(Protocol):
    """What a service does beside records in one transaction that partitions share."""

    async def work(self, connection: Connection, present: Sequence[Present]) -> Sequence[Clause]:
        """Inside the fenced transaction, after what came of their records has been written. Gives what is to be written
        with the last statement."""
        ...

    def committed(self) -> None: ...

    def failed(self) -> None:
        """Nothing was written, or the outcome of COMMIT is unknown: look before trying again."""
        ...


class Fenced(RapportError):
    """Another worker owns this partition now (or may): drop everything held for it."""


class Lane(Protocol):
    """One owned partition, for work beside its records."""

    @property
    def partition(self) -> int: ...

    @property
    def as_of(self) -> datetime:
        """The time the road had reached at the last commit."""
        ...

    @property
    def memo(self) -> bytes: ...

    @property
    def leaving(self) -> asyncio.Event:
        """Set when the partition is about to be let go."""
        ...

    @property
    def woken(self) -> asyncio.Event:
        """Set after each commit of this partition's batches, and with `leaving`; clear it before looking for work."""
        ...

    async def transact(self, work: Callable[[Connection, Outputs], Awaitable[T]]) -> T:
        """Run `work` in a fenced transaction of this partition, in turn with its batches; its outputs commit with it.

        Raises Fenced where the partition was lost, and nothing was written. Raises Unavailable where the database is
        away: nothing was written, or the outcome of COMMIT is unknown, so look before trying again."""
        ...

    async def join(self) -> bool:
        """Take part in the next transaction that partitions share, for `Processor.beside` to do its work in it. False
        where it came to nothing: then it is for `transact`, which harms nobody else and says what is wrong."""
        ...


class Processor(Protocol):
    """A service, as the mechanics see it."""

    @property
    def service(self) -> str:
        """Its name in tables, metrics and origins: `segmenter`."""
        ...

    @property
    def stream(self) -> str:
        """The stream that it reads."""
        ...

    def decode(self, key: str, value: bytes) -> Any:
        """The message of a record. Raises Poison, or NewerContract."""
        ...

    def as_of(self, message: Any) -> datetime | None:
        """The time that this message moves the road to; None leaves it. The road never goes back."""
        ...

    async def load(self, connection: Connection, given: Sequence[Given]) -> Sequence[Batch]:
        """Read what the batches need: one for each partition, in their order."""
        ...

    async def provide(self, connection: Connection, batch: Any) -> bool:
        """Fetch, in a transaction of its own, what turned out to be missing while the batch was computed. Where it did,
        the batch is dropped, and all of it loaded and computed anew. False where nothing is missing, or to be had."""
        ...

    def save(self, batches: Sequence[Any]) -> Writes:
        """Every change of these batches: one `unnest` per table, whatever partitions they are of.

        A batch that was loaded with them may be missing."""
        ...

    def tick(self, as_of: datetime, after: int) -> tuple[str, bytes] | None:
        """For the one service that moves time on where its stream is drained: the stream and the value of a tick.

        None in the others, which are told the time by their records. `after` is the offset that input was read up to.
        """
        ...

    def beside(self) -> Beside | None:
        """For each transaction that partitions share: what is done in it beside their records. None where there is
        none."""
        ...

    async def attend(self, lane: Lane) -> None:
        """Work that no record asks for (sending, sweeps), for as long as this process owns the partition.

        Returns soon after `lane.leaving` is set, with nothing left half done. Return at once where there is none."""
        ...
