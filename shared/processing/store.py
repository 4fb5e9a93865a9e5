"""The SQL of the mechanics: ownership, the fence, timers, outbox, dead letters."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from asyncpg import DivisionByZeroError

from shared.database.clauses import Clause, execute
from shared.log.packing import pack, unpack
from shared.log.port import Entry, Record
from shared.processing.port import Connection, Fenced, Timer

Destination = tuple[str, int]
"""A stream and one of its partitions."""

ANYWHERE = "*"
"""Among `in_seqs`: the sources that have not been seen yet may begin at any number."""


@dataclass(slots=True)
class Position:
    """The row of one partition of one service: what its owner holds, and the fence that proves it.

    `in_seqs` maps "service/partition/generation" to the last sequence number taken (and has `ANYWHERE` where a person
    has set the offset); `out_seqs` maps a destination ("stream/partition") to the last one given out. `failures` counts
    the records and timers in a row that failed, `attempts` the owners in a row that died.
    """

    epoch: int
    version: int
    next_offset: int
    as_of: datetime | None
    in_seqs: dict[str, int]
    out_seqs: dict[str, int]
    memo: bytes
    attempts: int
    failures: int


class Held(NamedTuple):
    """Who owns a partition, and whether that worker's heartbeat has expired, or there is none."""

    partition: int
    owner: UUID | None
    expired: bool


class DeadLetter(NamedTuple):
    """What is set aside, and why. `offset` is None for what is no record: a timer, or what a service refused itself."""

    stream: str
    offset: int | None
    key: str
    body: bytes
    trace: str | None
    code: str
    message: str
    retryable: bool


_new = tuple.__new__
_POSITION = "epoch, version, next_offset, as_of, in_seqs, out_seqs, memo, attempts, failures"


def _position(values: dict[str, Any]) -> Position:
    for name in ("in_seqs", "out_seqs"):
        values[name] = msgspec.msgpack.decode(values[name]) if values[name] else {}
    return Position(**values)


async def make_partitions(connection: Connection, service: str, partitions: int) -> None:
    await connection.execute(
        "INSERT INTO processing.partitions (service, partition) SELECT $1, generate_series(0, $2 - 1)"
        " ON CONFLICT DO NOTHING",
        service,
        partitions,
    )


async def beat(connection: Connection, service: str, worker: UUID, host: str, process: str = "") -> None:
    await connection.execute(
        "INSERT INTO processing.workers (service, id, heartbeat, host, process) VALUES ($1, $2, now(), $3, $4)"
        " ON CONFLICT (service, id) DO UPDATE SET heartbeat = now()",
        service,
        worker,
        host,
        process,
    )


async def processes(connection: Connection, service: str) -> dict[UUID, str]:
    """The workers of a service, alive or not, and which process each is."""
    rows = await connection.fetch("SELECT id, process FROM processing.workers WHERE service = $1", service)
    return {row["id"]: row["process"] for row in rows}


async def forget_dead(connection: Connection, service: str, workers: Sequence[UUID]) -> None:
    """Remove workers whose process is known to be gone, so that nobody waits for their heartbeats to expire."""
    await connection.execute(
        "DELETE FROM processing.workers WHERE service = $1 AND id = ANY($2::uuid[])", service, workers
    )


async def live_workers(connection: Connection, service: str, expiry: float) -> list[UUID]:
    """The workers whose heart beat within `expiry` seconds, in an order that all of them see alike."""
    rows = await connection.fetch(
        "SELECT id FROM processing.workers WHERE service = $1 AND heartbeat > now() - make_interval(secs => $2)"
        " ORDER BY id",
        service,
        expiry,
    )
    return [row["id"] for row in rows]


async def forget_worker(connection: Connection, service: str, worker: UUID, expiry: float) -> None:
    """Remove a worker that leaves, and those that have been silent for a long time."""
    await connection.execute(
        "DELETE FROM processing.workers WHERE service = $1"
        " AND (id = $2 OR heartbeat < now() - 60 * make_interval(secs => $3))",
        service,
        worker,
        expiry,
    )


async def forget_every_worker(connection: Connection) -> None:
    """For the one process of an embedded installation: whoever worked here before is gone, however it ended."""
    await connection.execute("DELETE FROM processing.workers")


