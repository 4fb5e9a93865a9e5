"""The streams in PostgreSQL: what the embedded default runs on.

A partition is a run of packed rows, each with the offsets of its first and last record. Offsets are given out by a
head row (stream, partition, next) that is locked last before COMMIT, and heads are always locked in sorted order: so
rows become visible in the order of their offsets, and writers never wait for each other in a circle.

Readers of this process are handed its own appends once they are committed, as long as they keep up. What other
processes append is seen by one look for the whole process, at the heads of what it reads: 3 ms after one that found
something, and then ever later, up to 100 ms. It brings what lanes that have read everything wait for. NOTIFY inside
transactions would halve the commit rate.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy.exc import TimeoutError as PoolExhausted

from shared.contracts.streams import STREAMS
from shared.database.clauses import Clause, execute
from shared.database.engine import Database, is_transient
from shared.database.revisions import Migrations
from shared.errors import RapportError, Unavailable
from shared.log.packing import in_portions, pack, size_of, unpack
from shared.log.port import LARGEST_RECORD, Entry, Fetched, OffsetOutOfRange, Record, RecordTooLarge
from shared.log.postgres_retention import drop_passed

MIGRATIONS = Migrations("log", Path(__file__).parent / "migrations")

Key = tuple[str, int]
"""Stream and partition."""

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

Appended = Mapping[Key, tuple[int, Sequence[Entry]]]
"""What a transaction appended, with the offset of the first entry."""

LOOK_EVERY = 0.1
LOOK_AGAIN = 0.003
"""The next look after one that found what another process has appended: more is likely to come. The one after it, if
that finds nothing, takes twice as long to come, and so on."""
LOOK_LATER = 0.02
"""The next look after one that found so much that there is enough to do meanwhile."""
MANY_RECORDS = 100
FRESH = 1.0
"""Seconds without an answer after which a log in trouble counts as unavailable."""
APPEND_DEADLINE = 10.0
READ_DEADLINE = 5.0

# Bytes before compression: of one packed row, of one commit that calls share, of one fetch.
ROW_BYTES = 4 << 20
COMMIT_BYTES = 16 << 20
FETCH_BYTES = 8 << 20
# Rows that one query looks at. A backlog of single-record rows takes a few queries, one of full rows wastes little.
FETCH_ROWS = 500
# What a look brings of a partition. The rest is read when its turn has come.
LOOK_ROWS = 16
LOOK_ROW_BYTES = 64 << 10
HANDED_BYTES = 1 << 20
"""What may wait in memory, in each partition, of what was appended here; the rest is read when its turn has come."""

_APPEND = """
    heads AS MATERIALIZED (
        SELECT stream, partition, h.next, grow.count
          FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS grow(stream, partition, count)
          JOIN log.heads h USING (stream, partition)
         ORDER BY stream, partition
           FOR UPDATE OF h
    ), moved_heads AS (
        UPDATE log.heads h SET next = heads.next + heads.count
          FROM heads
         WHERE h.stream = heads.stream AND h.partition = heads.partition
     RETURNING h.stream, h.partition, heads.next AS start
    ), appended AS (
        INSERT INTO log.rows (stream, partition, first, last, size, body)
        SELECT stream, partition, start + skip, start + skip + count - 1, size, body
          FROM unnest($4::text[], $5::integer[], $6::bigint[], $7::bigint[], $8::integer[], $9::bytea[])
               AS added(stream, partition, skip, count, size, body)
          LEFT JOIN moved_heads USING (stream, partition)  -- without a head there is no `first`, and all of it fails
     RETURNING stream, partition, first
    )
