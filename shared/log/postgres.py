"""The streams in PostgreSQL: what the embedded default runs on.

A partition is a run of packed rows, each with the offsets of its first and last record. Offsets are given out by a
head row (stream, partition, next) that is locked last before COMMIT, and heads are always locked in sorted order: so
rows become visible in the order of their offsets, and writers never wait for each other in a circle.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from shared.contracts.streams import STREAMS
from shared.database.clauses import Clause, execute
from shared.database.engine import Database
from shared.database.revisions import Migrations
from shared.errors import RapportError, words_of
from shared.log.packing import in_portions, pack, size_of
from shared.log.port import Entry, check_append
from shared.log.postgres_reader import READ_DEADLINE, Appended, Key, PostgresReader, Readers, as_unavailable
from shared.log.postgres_retention import drop_passed

MIGRATIONS = Migrations("log", Path(__file__).parent / "migrations")

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

APPEND_DEADLINE = 10.0

# Bytes before compression: of one packed row, and of one commit that calls share.
ROW_BYTES = 4 << 20
COMMIT_BYTES = 16 << 20

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
        self._readers = Readers(database)

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
            raise as_unavailable(error, "the streams cannot be opened") from error

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
        await self._readers.close()
        if self._committing is not None:
            await self._committing

    async def ready(self) -> str | None:
        try:
            async with asyncio.timeout(2), self._database.connect() as connection:
                found = await connection.fetchval("SELECT count(*) FROM log.heads")
        except asyncpg.UndefinedTableError:
            return "log: the database has no streams yet. Run `rapport migrate`."
        except Exception as error:
            return f"log: the database does not answer: {words_of(error)}"
        return None if found else "log: it was not started"

    async def installation(self) -> str | None:
        """The id of the installation that these streams belong to; None where none has been set."""
        try:
            async with asyncio.timeout(READ_DEADLINE), self._database.connect() as connection:
                id: str | None = await connection.fetchval("SELECT id FROM log.installation")
        except Exception as error:
            raise as_unavailable(error, "the installation id cannot be read") from error
        return id

    async def set_installation(self, id: str) -> None:
        """Mark these streams as `id`'s, once and for all. Raises RapportError where they are another's."""
        try:
            async with asyncio.timeout(READ_DEADLINE), self._database.connect() as connection:
                await connection.execute("INSERT INTO log.installation (id) VALUES ($1) ON CONFLICT DO NOTHING", id)
        except Exception as error:
            raise as_unavailable(error, "the installation id cannot be set") from error
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
        check_append(stream, partition, self._partitions, entries)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls.append(_Call((stream, partition), entries, done))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_calls(), name="log-commit")
        await done

    def append_in(self, outputs: Mapping[Key, Sequence[Entry]]) -> Clause:
        """Append in the caller's transaction, with its last statement before COMMIT: heads are locked from here on.

        Give the rows that come of it to `appended`, and after the COMMIT call `announce`. Raises RecordTooLarge."""
        for (stream, partition), entries in outputs.items():
            check_append(stream, partition, self._partitions, entries)
        return _append(outputs)

    def announce(self, appended: Appended) -> None:
        """This was committed: hand it to the readers of this process, or wake them."""
        self._readers.announce(appended)

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
                        call.done.set_exception(_append_error(error))
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
        return self._readers.open(stream)

    async def ends(self, stream: str) -> dict[int, int]:
        return await self._readers.ends(stream)

    async def range_of(self, stream: str, partition: int) -> tuple[int, int]:
        return await self._readers.range_of(stream, partition)

    # Keeping

    async def trim(self, stream: str, partition: int, before_offset: int, older_than: timedelta) -> int:
        """Note that every reader has passed `before_offset`; drop whole rows passed `older_than` ago or longer.

        To be called now and then (hourly, say) with the least offset of all readers. A hundred notes at most are kept
        for each `older_than`. Returns how many rows went."""
        try:
            return await drop_passed(self._database, stream, partition, before_offset, older_than)
        except Exception as error:
            raise as_unavailable(error, f"{stream}[{partition}] cannot be trimmed") from error


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


def _append_error(error: Exception) -> Exception:
    if isinstance(error, asyncpg.NotNullViolationError):
        return RapportError("log: a partition has no head row. Restore the log, or start it first.")
    return as_unavailable(error, "an append failed, or its outcome is unknown")