async def ownership(connection: Connection, service: str, expiry: float) -> list[Held]:
    rows = await connection.fetch(
        "SELECT p.partition, p.owner, w.id IS NULL AS expired FROM processing.partitions p"
        " LEFT JOIN processing.workers w ON w.service = p.service AND w.id = p.owner"
        "  AND w.heartbeat > now() - make_interval(secs => $2)"
        " WHERE p.service = $1 ORDER BY p.partition",
        service,
        expiry,
    )
    return [Held(row["partition"], row["owner"], row["expired"]) for row in rows]


async def claim(
    connection: Connection, service: str, partition: int, worker: UUID, expiry: float
) -> tuple[Position, UUID | None] | None:
    """Take a partition that nobody owns, or whose owner's heartbeat has expired; also says whose it was.

    None where somebody else was quicker, or the owner lives after all."""
    row = await connection.fetchrow(
        f"""WITH held AS (
            SELECT service, partition, owner AS before FROM processing.partitions
             WHERE service = $1 AND partition = $2 FOR UPDATE)
        UPDATE processing.partitions p SET epoch = epoch + 1, version = version + 1, owner = $3
          FROM held WHERE p.service = held.service AND p.partition = held.partition
           AND (p.owner IS NULL OR p.owner = $3 OR NOT EXISTS (
               SELECT FROM processing.workers w WHERE w.service = p.service AND w.id = p.owner
                  AND w.heartbeat > now() - make_interval(secs => $4)))
        RETURNING {_POSITION}, before""",
        service,
        partition,
        worker,
        expiry,
    )
    if row is None:
        return None
    values = dict(row)
    before = values.pop("before")
    return _position(values), before


async def reclaim(connection: Connection, service: str, partition: int, worker: UUID, epoch: int) -> Position | None:
    """After an unknown COMMIT: what truly stands there, under a new epoch that stops any late statement of ours.

    Waits for a transaction of ours that is still under way. None where the partition was lost."""
    row = await connection.fetchrow(
        f"UPDATE processing.partitions SET epoch = epoch + 1, version = version + 1"
        f" WHERE service = $1 AND partition = $2 AND owner = $3 AND epoch = $4 RETURNING {_POSITION}",
        service,
        partition,
        worker,
        epoch,
    )
    return None if row is None else _position(dict(row))


async def release(connection: Connection, service: str, epochs: Mapping[int, int]) -> None:
    """Let go of partitions, each of which is ours under its epoch."""
    await connection.execute(
        "UPDATE processing.partitions p SET owner = NULL, version = version + 1"
        "  FROM unnest($2::smallint[], $3::bigint[]) AS held (partition, epoch)"
        " WHERE p.service = $1 AND p.partition = held.partition AND p.epoch = held.epoch",
        service,
        list(epochs),
        list(epochs.values()),
    )


async def end_blockers(connection: Connection, blocked_pid: int) -> list[int]:
    """End the sessions that `blocked_pid` waits for: those of an owner that was stopped inside a transaction."""
    rows = await connection.fetch(
        "SELECT pid FROM unnest(pg_blocking_pids($1)) AS pid WHERE pg_terminate_backend(pid)", blocked_pid
    )
    return [row["pid"] for row in rows]


async def note_attempt(connection: Connection, service: str, partition: int, epoch: int) -> None:
    await connection.execute(
        "UPDATE processing.partitions SET attempts = attempts + 1 WHERE service = $1 AND partition = $2 AND epoch = $3",
        service,
        partition,
        epoch,
    )


class Fence(NamedTuple):
    """What a fenced transaction writes into the partition's row, and what it must find there."""

    partition: int
    epoch: int
    version: int
    next_offset: int
    as_of: datetime | None
    in_seqs: dict[str, int]
    out_seqs: dict[str, int]
    memo: bytes
    attempts: int
    failures: int


def _fence(service: str, fences: Sequence[Fence]) -> Clause:
    columns = list(zip(*fences, strict=True))
    columns[5] = [msgspec.msgpack.encode(seqs) for seqs in columns[5]]  # type: ignore[call-overload]
    columns[6] = [msgspec.msgpack.encode(seqs) for seqs in columns[6]]  # type: ignore[call-overload]
    return Clause(_FENCE, (service, *columns, len(fences)))


async def fence(
    connection: Connection, service: str, fences: Sequence[Fence], clauses: Sequence[Clause] = ()
) -> list[Any]:
    """The first statement of a fenced transaction, for one partition or several, or all of it: `clauses` are written
    with it. Gives the rows that one of them gives. Raises Fenced where one of the partitions is not ours."""
    try:
        return await execute(connection, [_fence(service, fences), *clauses], first="ours")
    except DivisionByZeroError:
        partitions = [fence.partition for fence in fences]
        raise Fenced(f"{service}{partitions} belongs to another worker now.") from None


