"""The SQL of the segmenter. Every row is written by its partition's owner, inside its fenced transactions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from operator import itemgetter
from typing import NamedTuple

import msgspec

from services.segmenter.history import Kind, Row
from services.segmenter.profile import Profile
from services.segmenter.rules import Definition
from services.segmenter.spans import Span
from shared.contracts.events import MAILER_SOURCE
from shared.database.clauses import Clause
from shared.database.keys import ALSO_ASKED, ALSO_THEIRS, ASKED, THEIRS, by_partition
from shared.errors import Unavailable
from shared.processing.port import Connection, Writes

_LOCK = 0x7365_676D  # one process at a time makes or drops days and months
_CUSTOMERS_AT_ONCE = 200
_MUCH = 500
"""Events from which on a transaction of several statements costs less than one statement."""

_encode_definition = msgspec.msgpack.Encoder().encode
_decode_definition = msgspec.msgpack.Decoder(Definition).decode

pack_profile = msgspec.msgpack.Encoder().encode
unpack_profile = msgspec.msgpack.Decoder(Profile).decode


class _Head(msgspec.Struct, array_like=True):
    """How a packed profile begins."""

    version: int = 1
    definition: bytes = b""


_unpack_head = msgspec.msgpack.Decoder(_Head).decode


def definition_of(state: bytes) -> bytes:
    """The definition that a packed profile was last brought up to."""
    return _unpack_head(state).definition


class Seen(msgspec.Struct, frozen=True, gc=False):
    content: int
    seen_at: datetime


class Sweep(NamedTuple):
    """How far a partition's profiles have been brought up to `definition`; all up to `after_key` have."""

    definition: bytes
    after_key: str
    swept: int
    finished: bool


# What a batch reads.


NEVER = datetime(9999, 1, 1, tzinfo=UTC)


Place = tuple[int, int]
"""Where a row stands in its table (`ctid`) until somebody changes it, which only its partition's owner does."""


class Known(NamedTuple):
    """By partition: the packed states of customers, where they stand, and the events that were taken, each as it was
    taken last."""

    profiles: dict[int, dict[str, bytes]]
    places: dict[int, dict[str, Place]]
    seen: dict[int, dict[bytes, Seen]]


async def known(
    connection: Connection,
    keys: Collection[tuple[int, str]],
    ids: Collection[tuple[int, bytes]] = (),
    since: datetime = NEVER,
) -> Known:
    """These customers, and which of these events were taken after `since`; each is named with its partition."""
    rows = await connection.fetch(
        "SELECT p.*, NULL::bytea AS id, NULL::bigint AS content, NULL::timestamptz AS seen_at"
        f"  FROM {ASKED}, LATERAL (SELECT partition, key, state, ctid FROM segmenter.profiles"
        f"  WHERE partition = asked.partition AND key = {THEIRS} OFFSET 0) AS p"
        " UNION ALL SELECT s.partition, NULL, NULL, NULL, id, content, seen_at"
        f"  FROM {ALSO_ASKED}, LATERAL (SELECT partition, id, content, seen_at FROM segmenter.seen"
        f"  WHERE partition = asked.partition AND id = {ALSO_THEIRS} AND seen_at > $9 OFFSET 0) AS s",
        *by_partition(keys),
        *by_partition(ids),
        since,
    )
    found = Known({}, {}, {})
    for partition, key, state, place, id, content, seen_at in rows:
        if id is None:
            found.profiles.setdefault(partition, {})[key] = state
            found.places.setdefault(partition, {})[key] = place
        else:
            of_partition = found.seen.setdefault(partition, {})
            if id not in of_partition or of_partition[id].seen_at < seen_at:
                of_partition[id] = Seen(content, seen_at)
    return found


async def definitions(connection: Connection, hashes: Collection[bytes]) -> dict[bytes, Definition]:
    rows = await connection.fetch(
        "SELECT hash, body FROM segmenter.definitions WHERE hash = ANY($1::bytea[])", list(hashes)
    )
    return {row[0]: _decode_definition(row[1]) for row in rows}