"""

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


class _Call(NamedTuple):
    key: Key
    entries: Sequence[Entry]
    done: asyncio.Future[None]


class PostgresLog:
    """The stream port over one PostgreSQL database. `append_in` joins another service's transaction.

    `append_deadline` is how long an append may take, in seconds, before its outcome counts as unknown.
    """

    def __init__(self, database: Database, partitions: int, *, append_deadline: float = APPEND_DEADLINE) -> None:
        self._append_deadline = append_deadline
        self._database = database
        self._partitions = partitions
        self._calls: deque[_Call] = deque()
        self._committing: asyncio.Task[None] | None = None
        self._heads: dict[Key, _Head] = {}
        self._moves: defaultdict[Key, int] = defaultdict(int)
        self._woken: defaultdict[Key, asyncio.Event] = defaultdict(asyncio.Event)
        self._readers: set[PostgresReader] = set()
        self._looking: asyncio.Task[None] | None = None
        self._trouble: str | None = None

    @property
    def partitions(self) -> int:
        return self._partitions

    async def start(self) -> None:
        """Makes the head rows of a new installation. Raises RapportError where another partition count is installed."""
        try:
            async with asyncio.timeout(READ_DEADLINE), self._database.transaction() as connection:
                await self._install_heads(connection)
        except asyncpg.UndefinedTableError:
            raise RapportError("log: the database has no streams yet. Run `rapport migrate`.") from None
        except Exception as error:
            raise _as_unavailable(error, "the streams cannot be opened") from error

    async def _install_heads(self, connection: Connection) -> None:
        installed = await _partitions_by_stream(connection)
        if not all(stream in installed for stream in STREAMS):
            # Two processes that start at once must not install two counts.
            await connection.execute("LOCK TABLE log.heads IN SHARE ROW EXCLUSIVE MODE")
            installed = await _partitions_by_stream(connection)
        for stream in STREAMS:
            if stream not in installed:
                await connection.execute(
                    "INSERT INTO log.heads (stream, partition) SELECT $1, generate_series(0, $2::integer - 1)",
                    stream,
                    self._partitions,
                )
            elif installed[stream] != self._partitions:
                raise RapportError(
                    f"log: the stream {stream} was installed with {installed[stream]} partitions, and the settings say "
                    f"{self._partitions}. The count is fixed at installation: "
                    f"set RAPPORT_PARTITIONS={installed[stream]}."
                )

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
            self._looking = None
        if self._committing is not None:
            await self._committing

    async def ready(self) -> str | None:
        try:
            async with asyncio.timeout(2), self._database.connect() as connection:
                found = await connection.fetchval("SELECT count(*) FROM log.heads")
        except asyncpg.UndefinedTableError:
            return "log: the database has no streams yet. Run `rapport migrate`."
        except Exception as error:
            return f"log: the database does not answer: {type(error).__name__}: {error}"
        return None if found else "log: it was not started"

    async def installation(self) -> str | None:
        """The id of the installation that these streams belong to; None where none has been set."""
        try:
            async with asyncio.timeout(READ_DEADLINE), self._database.connect() as connection:
                id: str | None = await connection.fetchval("SELECT id FROM log.installation")
        except Exception as error:
            raise _as_unavailable(error, "the installation id cannot be read") from error
        return id

    async def set_installation(self, id: str) -> None:
        """Mark these streams as `id`'s, once and for all. Raises RapportError where they are another's."""
        try:
            async with asyncio.timeout(READ_DEADLINE), self._database.connect() as connection:
                await connection.execute("INSERT INTO log.installation (id) VALUES ($1) ON CONFLICT DO NOTHING", id)
        except Exception as error:
            raise _as_unavailable(error, "the installation id cannot be set") from error
        found = await self.installation()
        if found != id:
            raise RapportError(
                f"log: these streams belong to the installation {found}, not to {id}. Point DATABASE_URL and "
                f"KAFKA_BOOTSTRAP_SERVERS at servers of one installation."
            )

    # Appending

    async def append(self, stream: str, partition: int, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        self._check(stream, partition, entries)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls.append(_Call((stream, partition), entries, done))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_calls(), name="log-commit")
        await done

    def append_in(self, outputs: Mapping[Key, Sequence[Entry]]) -> Clause:
        """Append in the caller's transaction, with its last statement before COMMIT: heads are locked from here on.

        Give the rows that come of it to `appended`, and after the COMMIT call `announce`. Raises RecordTooLarge."""
        for (stream, partition), entries in outputs.items():
            self._check(stream, partition, entries)
        return _append(outputs)

    def announce(self, appended: Appended) -> None:
        """This was committed: hand it to the readers of this process, or wake them."""
        for key, (start, entries) in appended.items():
            moves = self._moves[key] = self._moves[key] + 1
            head = self._heads.get(key)
            if head is not None and head.next == start:
                # Nobody could append between what is known and this. When the log was asked last is as it was.
                self._heads[key] = head._replace(next=start + len(entries))
                for reader in self._readers:
                    reader.hand(key, moves, start, entries)
            self._woken[key].set()

    def _check(self, stream: str, partition: int, entries: Sequence[Entry]) -> None:
        if stream not in STREAMS or not 0 <= partition < self._partitions:
            raise RapportError(f"log: there is no {stream}[{partition}] among {self._partitions} partitions.")
        for entry in entries:
            if len(entry.value) + 4 * len(entry.key) <= LARGEST_RECORD:
                continue  # however its key is encoded
            size = len(entry.key.encode()) + len(entry.value)
            if size > LARGEST_RECORD:
                raise RecordTooLarge(
                    f"{stream}[{partition}]: a record of {size:,} bytes is too large; the log takes {LARGEST_RECORD:,}."
                )

    async def _commit_calls(self) -> None:
        """Commit what was asked for so far in one transaction; calls that arrive meanwhile share the next one."""
        while self._calls:
            calls: list[_Call] = []
            outputs: dict[Key, list[Entry]] = {}
            size = 0
            while self._calls and size < COMMIT_BYTES:
                call = self._calls.popleft()
                if call.done.cancelled():
                    continue
                calls.append(call)
                outputs.setdefault(call.key, []).extend(call.entries)
                size += sum(map(size_of, call.entries))
            if not calls:
                return
            try:
                async with asyncio.timeout(self._append_deadline), self._database.connect() as connection:
                    appended = self.appended(outputs, await execute(connection, [_append(outputs)]))
            except Exception as error:
                for call in calls:
                    if not call.done.done():
                        call.done.set_exception(_as_unavailable(error, "an append failed, or its outcome is unknown"))
            else:
                for call in calls:
                    if not call.done.done():
                        call.done.set_result(None)
                self.announce(appended)

    def appended(self, outputs: Mapping[Key, Sequence[Entry]], rows: Iterable[Any]) -> Appended:
        """What `append_in` has come to."""
        starts: dict[Key, int] = {}
        for stream, partition, first, *_ in rows:
            starts[stream, partition] = min(first, starts.get((stream, partition), first))
        return {key: (starts[key], entries) for key, entries in outputs.items()}

    # Reading

    def reader(self, stream: str) -> PostgresReader:
        reader = PostgresReader(self, stream)
        self._readers.add(reader)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="log-look")
        return reader

    async def ends(self, stream: str) -> dict[int, int]:
        try:
            await self._read_heads()
        except Exception as error:
            raise _as_unavailable(error, f"the ends of {stream} cannot be read") from error
        return {key[1]: head.next for key, head in sorted(self._heads.items()) if key[0] == stream}

    async def range_of(self, stream: str, partition: int) -> tuple[int, int]:
        """The offset of the first record that is kept, and the one after the last."""
        try:
            await self._read_heads()
        except Exception as error:
            raise _as_unavailable(error, f"the range of {stream} cannot be read") from error
        head = self._heads[stream, partition]
        return head.earliest, head.next

    async def _look(self) -> None:
        """One look at all heads now and then, for as long as there are readers."""
        pause = LOOK_EVERY
        while self._readers:
            news = 0
            try:
                news = await self._read_news()
            except Exception as error:
                self._trouble = f"{type(error).__name__}: {error}"
                for woken in self._woken.values():
                    woken.set()
            else:
                self._trouble = None
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
        for reader in self._readers:
            for partition, lane in reader.waiting():
                key = (reader.stream, partition)
                awaiting[key] = _Awaiting(reader, lane, lane.turn, lane.read_to, self._moves[key])
        columns = ([key[0] for key in awaiting], [key[1] for key in awaiting], [one.at for one in awaiting.values()])
        read = {reader.stream for reader in self._readers}
        async with asyncio.timeout(READ_DEADLINE), self._database.connect() as connection:
            rows = await connection.fetch(_NEWS, *columns, LOOK_ROWS, LOOK_ROW_BYTES, read)
        found: dict[Key, list[tuple[int, int, bytes]]] = {}
        news = 0
        for stream, partition, earliest, following, first, last, body in rows:
            key = (stream, partition)
            if key not in found:
                found[key] = []
                known = self._heads.get(key)
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
        known = self._heads.get(key)
        if known is not None and head.asked < known.asked:
            return False
        self._heads[key] = head
        if known is not None and head.next == known.next:
            return False
        self._woken[key].set()
        return True

    async def _read_rows(self, key: Key, offset: int, limit: int) -> tuple[int, list[Record]]:
        """Up to about `limit` records from `offset` on; with the number of announcements that they follow."""
        moves, asked = self._moves[key], monotonic()
        try:
            async with asyncio.timeout(READ_DEADLINE), self._database.connect() as connection:
                rows = await connection.fetch(_FETCH, *key, offset, limit, FETCH_BYTES, FETCH_ROWS)
        except Exception as error:
            raise _as_unavailable(error, f"{key[0]}[{key[1]}] cannot be read") from error
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

    # Keeping

    async def trim(self, stream: str, partition: int, before_offset: int, older_than: timedelta) -> int:
        """Note that every reader has passed `before_offset`; drop whole rows passed `older_than` ago or longer.

        To be called now and then (hourly, say) with the least offset of all readers. A hundred notes at most are kept
        for each `older_than`. Returns how many rows went."""
        try:
            return await drop_passed(self._database, stream, partition, before_offset, older_than)
        except Exception as error:
            raise _as_unavailable(error, f"{stream}[{partition}] cannot be trimmed") from error


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

    def __init__(self, log: PostgresLog, stream: str) -> None:
        self._of = log
        self.stream = stream
        self._lanes: dict[int, _Lane] = {}

    def assign(self, offsets: Mapping[int, int]) -> None:
        self._lanes = {p: self._lanes.get(p) or _Lane(offset) for p, offset in offsets.items()}

    def seek(self, partition: int, offset: int) -> None:
        self._lane(partition).seek(offset)

    async def close(self) -> None:
        self._lanes = {}
        self._of._readers.discard(self)

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
        woken = self._of._woken[key]
        began = monotonic()
        deadline = began + wait
        while self._lanes.get(partition) is lane:
            woken.clear()
            head = self._of._heads.get(key)
            behind = head is None or lane.read_to != head.next or lane.moves != self._of._moves[key]
            if behind and len(lane.ahead) < limit:
                turn, start = lane.turn, lane.read_to
                moves, records = await self._of._read_rows(key, start, limit - len(lane.ahead))
                if lane.turn is not turn or lane.read_to != start:
                    continue  # a seek, or another fetch, has moved on meanwhile
                lane.ahead.extend(records)
                lane.moves = moves
                if records:
                    continue
            if lane.ahead:
                break
            if self._of._trouble is not None and not (head := self._of._heads[key]).fresh:
                raise Unavailable(
                    f"log: {self.stream}[{partition}] has not answered for {monotonic() - head.asked:.1f} s: "
                    f"{self._of._trouble}"
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
        head = self._of._heads[key]
        drained = head.asked >= began and lane.position == head.next and lane.moves == self._of._moves[key]
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


def _append(outputs: Mapping[Key, Sequence[Entry]]) -> Clause:
    keys = sorted(outputs)
    streams, partitions, skips, counts, sizes, bodies = [], [], [], [], [], []
    for key in keys:
        skip = 0
        for portion, size in in_portions(outputs[key], limit=ROW_BYTES):
            streams.append(key[0])
            partitions.append(key[1])
            skips.append(skip)
            counts.append(len(portion))
            sizes.append(size)
            bodies.append(pack(portion))
            skip += len(portion)
    heads = ([stream for stream, _ in keys], [partition for _, partition in keys], [len(outputs[key]) for key in keys])
    return Clause(_APPEND, (*heads, streams, partitions, skips, counts, sizes, bodies), "appended")


async def _partitions_by_stream(connection: Connection) -> dict[str, int]:
    rows = await connection.fetch("SELECT stream, count(*) FROM log.heads GROUP BY stream")
    return {row["stream"]: row["count"] for row in rows}


def _as_unavailable(error: Exception, what: str) -> Exception:
    """`Unavailable` where the same call may succeed later, else the error itself."""
    if isinstance(error, RapportError):
        return error
    if isinstance(error, asyncpg.NotNullViolationError):
        return RapportError(f"log: {what}: a partition has no head row. Restore the log, or start it first.")
    if isinstance(error, PoolExhausted) or is_transient(error):
        return Unavailable(f"log: {what}: {type(error).__name__}: {error}")
    return error
