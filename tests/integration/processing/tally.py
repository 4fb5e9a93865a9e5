"""A service as small as can be: it counts the records of each key, and says what it was asked to say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from shared.database.clauses import Clause
from shared.database.engine import Database
from shared.processing.port import Connection, Given, Lane, NewerContract, Outputs, Poison, Present, Timer, Writes

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """`at` is seconds after START. `remind` sets a timer so many seconds later; `bad` cannot be handled."""

    key: str
    at: float = 0
    remind: float | None = None
    bad: str = ""


def said(key: str, at: float = 0, **fields: Any) -> bytes:
    return msgspec.json.encode(Said(key, at, **fields))


class TallyBatch:
    def __init__(self, partition: int, counts: dict[str, int], memo: bytes) -> None:
        self.partition, self.counts, self._memo = partition, counts, memo
        self.changed: dict[str, int] = {}
        self.spoilt = False

    def handle(self, message: Said, out: Outputs) -> None:
        if message.bad == "poison":
            raise Poison("this cannot be handled.")
        if message.bad == "defect":
            raise ZeroDivisionError("a defect")
        if message.bad == "newer":
            raise NewerContract("version 99")
        if message.bad == "save":
            self.spoilt = True
        self._count(message.key)
        out.emit("customers", message.key, b"%s %d" % (message.key.encode(), self.counts[message.key]))
        if message.remind is not None:
            out.set_timer("remind", message.key, out.as_of + timedelta(seconds=message.remind))
        if message.bad == "timer":
            out.set_timer("bad", message.key, out.as_of + timedelta(seconds=1))

    def fire(self, timer: Timer, out: Outputs) -> None:
        if timer.kind == "bad":
            raise ZeroDivisionError("a defect in a timer")
        seconds = (out.as_of - START).total_seconds()
        out.emit("customers", timer.subject, b"%s reminded at %d" % (timer.subject.encode(), seconds))

    def _count(self, key: str) -> None:
        self.counts[key] = self.changed[key] = self.counts.get(key, 0) + 1

    def nothing_to_save(self) -> bool:
        return not self.changed and not self.spoilt

    def memo(self) -> bytes:
        return self._memo

    work: Callable[[Connection], Awaitable[object]] | None = None
    """What is written with statements of its own."""

    @property
    def numbers(self) -> list[object]:
        return ["no number"] if self.spoilt else list(self.changed.values())


class Errand:
    """Says something beside the records of each partition that is there. `bad` errands fail afterwards."""

    def __init__(self, *, bad: bool = False) -> None:
        self.bad, self.present, self.ended = bad, list[list[int]](), list[str]()

    async def work(self, connection: Connection, present: Sequence[Present]) -> Sequence[Clause]:
        self.present.append([one.lane.partition for one in present])
        for one in present:
            one.out.emit_here("customers", "", b"errand")
        if self.bad:
            raise ZeroDivisionError("a defect")
        return ()

    def committed(self) -> None:
        self.ended.append("committed")

    def failed(self) -> None:
        self.ended.append("failed")


_COUNTED = """
    counted AS (
        INSERT INTO tally.counts SELECT k, n FROM unnest($1::text[], $2::int[]) AS c (k, n)
        ON CONFLICT (key) DO UPDATE SET n = EXCLUDED.n)"""


class Tally:
    service = "tally"
    stream = "events"

    def __init__(self, *, leads: bool = False) -> None:
        self.leads = leads
        self.batches: list[int] = []
        """How many records each had."""
        self.transactions: list[list[int]] = []
        """The partitions of each."""
        self.errand: Errand | None = None
        """What is to be done beside records."""

    def decode(self, key: str, value: bytes) -> Said:
        return msgspec.json.decode(value, type=Said)

    def as_of(self, message: Said) -> datetime:
        return START + timedelta(seconds=message.at)

    async def load(self, connection: Connection, given: Sequence[Given]) -> list[TallyBatch]:
        self.transactions.append([one.partition for one in given])
        return [await self.batch(connection, one) for one in given]

    async def batch(self, connection: Connection, given: Given) -> TallyBatch:
        keys = [message.key for message in given.messages]
        rows = await connection.fetch("SELECT key, n FROM tally.counts WHERE key = ANY($1)", keys)
        self.batches.append(len(given.messages))
        return TallyBatch(given.partition, {row["key"]: row["n"] for row in rows}, given.memo)

    async def provide(self, connection: Connection, batch: TallyBatch) -> bool:
        return False

    def save(self, batches: Sequence[TallyBatch]) -> Writes:
        keys = [key for batch in batches for key in batch.changed or [""] * batch.spoilt]
        clause = Clause(_COUNTED, [keys, [number for batch in batches for number in batch.numbers]])
        works = [batch.work for batch in batches if batch.work is not None]

        async def work(connection: Connection) -> Sequence[Clause]:
            for one in works:
                await one(connection)
            return ()

        return Writes([clause], work if works else None)

    def tick(self, as_of: datetime, after: int) -> tuple[str, bytes] | None:
        return ("customers", b"tick") if self.leads else None

    def beside(self) -> Errand | None:
        return self.errand

    async def attend(self, lane: Lane) -> None:
        return


async def make_table(database: Database) -> None:
    async with database.connect() as connection:
        await connection.execute("CREATE SCHEMA tally; CREATE TABLE tally.counts (key text PRIMARY KEY, n int)")


async def counts(database: Database) -> dict[str, int]:
    async with database.connect() as connection:
        return {row["key"]: row["n"] for row in await connection.fetch("SELECT key, n FROM tally.counts")}