async def past(
    connection: Connection, partition: int, customers: Sequence[str], names: Collection[str]
) -> AsyncIterator[tuple[str, list[Row]]]:
    """The events with these names, oldest first, customer by customer; held in memory for a few customers at a time."""
    for start in range(0, len(customers), _CUSTOMERS_AT_ONCE):
        rows = await connection.fetch(
            "SELECT customer, occurred_at, kind, id, source, name, body FROM segmenter.history"
            " WHERE partition = $1 AND customer = ANY($2::text[]) AND name = ANY($3::text[]) AND kind >= $4"
            " ORDER BY customer, occurred_at, kind, id",
            partition,
            customers[start : start + _CUSTOMERS_AT_ONCE],
            list(names),
            int(Kind.EVENT),
        )
        by_customer: dict[str, list[Row]] = {}
        for row in rows:
            by_customer.setdefault(row[0], []).append(Row(*row))
        for customer, of_customer in by_customer.items():
            yield customer, of_customer


# What a batch writes.


class Counts(NamedTuple):
    """How many events were taken, how many dropped as already taken, and up to when."""

    processed: int
    deduplicated: int
    as_of: datetime


class Changes(NamedTuple):
    """What a batch writes: profiles as key, stage and packed state; events taken, as id, content and when; history.
    `places` are those of profiles that were read. `spend` says how many customers more are in which bucket."""

    profiles: Sequence[tuple[str, str, bytes]]
    seen: Sequence[tuple[bytes, int, datetime]]
    history: Sequence[Row]
    counts: Counts | None
    places: Mapping[str, Place] = {}
    spend: Sequence[tuple[int, int]] = ()


def changed(changes: Mapping[int, Changes]) -> Writes:
    """What batches of several partitions write.

    Little goes with the fence, and its transaction is one statement. Much is copied, which takes the driver half the
    time of an argument for each column, and is written where it stands, without a second search."""
    much = sum(len(one.seen) for one in changes.values()) >= _MUCH
    clauses = _clauses({partition: _without_much(one) if much else one for partition, one in changes.items()})
    return Writes(clauses, partial(_write_much, changes) if much else None)


def _without_much(one: Changes) -> Changes:
    new = [profile for profile in one.profiles if profile[0] not in one.places]
    return Changes(new, (), (), one.counts, spend=one.spend)


async def _write_much(changes: Mapping[int, Changes], connection: Connection) -> Sequence[Clause]:
    known = [
        (place, *profile)
        for one in changes.values()
        for profile in one.profiles
        if (place := one.places.get(profile[0])) is not None
    ]
    if known:
        done = await connection.execute(_WRITE_IN_PLACE, *zip(*known, strict=True))
        if done != f"UPDATE {len(known)}":
            # By nothing of ours: a table may be written anew (VACUUM FULL) between reading and writing.
            raise Unavailable(f"segmenter: of {len(known)} profiles not all stand where they were read ({done}).")
    # What is next to each other in an index is written one after the other.
    history = [(partition, *row) for partition, one in changes.items() for row in sorted(one.history, key=_customer)]
    await connection.copy_records_to_table(
        "history", schema_name="segmenter", columns=_HISTORY_COLUMNS, records=history
    )
    seen = sorted((partition, *row) for partition, one in changes.items() for row in one.seen)
    await connection.copy_records_to_table("seen", schema_name="segmenter", columns=_SEEN_COLUMNS, records=seen)
    return ()


_customer = itemgetter(0)
_HISTORY_COLUMNS = ("partition", "customer", "occurred_at", "kind", "id", "source", "name", "body", "changes")
_SEEN_COLUMNS = ("partition", "id", "content", "seen_at")
_WRITE_IN_PLACE = """
    UPDATE segmenter.profiles p SET stage = n.stage, state = n.state
      FROM (SELECT unnest($1::tid[]) AS place, unnest($2::text[]) AS key, unnest($3::text[]) AS stage,
                   unnest($4::bytea[]) AS state) AS n
     WHERE p.ctid = n.place AND p.key = n.key"""


def _clauses(changes: Mapping[int, Changes]) -> list[Clause]:
    parts = list(changes.items())
    columns = [
        *_columns([(partition, one.profiles) for partition, one in parts], 3),
        *_columns([(partition, one.seen) for partition, one in parts], 3),
        *_columns([(partition, one.history) for partition, one in parts], 8),
        *_columns([(partition, [one.counts] if one.counts is not None else []) for partition, one in parts], 3),
    ]
    clauses = [Clause(_CHANGED, columns)] if any(columns) else []
    spend = _columns([(partition, one.spend) for partition, one in parts], 2)
    return [*clauses, Clause(_SPENT, spend)] if any(spend) else clauses