# Dividing by zero is the error that undoes all of the statement where a partition is not ours. What is not materialized
# may be computed only with the rows of another clause.
_FENCE = """
    fenced AS (
        UPDATE processing.partitions p
           SET version = p.version + 1, next_offset = f.next_offset, as_of = f.as_of, in_seqs = f.in_seqs,
               out_seqs = f.out_seqs, memo = f.memo, attempts = f.attempts, failures = f.failures
          FROM unnest($2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::timestamptz[],
                      $7::bytea[], $8::bytea[], $9::bytea[], $10::integer[], $11::integer[])
               AS f (partition, epoch, version, next_offset, as_of, in_seqs, out_seqs, memo, attempts, failures)
         WHERE p.service = $1 AND p.partition = f.partition AND p.epoch = f.epoch AND p.version = f.version
     RETURNING 1
    ), ours AS MATERIALIZED (
        SELECT 1 / (count(*) = $12::bigint)::integer AS ours FROM fenced
    )"""


def out_seqs(service: str, by_partition: Mapping[int, dict[str, int]]) -> Clause:
    """What is fenced by an earlier statement has put out more."""
    packed = [msgspec.msgpack.encode(seqs) for seqs in by_partition.values()]
    return Clause(_PUT_ON, (service, list(by_partition), packed))


_PUT_ON = """
    put_on AS (
        UPDATE processing.partitions p SET out_seqs = s.out_seqs
          FROM unnest($2::smallint[], $3::bytea[]) AS s (partition, out_seqs)
         WHERE p.service = $1 AND p.partition = s.partition)"""


async def due_timers(
    connection: Connection, service: str, partition: int, after: datetime | None, until: datetime, limit: int
) -> tuple[list[Timer], datetime]:
    """Timers due at or before `until`, in order, and when the first is due after them (`NEVER` where there is none).

    `after` is a low-water mark below which there are none. Where `limit` is reached, more may be due by `until`."""
    rows = await connection.fetch(
        "(SELECT due, kind, subject FROM processing.timers WHERE service = $1 AND partition = $2 AND due <= $3"
        " AND due >= $4 ORDER BY due, kind, subject LIMIT $5)"
        " UNION ALL (SELECT due, '', NULL FROM processing.timers WHERE service = $1 AND partition = $2 AND due > $3"
        " ORDER BY due LIMIT 1)",
        service,
        partition,
        until,
        after or _BEGINNING,
        limit,
    )
    timers, following = [], NEVER
    for row in rows:
        timer = _new(Timer, row)  # as the class itself would make it, without a call in between
        if timer.subject is None:
            following = timer.due
        else:
            timers.append(timer)
    timers.sort()
    return timers, following


async def partitions_with_due_timers(
    connection: Connection, service: str, marks: Mapping[int, datetime | None], until: datetime
) -> set[int]:
    rows = await connection.fetch(
        "SELECT m.partition FROM unnest($2::smallint[], $3::timestamptz[]) AS m (partition, low)"
        " WHERE EXISTS (SELECT FROM processing.timers t WHERE t.service = $1 AND t.partition = m.partition"
        "  AND t.due <= $4 AND t.due >= m.low)",
        service,
        list(marks),
        [low or _BEGINNING for low in marks.values()],
        until,
    )
    return {row["partition"] for row in rows}


def timers(service: str, changed: Mapping[int, Mapping[tuple[str, str], datetime | None]]) -> list[Clause]:
    """Set, move and (None) remove timers, by partition."""
    gone, kept = [], []
    for partition, timers in changed.items():
        for (kind, subject), due in timers.items():
            if due is None:
                gone.append((partition, kind, subject))
            else:
                kept.append((partition, kind, subject, due))
    clauses = []
    if gone:
        clauses.append(Clause(_REMOVE_TIMERS, (service, *zip(*gone, strict=True))))
    if kept:
        clauses.append(Clause(_SET_TIMERS, (service, *zip(*kept, strict=True))))
    return clauses


_REMOVE_TIMERS = """
    removed_timers AS (
        DELETE FROM processing.timers t
         USING unnest($2::smallint[], $3::text[], $4::text[]) AS g (partition, kind, subject)
         WHERE t.service = $1 AND t.partition = g.partition AND t.kind = g.kind AND t.subject = g.subject)"""
