"""Where each partition of each service stands, and what a person may do to one that is halted (`rapport partitions`).

Whoever owns the partition finds that it is not theirs any more, drops what it holds, and claims it anew.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec

from shared.errors import RapportError
from shared.processing.port import Connection
from shared.processing.store import ANYWHERE


class Standing(NamedTuple):
    """`failures` is how many records and timers in a row could not be processed, `host` where its owner runs."""

    service: str
    partition: int
    offset: int
    as_of: datetime | None
    failures: int
    host: str | None


async def standings(connection: Connection, service: str | None) -> list[Standing]:
    rows = await connection.fetch(
        "SELECT p.service, p.partition, p.next_offset, p.as_of, p.failures, w.host FROM processing.partitions p"
        " LEFT JOIN processing.workers w ON w.service = p.service AND w.id = p.owner"
        " WHERE $1::text IS NULL OR p.service = $1 ORDER BY p.service, p.partition",
        service,
    )
    return [Standing(*row) for row in rows]


async def resume(connection: Connection, service: str, partition: int) -> None:
    """Begin anew where it stands, its failures forgotten: twenty more may be set aside before it halts again.

    Raises RapportError where there is no such partition."""
    await _change(connection, service, partition, "failures = 0")


async def seek(connection: Connection, service: str, partition: int, offset: int) -> None:
    """Go on from another offset. What lies between is skipped, or processed again: nothing knows of it any more.

    Raises RapportError where there is no such partition."""
    anywhere = msgspec.msgpack.encode({ANYWHERE: 0})
    await _change(connection, service, partition, "failures = 0, next_offset = $3, in_seqs = $4", offset, anywhere)


async def _change(connection: Connection, service: str, partition: int, change: str, *values: object) -> None:
    done = await connection.execute(
        f"UPDATE processing.partitions SET owner = NULL, epoch = epoch + 1, version = version + 1, {change}"
        " WHERE service = $1 AND partition = $2",
        service,
        partition,
        *values,
    )
    if done == "UPDATE 0":
        raise RapportError(f"there is no {service}[{partition}]. `rapport partitions list` shows those there are.")
