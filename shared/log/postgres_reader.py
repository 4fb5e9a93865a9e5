"""Reading the streams in PostgreSQL: the readers of one process, which learn together what has been appended.

They are handed what this process appends once it is committed, as long as they keep up. What other processes append is
seen by one look for all of them, at the heads of what they read: 3 ms after one that found something, and then ever
later, up to 100 ms. It brings what lanes that have read everything wait for. NOTIFY inside transactions would halve the
commit rate.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from itertools import islice
from time import monotonic
from typing import NamedTuple

from shared.database.engine import Database, is_transient
from shared.errors import RapportError, Unavailable, words_of
from shared.log.packing import size_of, unpack
from shared.log.port import Entry, Fetched, OffsetOutOfRange, Record

Key = tuple[str, int]
"""Stream and partition."""

Appended = Mapping[Key, tuple[int, Sequence[Entry]]]
"""What a transaction appended, with the offset of the first entry."""

LOOK_EVERY = 0.1
"""Seconds from one look to the next where nothing comes."""
LOOK_AGAIN = 0.003
"""The next look after one that found what another process has appended: more is likely to come. The one after it, if
that finds nothing, takes twice as long to come, and so on."""
LOOK_LATER = 0.02
"""The next look after one that found so much that there is enough to do meanwhile."""
MANY_RECORDS = 100
FRESH = 1.0
"""Seconds without an answer after which a log in trouble counts as unavailable."""
READ_DEADLINE = 5.0
"""Seconds that one question to the database may take."""

# Bytes of one fetch before compression.
FETCH_BYTES = 8 << 20
# Rows that one query looks at. A backlog of single-record rows takes a few queries, one of full rows wastes little.
FETCH_ROWS = 500
# What a look brings of a partition. The rest is read when its turn has come.
LOOK_ROWS = 16
LOOK_ROW_BYTES = 64 << 10
HANDED_BYTES = 1 << 20
"""What may wait in memory, in each partition, of what was appended here; the rest is read when its turn has come."""

_FETCH = """
    SELECT h.earliest, h.next, found.first, found.last, found.body
      FROM log.heads h
      LEFT JOIN LATERAL (
        SELECT first, last, body
          FROM (SELECT first, last, body,
                       coalesce(sum(last - first + 1) OVER earlier, 0) AS records_before,
                       coalesce(sum(size) OVER earlier, 0) AS bytes_before
                  FROM (SELECT first, last, size, body
                          FROM log.rows
                         WHERE stream = $1 AND partition = $2 AND last >= $3
                         ORDER BY last
                         LIMIT $6) AS near
                WINDOW earlier AS (ORDER BY last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS counted
         WHERE records_before < $4 AND bytes_before < $5
      ) AS found ON true
     WHERE h.stream = $1 AND h.partition = $2
     ORDER BY found.last
"""

_HEADS = "SELECT stream, partition, earliest, next FROM log.heads"

_NEWS = """
    SELECT stream, partition, h.earliest, h.next, found.first, found.last, found.body
      FROM log.heads h
      LEFT JOIN unnest($1::text[], $2::integer[], $3::bigint[]) AS awaited (stream, partition, at)
           USING (stream, partition)
      LEFT JOIN LATERAL (
        SELECT first, last, body
          FROM log.rows r
         WHERE awaited.at < h.next AND r.stream = h.stream AND r.partition = h.partition AND last >= awaited.at
           AND size <= $5
         ORDER BY last
         LIMIT $4
      ) AS found ON true
     WHERE h.stream = ANY($6::text[])
     ORDER BY found.last
"""


class _Head(NamedTuple):
    """What a look at the database said about a partition, and when (monotonic seconds) it was asked."""

    earliest: int
    next: int
    asked: float

    @property
    def fresh(self) -> bool:
        return monotonic() - self.asked <= FRESH


class Readers:
    """All readers of one process, and what they know together of the partitions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open: set[PostgresReader] = set()
        self._looking: asyncio.Task[None] | None = None
        self.heads: dict[Key, _Head] = {}
        self.moves: defaultdict[Key, int] = defaultdict(int)
        """How often an append of this process was announced."""
        self.woken: defaultdict[Key, asyncio.Event] = defaultdict(asyncio.Event)
        self.trouble: str | None = None
        """Why the last look was not answered; None where it was."""

    def open(self, stream: str) -> PostgresReader:
        reader = PostgresReader(self, stream)
        self._open.add(reader)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="log-look")
        return reader

    def closed(self, reader: PostgresReader) -> None:
        self._open.discard(reader)

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
            self._looking = None

    def announce(self, appended: Appended) -> None:
        """This was committed: hand it to the readers of this process, or wake them."""
        for key, (start, entries) in appended.items():
            moves = self.moves[key] = self.moves[key] + 1
            head = self.heads.get(key)
            if head is not None and head.next == start:
                # Nobody could append between what is known and this. When the log was asked last is as it was.
                self.heads[key] = head._replace(next=start + len(entries))
                for reader in self._open:
                    reader.hand(key, moves, start, entries)
            self.woken[key].set()

    async def ends(self, stream: str) -> dict[int, int]:
        try:
            await self._read_heads()
        except Exception as error:
            raise as_unavailable(error, f"the ends of {stream} cannot be read") from error
        return {key[1]: head.next for key, head in sorted(self.heads.items()) if key[0] == stream}

    async def range_of(self, stream: str, partition: int) -> tuple[int, int]:
        """The offset of the first record that is kept, and the one after the last."""
        try:
            await self._read_heads()
        except Exception as error:
            raise as_unavailable(error, f"the range of {stream} cannot be read") from error
        head = self.heads[stream, partition]
        return head.earliest, head.next

    async def _look(self) -> None:
        """One look at all heads now and then, for as long as there are readers."""
        pause = LOOK_EVERY
        while self._open:
            news = 0
            try:
                news = await self._read_news()
            except Exception as error:
                self.trouble = words_of(error)
                for woken in self.woken.values():
                    woken.set()
            else:
                self.trouble = None
            soon = LOOK_AGAIN if news < MANY_RECORDS else LOOK_LATER
            pause = soon if news else min(2 * pause, LOOK_EVERY)
            await asyncio.sleep(pause)

    async def _read_heads(self) -> None:
        asked = monotonic()
        async with asyncio.timeout(READ_DEADLINE), self._database.connect() as connection:
            rows = await connection.fetch(_HEADS)
        for stream, partition, earliest, following in rows:
            self._learn((stream, partition), _Head(earliest, following, asked))

    async def _read_news(self) -> int:
        """The heads, and what others have appended for lanes that have read all that they knew of. Says how many
        records others have appended to what is read here."""
        asked = monotonic()
        awaiting: dict[Key, _Awaiting] = {}
        for reader in self._open:
            for partition, lane in reader.waiting():
                key = (reader.stream, partition)
                awaiting[key] = _Awaiting(reader, lane, lane.turn, lane.read_to, self.moves[key])
        columns = ([key[0] for key in awaiting], [key[1] for key in awaiting], [one.at for one in awaiting.values()])
        read = {reader.stream for reader in self._open}
        async with asyncio.timeout(READ_DEADLINE), self._database.connect() as connection:
            rows = await connection.fetch(_NEWS, *columns, LOOK_ROWS, LOOK_ROW_BYTES, read)
        found: dict[Key, list[tuple[int, int, bytes]]] = {}
        news = 0
        for stream, partition, earliest, following, first, last, body in rows:
            key = (stream, partition)
            if key not in found:
                found[key] = []
                known = self.heads.get(key)
                if self._learn(key, _Head(earliest, following, asked)):
                    news += max(1, following - known.next) if known else 1
            if first is not None:
                found[key].append((first, last, body))
        for key, one in awaiting.items():
            if found.get(key):
                one.reader.bring(key[1], one, found[key])
        return news

    def _learn(self, key: Key, head: _Head) -> bool:
        """Says whether it is news."""
        known = self.heads.get(key)
        if known is not None and head.asked < known.asked:
            return False
        self.heads[key] = head
        if known is not None and head.next == known.next:
            return False
        self.woken[key].set()
        return True

    async def read_rows(self, key: Key, offset: int, limit: int) -> tuple[int, list[Record]]:
        """Up to about `limit` records from `offset` on; with the number of announcements that they follow."""
        moves, asked = self.moves[key], monotonic()
        try:
            async with asyncio.timeout(READ_DEADLINE), self._database.connect() as connection:
                rows = await connection.fetch(_FETCH, *key, offset, limit, FETCH_BYTES, FETCH_ROWS)
        except Exception as error:
            raise as_unavailable(error, f"{key[0]}[{key[1]}] cannot be read") from error
        if not rows:
            raise RapportError(f"log: {key[0]}[{key[1]}] has no head row. Restore the log, or start it first.")
        earliest, end = rows[0]["earliest"], rows[0]["next"]
        self._learn(key, _Head(earliest, end, asked))
        records: list[Record] = []
        expected = offset
        for _, _, first, last, body in rows:
            if first is None:
                break
            found = _records(expected, first, last, body)
            # A row that begins after what was asked for: records in between are gone, and are not skipped in silence.
            if found is None:
                raise OffsetOutOfRange(*key, expected, first, end)
            records += found
            expected = last + 1
        if not earliest <= offset <= end or (not records and offset < end):
            raise OffsetOutOfRange(*key, offset, earliest, end)
        return moves, records


class _Lane:
    """The reading position in one partition, and records that were read and not yet handed out."""

    def __init__(self, offset: int) -> None:
        self.seek(offset)

    def seek(self, offset: int) -> None:
        self.position = offset
        self.ahead: deque[Record] = deque()
        self.handed = 0
        """Bytes of what was put there by appends of this process, since it was empty."""
        self.moves = -1
        self.turn = object()  # a fetch that is under way compares it, to see whether its answer is still wanted

    @property
    def read_to(self) -> int:
        return self.position + len(self.ahead)


class _Awaiting(NamedTuple):
    """A lane that had read everything when a look began, and where it stood: what `_Lane` has of these."""

    reader: PostgresReader
    lane: _Lane
    turn: object
    at: int
    moves: int


class PostgresReader:
    """Reads partitions of one stream. Get it from `PostgresLog.reader`."""

    def __init__(self, readers: Readers, stream: str) -> None:
        self._readers = readers
        self.stream = stream
        self._lanes: dict[int, _Lane] = {}

    def assign(self, offsets: Mapping[int, int]) -> None:
        self._lanes = {p: self._lanes.get(p) or _Lane(offset) for p, offset in offsets.items()}

    def seek(self, partition: int, offset: int) -> None:
        self._lane(partition).seek(offset)

    async def close(self) -> None:
        self._lanes = {}
        self._readers.closed(self)

    def hand(self, key: Key, moves: int, start: int, entries: Sequence[Entry]) -> None:
        """Take what was just committed here, if all before it has been read."""
        lane = self._lanes.get(key[1])
        if key[0] != self.stream or lane is None or lane.read_to != start or lane.moves != moves - 1:
            return
        size = sum(map(size_of, entries))
        if lane.handed + size > HANDED_BYTES:
            return
        lane.handed += size
        lane.moves = moves
        lane.ahead.extend(Record(start + index, *entry) for index, entry in enumerate(entries))

    def waiting(self) -> list[tuple[int, _Lane]]:
        """The lanes that have handed out all that was read."""
        return [(partition, lane) for partition, lane in self._lanes.items() if not lane.ahead]

    def bring(self, partition: int, awaiting: _Awaiting, rows: Sequence[tuple[int, int, bytes]]) -> None:
        """Take what a look has found for a lane, unless it has been moved or has read meanwhile. At what is not as it
        should be it ends: whoever reads on meets it."""
        lane = awaiting.lane
        if self._lanes.get(partition) is not lane or lane.turn is not awaiting.turn or lane.read_to != awaiting.at:
            return
        for first, last, body in rows:
            try:
                found = _records(lane.read_to, first, last, body)
            except RapportError:
                return
            if found is None:
                return
            lane.ahead.extend(found)
            lane.moves = awaiting.moves

    async def fetch(self, partition: int, limit: int, wait: float) -> Fetched:
        key = (self.stream, partition)
        lane = self._lane(partition)
        woken = self._readers.woken[key]
        began = monotonic()
        deadline = began + wait
        while self._lanes.get(partition) is lane:
            woken.clear()
            head = self._readers.heads.get(key)
            behind = head is None or lane.read_to != head.next or lane.moves != self._readers.moves[key]
            if behind and len(lane.ahead) < limit:
                turn, start = lane.turn, lane.read_to
                moves, records = await self._readers.read_rows(key, start, limit - len(lane.ahead))
                if lane.turn is not turn or lane.read_to != start:
                    continue  # a seek, or another fetch, has moved on meanwhile
                lane.ahead.extend(records)
                lane.moves = moves
                if records:
                    continue
            if lane.ahead:
                break
            if self._readers.trouble is not None and not (head := self._readers.heads[key]).fresh:
                raise Unavailable(
                    f"log: {self.stream}[{partition}] has not answered for {monotonic() - head.asked:.1f} s: "
                    f"{self._readers.trouble}"
                )
            if woken.is_set():
                continue
            if (left := deadline - monotonic()) <= 0:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await woken.wait()
        else:
            return Fetched((), lane.position, False)  # let go of meanwhile
        records = list(islice(lane.ahead, limit))
        for _ in records:
            lane.ahead.popleft()
        if not lane.ahead:
            lane.handed = 0
        lane.position += len(records)
        head = self._readers.heads[key]
        drained = head.asked >= began and lane.position == head.next and lane.moves == self._readers.moves[key]
        return Fetched(records, lane.position, drained)

    def _lane(self, partition: int) -> _Lane:
        try:
            return self._lanes[partition]
        except KeyError:
            raise RapportError(f"log: {self.stream}[{partition}] is not assigned to this reader.") from None


def _records(expected: int, first: int, last: int, body: bytes) -> list[Record] | None:
    """The records of a row from offset `expected` on; None where it is not the row that has this one."""
    entries = unpack(body)
    if first > expected or last - first + 1 != len(entries):
        return None
    return [Record(at, *entry) for at, entry in enumerate(entries, first) if at >= expected]


def as_unavailable(error: Exception, what: str) -> Exception:
    """`Unavailable` where the same call may succeed later, else the error itself."""
    if is_transient(error) and not isinstance(error, RapportError):
        return Unavailable(f"log: {what}: {words_of(error)}")
    return error