_SET_TIMERS = """
    set_timers AS (
        INSERT INTO processing.timers (service, partition, kind, subject, due)
        SELECT $1, k.* FROM unnest($2::smallint[], $3::text[], $4::text[], $5::timestamptz[]) AS k
        ON CONFLICT (service, partition, kind, subject) DO UPDATE SET due = EXCLUDED.due)"""


def outbox(service: str, outputs: Mapping[int, Mapping[Destination, Sequence[Entry]]]) -> Clause:
    """What each source partition puts out."""
    rows = [
        (partition, stream, destination, entries[0].origin.seq, pack(entries))
        for partition, of_partition in outputs.items()
        for (stream, destination), entries in of_partition.items()
        if entries[0].origin
    ]
    return Clause(_PUT_OUT, (service, *zip(*rows, strict=True)))


_PUT_OUT = """
    put_out AS (
        INSERT INTO processing.outbox (service, partition, stream, destination, first_seq, entries)
        SELECT $1, o.* FROM unnest($2::smallint[], $3::text[], $4::smallint[], $5::bigint[], $6::bytea[]) AS o)"""


async def read_outbox(
    connection: Connection, service: str, partition: int
) -> list[tuple[Destination, int, list[Entry]]]:
    rows = await connection.fetch(
        "SELECT stream, destination, first_seq, entries FROM processing.outbox"
        " WHERE service = $1 AND partition = $2 ORDER BY stream, destination, first_seq",
        service,
        partition,
    )
    return [((row["stream"], row["destination"]), row["first_seq"], unpack(row["entries"])) for row in rows]


async def delete_outbox(connection: Connection, service: str, through: Mapping[tuple[int, Destination], int]) -> None:
    """Delete what is acknowledged, from the front: of each source partition and destination, up to a sequence."""
    rows = [(partition, *destination, seq) for (partition, destination), seq in through.items()]
    await connection.execute(
        "DELETE FROM processing.outbox o"
        " USING unnest($2::smallint[], $3::text[], $4::smallint[], $5::bigint[])"
        "       AS done (partition, stream, destination, through)"
        " WHERE o.service = $1 AND o.partition = done.partition AND o.stream = done.stream"
        "   AND o.destination = done.destination AND o.first_seq <= done.through",
        service,
        *zip(*rows, strict=True),
    )


def dead_letters(service: str, letters: Mapping[int, Collection[DeadLetter]]) -> Clause:
    rows = [(partition, *letter) for partition, of_partition in letters.items() for letter in of_partition]
    return Clause(_SET_ASIDE, (service, *zip(*rows, strict=True)))


_SET_ASIDE = """
    set_aside AS (
        INSERT INTO processing.dead_letters
               (service, partition, stream, record_offset, key, body, trace, code, message, retryable)
        SELECT $1, d.* FROM unnest($2::smallint[], $3::text[], $4::bigint[], $5::text[], $6::bytea[], $7::text[],
                                   $8::text[], $9::text[], $10::boolean[]) AS d)"""


async def letters_to_retry(
    connection: Connection, service: str, partitions: Sequence[int], limit: int
) -> list[tuple[int, int]]:
    """Dead letters whose retry was asked for: id and partition."""
    rows = await connection.fetch(
        "SELECT id, partition FROM processing.dead_letters"
        " WHERE retry_asked AND service = $1 AND partition = ANY($2::smallint[]) ORDER BY id LIMIT $3",
        service,
        partitions,
        limit,
    )
    return [(row["id"], row["partition"]) for row in rows]


async def letter_to_retry(connection: Connection, letter: int) -> Record | None:
    """The record of a dead letter; None where its retry is not asked for any more."""
    row = await connection.fetchrow(
        "SELECT key, body, trace FROM processing.dead_letters WHERE id = $1 AND retry_asked", letter
    )
    return None if row is None else Record(-1, row["key"], row["body"], None, row["trace"])


async def delete_letter(connection: Connection, letter: int) -> None:
    await connection.execute("DELETE FROM processing.dead_letters WHERE id = $1", letter)


async def keep_letter(connection: Connection, letter: int, code: str, message: str) -> None:
    """A retry failed: the letter stays, with the new reason."""
    await connection.execute(
        "UPDATE processing.dead_letters SET retry_asked = false, code = $2, message = $3 WHERE id = $1",
        letter,
        code,
        message,
    )


_BEGINNING = datetime.fromisoformat("0001-01-02T00:00:00+00:00")
NEVER = datetime.fromisoformat("9999-12-30T00:00:00+00:00")