_CHANGED = """
    profiles AS (
        INSERT INTO segmenter.profiles (partition, key, stage, state)
        SELECT * FROM unnest($1::smallint[], $2::text[], $3::text[], $4::bytea[])
        ON CONFLICT (partition, key) DO UPDATE SET stage = EXCLUDED.stage, state = EXCLUDED.state
    ), seen AS (
        INSERT INTO segmenter.seen (partition, id, content, seen_at)
        SELECT * FROM unnest($5::smallint[], $6::bytea[], $7::bigint[], $8::timestamptz[])
    ), history AS (
        INSERT INTO segmenter.history (partition, customer, occurred_at, kind, id, source, name, body, changes)
        SELECT * FROM unnest($9::smallint[], $10::text[], $11::timestamptz[], $12::smallint[], $13::text[],
                             $14::text[], $15::text[], $16::bytea[], $17::bytea[])
    ), counters AS (
        INSERT INTO segmenter.counters AS c (partition, processed, deduplicated, as_of)
        SELECT * FROM unnest($18::smallint[], $19::bigint[], $20::bigint[], $21::timestamptz[])
        ON CONFLICT (partition) DO UPDATE SET processed = c.processed + EXCLUDED.processed,
            deduplicated = c.deduplicated + EXCLUDED.deduplicated, as_of = greatest(c.as_of, EXCLUDED.as_of)
    )"""


# By itself, since few batches have it: most shops ask for no percentiles.
_SPENT = """
    spent AS (
        INSERT INTO segmenter.spend AS s (partition, bucket, customers)
        SELECT * FROM unnest($1::smallint[], $2::integer[], $3::bigint[])
        ON CONFLICT (partition, bucket) DO UPDATE SET customers = s.customers + EXCLUDED.customers
    )"""


def _columns(parts: Iterable[tuple[int, Sequence[tuple[object, ...]]]], count: int) -> list[list[object]]:
    """Rows with so many fields, by partition, as columns; the first is the partition's."""
    columns: list[list[object]] = [[] for _ in range(count + 1)]
    for partition, rows in parts:
        if rows:
            columns[0] += [partition] * len(rows)
            for column, values in zip(columns[1:], zip(*rows, strict=True), strict=True):
                column += values
    return columns


async def save_definition(connection: Connection, definition: Definition) -> None:
    await connection.execute(
        "INSERT INTO segmenter.definitions (hash, body) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        definition.hash,
        _encode_definition(definition),
    )


async def begin_sweep(connection: Connection, partition: int, definition: bytes, since: datetime) -> None:
    await connection.execute(
        "INSERT INTO segmenter.sweeps (partition, definition, since) VALUES ($1, $2, $3)"
        " ON CONFLICT (partition) DO UPDATE SET definition = EXCLUDED.definition, since = EXCLUDED.since,"
        " after_key = '', swept = 0, finished = false",
        partition,
        definition,
        since,
    )


# Sweeping and keeping house.


async def sweep_of(connection: Connection, partition: int) -> Sweep | None:
    row = await connection.fetchrow(
        "SELECT definition, after_key, swept, finished FROM segmenter.sweeps WHERE partition = $1", partition
    )
    return None if row is None else Sweep(*row)


async def profiles_after(connection: Connection, partition: int, key: str, limit: int) -> dict[str, bytes]:
    """The next profiles in the order of their keys."""
    rows = await connection.fetch(
        "SELECT key, state FROM segmenter.profiles WHERE partition = $1 AND key > $2 ORDER BY key LIMIT $3",
        partition,
        key,
        limit,
    )
    return {row[0]: row[1] for row in rows}


async def note_sweep(connection: Connection, partition: int, after_key: str, swept: int, finished: bool) -> None:
    await connection.execute(
        "UPDATE segmenter.sweeps SET after_key = $2, swept = swept + $3, finished = $4 WHERE partition = $1",
        partition,
        after_key,
        swept,
        finished,
    )


