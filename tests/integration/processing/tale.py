"""A service that does everything the mechanics allow, and what it must say: told once in plain words, without batches.

`told_plainly` is the law: one record after the other, each timer in its turn, what cannot be processed left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from tally import START

from shared.contracts.streams import partition_of
from shared.database.clauses import Clause
from shared.processing.port import Connection, Given, Lane, Outputs, Poison, Timer, Writes

# What a timer of this name does when it fires: set another one so many seconds after the road's time.
CHAINS = {"a": ("b", 0), "b": ("c", -3), "c": ("f", 4), "g": ("d", 0), "h": ("e", -2)}
BAD_TIMERS = {"d": "defect", "e": "save"}
NAMES = "abcdefgh"


class Word(msgspec.Struct, frozen=True, omit_defaults=True):
    """`at` is seconds after START; `sets` maps names of timers to seconds after the road's time (None: removes it).

    One that is `idle` moves the road, and nothing else comes of it."""

    n: int
    at: int = 0
    idle: bool = False
    sets: dict[str, int | None] = {}
    bad: str = ""


def encoded(word: Word) -> bytes:
    return b"gibberish %d" % word.n if word.bad == "unreadable" else msgspec.json.encode(word)


class TaleBatch:
    def __init__(self, row: str, customer: str, count: int, memo: bytes) -> None:
        self.row, self.customer, self.count, self._memo = row, customer, count, memo
        self.spoilt = self.touched = False

    def handle(self, word: Word, out: Outputs) -> None:
        if word.idle:
            return
        self.touched = True
        self._say(f"told {word.n}", out)
        for name, seconds in word.sets.items():
            due = None if seconds is None else out.as_of + timedelta(seconds=seconds)
            out.set_timer("name", name, due)
        self._stumble(word.bad)

    def fire(self, timer: Timer, out: Outputs) -> None:
        self.touched = True
        self._say(f"{timer.subject} at {(timer.due - START).total_seconds():.0f}", out)
        if timer.subject in CHAINS:
            name, seconds = CHAINS[timer.subject]
            out.set_timer("name", name, out.as_of + timedelta(seconds=seconds))
        self._stumble(BAD_TIMERS.get(timer.subject, ""))

    def _say(self, what: str, out: Outputs) -> None:
        self.count += 1
        seconds = (out.as_of - START).total_seconds()
        out.emit("customers", self.customer, f"{self.count}: {what} ({seconds:.0f})".encode())

    def _stumble(self, bad: str) -> None:
        if bad == "poison":
            raise Poison("this cannot be handled.")
        if bad == "defect":
            raise ZeroDivisionError("a defect")
        self.spoilt = self.spoilt or bad == "save"

    def nothing_to_save(self) -> bool:
        return not self.touched

    def memo(self) -> bytes:
        return self._memo

    @property
    def number(self) -> object:
        return "no number" if self.spoilt else self.count


_COUNTED = """
    counted AS (
        INSERT INTO tally.counts SELECT k, n FROM unnest($1::text[], $2::int[]) AS c (k, n)
        ON CONFLICT (key) DO UPDATE SET n = EXCLUDED.n)"""


class Tale:
    """All customers of a partition are one: what is said of it stays there."""

    stream = "events"

    def __init__(self, service: str) -> None:
        self.service = service

    def decode(self, key: str, value: bytes) -> Word:
        return msgspec.json.decode(value, type=Word)

    def as_of(self, message: Word) -> datetime:
        return START + timedelta(seconds=message.at)

    async def load(self, connection: Connection, given: Sequence[Given]) -> list[TaleBatch]:
        return [await self._batch(connection, one) for one in given]

    async def _batch(self, connection: Connection, given: Given) -> TaleBatch:
        row = f"{self.service}/{given.partition}"
        count = await connection.fetchval("SELECT n FROM tally.counts WHERE key = $1", row)
        return TaleBatch(row, CUSTOMERS[given.partition], count or 0, given.memo)

    async def provide(self, connection: Connection, batch: TaleBatch) -> bool:
        return False

    def save(self, batches: Sequence[TaleBatch]) -> Writes:
        rows = [batch.row for batch in batches], [batch.number for batch in batches]
        return Writes([Clause(_COUNTED, rows)])

    def tick(self, as_of: datetime, after: int) -> None:
        return None

    def beside(self) -> None:
        return None

    async def attend(self, lane: Lane) -> None:
        return


class _Plain:
    """Outputs, a timer at a time."""

    def __init__(self, as_of: int, timers: dict[str, int]) -> None:
        self.now, self.timers, self.lines = as_of, dict(timers), list[str]()

    @property
    def as_of(self) -> datetime:
        return START + timedelta(seconds=self.now)

    @property
    def partition(self) -> int:
        return 0

    def emit(self, stream: str, key: str, record: msgspec.Struct | bytes) -> None:
        assert isinstance(record, bytes)
        self.lines.append(record.decode())

    def emit_here(self, stream: str, key: str, record: msgspec.Struct | bytes) -> None:
        raise NotImplementedError

    def emit_everywhere(self, stream: str, record: msgspec.Struct | bytes) -> None:
        raise NotImplementedError

    def set_timer(self, kind: str, subject: str, due: datetime | None) -> None:
        if due is None:
            self.timers.pop(subject, None)
        else:
            self.timers[subject] = round((due - START).total_seconds())

    def dead_letter(self, key: str, body: bytes, code: str, message: str) -> None:
        raise NotImplementedError


def told_plainly(words: Sequence[Word]) -> tuple[list[str], list[str]]:
    """What is said, and what is set aside: the place of a record, or the name of a timer."""
    said: list[str] = []
    aside: list[str] = []
    timers: dict[str, int] = {}
    road = -(10**9)

    def taken(name: str, now: int, act: Any, bad: str) -> None:
        nonlocal timers
        batch, out = TaleBatch("", "", len(said), b""), _Plain(now, timers)
        try:
            act(batch, out)
        except (Poison, ZeroDivisionError):
            batch.spoilt = True
        if batch.spoilt:
            aside.append(name)
        else:
            said.extend(out.lines)
            timers = out.timers

    for place, word in enumerate(words):
        if word.bad == "unreadable":
            aside.append(str(place))
            continue
        reached = max(road, word.at)
        while due := sorted((at, name) for name, at in timers.items() if at <= reached):
            at, name = due[0]
            del timers[name]
            road = max(road, at)
            timer = Timer(START + timedelta(seconds=at), "name", name)
            taken(name, road, lambda batch, out, timer=timer: batch.fire(timer, out), BAD_TIMERS.get(name, ""))
        road = reached
        taken(str(place), road, lambda batch, out, word=word: batch.handle(word, out), word.bad)
    return said, aside


CUSTOMERS = {partition_of(customer, 4): customer for customer in ("ann", "bea", "eve", "max")}
"""Who speaks in each partition."""
