"""What could not be processed: to be listed, read and tried again (`rapport dead-letters`)."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from shared.errors import RapportError
from shared.processing.port import Connection


class Letter(NamedTuple):
    """`offset` is None for what a service refused in words of its own; `retryable` says whether trying again makes
    sense: an event that ingest refused has to be posted anew, corrected."""

    id: int
    service: str
    partition: int
    stream: str
    offset: int | None
    key: str
    body: bytes
    code: str
    message: str
    retryable: bool
    retry_asked: bool
    filed_at: datetime


_COLUMNS = "id, service, partition, stream, record_offset, key, body, code, message, retryable, retry_asked, filed_at"


async def newest(connection: Connection, service: str | None, limit: int) -> list[Letter]:
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM processing.dead_letters WHERE $1::text IS NULL OR service = $1"
        " ORDER BY id DESC LIMIT $2",
        service,
        limit,
    )
    return [Letter(*row) for row in rows]


async def read(connection: Connection, letter: int) -> Letter:
    row = await connection.fetchrow(f"SELECT {_COLUMNS} FROM processing.dead_letters WHERE id = $1", letter)
    if row is None:
        raise RapportError(f"there is no dead letter {letter}. `rapport dead-letters list` shows those there are.")
    return Letter(*row)


async def ask_retry(connection: Connection, letters: list[int]) -> int:
    """Ask the partitions' owners to process these again; they do within about a second. Returns how many were asked.

    Raises RapportError for a letter that does not exist or cannot be tried again; none is asked then."""
    async with connection.transaction():
        for letter in letters:
            found = await read(connection, letter)
            if not found.retryable:
                raise RapportError(
                    f"dead letter {letter} ({found.code}) cannot be tried again: {found.message} "
                    f"Have its source send it anew, corrected."
                )
        done = await connection.execute(
            "UPDATE processing.dead_letters SET retry_asked = true WHERE id = ANY($1::bigint[])", letters
        )
    return int(done.split()[-1])


async def ask_retry_of_all(connection: Connection, service: str | None, code: str | None) -> int:
    """The same for all that can be tried again, of one service or one code or both."""
    done = await connection.execute(
        "UPDATE processing.dead_letters SET retry_asked = true"
        " WHERE retryable AND ($1::text IS NULL OR service = $1) AND ($2::text IS NULL OR code = $2)",
        service,
        code,
    )
    return int(done.split()[-1])


async def counts(connection: Connection) -> dict[str, int]:
    """Dead letters by code."""
    rows = await connection.fetch("SELECT code, count(*) AS n FROM processing.dead_letters GROUP BY code ORDER BY code")
    return {row["code"]: row["n"] for row in rows}