async def is_sweeping(connection: Connection, definition: bytes) -> bool:
    """Whether the profiles of some partition are being brought up to something, or are yet to be to this definition."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM segmenter.sweeps WHERE NOT finished OR definition <> $1)", definition
    )
    return found


async def spending(connection: Connection) -> dict[int, int]:
    """How many customers of all partitions have spent about how much, by bucket."""
    rows = await connection.fetch(
        "SELECT bucket, sum(customers)::bigint FROM segmenter.spend GROUP BY bucket HAVING sum(customers) > 0"
    )
    return {row[0]: row[1] for row in rows}


class Progress(NamedTuple):
    """How far a backfill has come in a partition: all customers up to `after_key` have been looked at. `paced_since` is
    since when it goes at its present pace, and `before` how many had been invited then."""

    after_key: str = ""
    looked_at: int = 0
    invited: int = 0
    paced_since: datetime | None = None
    before: int = 0
    finished: bool = False


_PROGRESS = "after_key, looked_at, invited, paced_since, before, finished"


async def backfill_progress(connection: Connection, partition: int, journey: str, occasion: str) -> Progress:
    row = await connection.fetchrow(
        f"SELECT {_PROGRESS} FROM segmenter.backfills WHERE partition = $1 AND journey = $2 AND occasion = $3",
        partition,
        journey,
        occasion,
    )
    return Progress(*row) if row is not None else Progress()


async def note_backfill(
    connection: Connection, partition: int, journey: str, occasion: str, progress: Progress
) -> None:
    await connection.execute(
        f"INSERT INTO segmenter.backfills (partition, journey, occasion, {_PROGRESS})"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (partition, journey, occasion)"
        " DO UPDATE SET after_key = excluded.after_key, looked_at = excluded.looked_at, invited = excluded.invited,"
        " paced_since = excluded.paced_since, before = excluded.before, finished = excluded.finished",
        partition,
        journey,
        occasion,
        *progress,
    )


class BackfillSeen(NamedTuple):
    """A backfill over all partitions; `finished` counts those that are."""

    occasion: str
    looked_at: int
    invited: int
    finished: int


async def last_backfill(connection: Connection, journey: str) -> BackfillSeen | None:
    """The latest backfill of a journey that has looked at somebody."""
    row = await connection.fetchrow(
        "SELECT occasion, sum(looked_at)::bigint, sum(invited)::bigint, count(*) FILTER (WHERE finished)"
        " FROM segmenter.backfills WHERE journey = $1 GROUP BY occasion ORDER BY occasion DESC LIMIT 1",
        journey,
    )
    return BackfillSeen(*row) if row is not None else None


async def make_room(connection: Connection, spans: Iterable[Span]) -> None:
    """Make the days and months that are not there yet; takes over what the default partition holds of them.

    Attaching locks the parent less than creating in place does: others go on writing.
    """
    for table, name, begin, end in sorted(spans):
        column = _COLUMN[table]
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            if await connection.fetchval("SELECT to_regclass($1)", f"segmenter.{name}") is not None:
                continue
            bounds = f"'{begin.isoformat()}', '{end.isoformat()}'".split(", ")
            await connection.execute(f"CREATE TABLE segmenter.{name} (LIKE segmenter.{table} INCLUDING ALL)")
            await connection.execute(f"LOCK TABLE segmenter.{table}_default IN ACCESS EXCLUSIVE MODE")
            await connection.execute(
                f"WITH moved AS (DELETE FROM segmenter.{table}_default"
                f"  WHERE {column} >= {bounds[0]} AND {column} < {bounds[1]} RETURNING *)"
                f" INSERT INTO segmenter.{name} SELECT * FROM moved"
            )
            await connection.execute(
                f"ALTER TABLE segmenter.{table} ATTACH PARTITION segmenter.{name}"
                f" FOR VALUES FROM ({bounds[0]}) TO ({bounds[1]})"
            )


async def slowest_as_of(connection: Connection) -> datetime | None:
    """How far the partition that is furthest behind has come."""
    found: datetime | None = await connection.fetchval("SELECT min(as_of) FROM segmenter.counters")
    return found


async def drop_before(connection: Connection, table: str, cutoff: datetime, chunk: int = 10_000) -> int:
    """Drop the days or months of `table` that end by `cutoff`, and a chunk of what the default partition has from
    before it. Returns how many partitions and rows went; zero when there is nothing left to do.

    Does nothing where others hold the table just now.
    """
    # Here, for commands that have the rows of these tables in memory and need no driver.
    from asyncpg import LockNotAvailableError

    rows = await connection.fetch(
        "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_inherits i"
        " JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass($1) AND c.relname <> $2",
        f"segmenter.{table}",
        f"{table}_default",
    )
    gone = 0
    for name, bound in rows:
        if _end_of(bound) <= cutoff:
            try:
                async with connection.transaction():
                    await connection.execute("SET LOCAL lock_timeout = '500ms'")
                    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                    await connection.execute(f"DROP TABLE IF EXISTS segmenter.{name}")
            except LockNotAvailableError:
                return 0
            gone += 1
    column = _COLUMN[table]
    result = await connection.execute(
        f"DELETE FROM segmenter.{table}_default WHERE ctid = ANY(ARRAY("
        f"SELECT ctid FROM segmenter.{table}_default WHERE {column} < $1 LIMIT $2))",
        cutoff,
        chunk,
    )
    return gone + int(result.split()[-1])


_COLUMN = {"seen": "seen_at", "history": "occurred_at"}


def _end_of(bound: str) -> datetime:
    """`FOR VALUES FROM ('2026-03-01 00:00:00+00') TO ('2026-04-01 00:00:00+00')`"""
    return datetime.fromisoformat(bound.rsplit("'", 2)[1])


# What people and programs ask.


async def profile(connection: Connection, partition: int, key: str) -> Profile | None:
    state = await connection.fetchval(
        "SELECT state FROM segmenter.profiles WHERE partition = $1 AND key = $2", partition, key
    )
    return None if state is None else unpack_profile(state)


async def timeline(
    connection: Connection,
    partition: int,
    customer: str,
    before: tuple[datetime, int, str, str] | None,
    limit: int,
) -> list[Row]:
    """A customer's rows, newest first; `before` is the place (time, kind, id, source) of the last one that is known."""
    condition = ""
    place: tuple[object, ...] = ()
    if before is not None:
        condition, place = " AND occurred_at <= $4 AND (occurred_at, kind, id, source) < ($4, $5, $6, $7)", before
    rows = await connection.fetch(
        "SELECT customer, occurred_at, kind, id, source, name, body, changes FROM segmenter.history"
        f" WHERE partition = $1 AND customer = $2{condition}"
        " ORDER BY occurred_at DESC, kind DESC, id DESC, source DESC LIMIT $3",
        partition,
        customer,
        limit,
        *place,
    )
    return [Row(*row) for row in rows]


async def decisive(connection: Connection, partition: int, customer: str, since: datetime, limit: int) -> list[Row]:
    """A customer's newest rows since then that changed something, let a date come, or tell of a mail."""
    rows = await connection.fetch(
        "SELECT customer, occurred_at, kind, id, source, name, body, changes FROM segmenter.history"
        " WHERE partition = $1 AND customer = $2 AND occurred_at >= $3"
        " AND (changes IS NOT NULL OR kind = $4 OR source = $5)"
        " ORDER BY occurred_at DESC, kind DESC, id DESC, source DESC LIMIT $6",
        partition,
        customer,
        since,
        int(Kind.DATE),
        MAILER_SOURCE,
        limit,
    )
    return [Row(*row) for row in rows]


async def latest_of_name(
    connection: Connection, partition: int, customer: str, name: str, since: datetime, limit: int
) -> list[Row]:
    """A customer's newest events of this name since then."""
    rows = await connection.fetch(
        "SELECT customer, occurred_at, kind, id, source, name, body, changes FROM segmenter.history"
        " WHERE partition = $1 AND customer = $2 AND occurred_at >= $3 AND name = $4 AND kind >= $5"
        " ORDER BY occurred_at DESC, kind DESC, id DESC, source DESC LIMIT $6",
        partition,
        customer,
        since,
        name,
        int(Kind.EVENT),
        limit,
    )
    return [Row(*row) for row in rows]


async def customers_by_stage(connection: Connection) -> dict[str, int]:
    rows = await connection.fetch("SELECT stage, count(*) FROM segmenter.profiles GROUP BY stage")
    return {row[0]: row[1] for row in rows}


class Counted(NamedTuple):
    """Events taken into history, and events dropped as already taken."""

    processed: int
    deduplicated: int


async def events_counted(connection: Connection) -> Counted:
    row = await connection.fetchrow(
        "SELECT coalesce(sum(processed), 0)::bigint, coalesce(sum(deduplicated), 0)::bigint FROM segmenter.counters"
    )
    assert row is not None
    return Counted(*row)


async def every_event(connection: Connection, since: datetime) -> AsyncIterator[Row]:
    """All events that happened from then on, as they happened; read through a cursor, a piece at a time."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        cursor = connection.cursor(
            "SELECT customer, occurred_at, kind, id, source, name, body FROM segmenter.history"
            " WHERE kind = $1 AND occurred_at >= $2 ORDER BY occurred_at, partition, id",
            int(Kind.EVENT),
            since,
            prefetch=1_000,
        )
        async for row in cursor:
            yield Row(*row)


async def not_in_history(connection: Connection, event_ids: Collection[str]) -> list[str]:
    """Which of these event ids (of any source) no customer's history has, sorted. Reads all of it: for audits."""
    rows = await connection.fetch(
        "SELECT DISTINCT id FROM segmenter.history WHERE kind = $1 AND id = ANY($2::text[])",
        int(Kind.EVENT),
        list(event_ids),
    )
    return sorted(set(event_ids) - {row[0] for row in rows})
