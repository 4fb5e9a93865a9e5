"""What the streams in PostgreSQL keep: whole rows, until every reader passed them so long ago.

`log.passed` has notes of how far all readers had come, and when. Where the newest of the old notes stands, everything
before it was passed that long ago.
"""

from __future__ import annotations

from datetime import timedelta

from shared.database.engine import Database

TRIM_ROWS = 500
"""Rows that one transaction drops."""

_NOTE_PASSED = """
    INSERT INTO log.passed (stream, partition, before)
    SELECT $1, $2, $3
     WHERE NOT EXISTS (
        SELECT FROM log.passed WHERE stream = $1 AND partition = $2 AND noted_at > now() - $4::interval / 100)
"""

_PASSED_BEFORE = """
    DELETE FROM log.passed
     WHERE stream = $1 AND partition = $2 AND noted_at <= now() - $3::interval
 RETURNING before
"""

_KEEP_NOTE = """
    INSERT INTO log.passed (stream, partition, noted_at, before) VALUES ($1, $2, now() - $3::interval, $4)
"""

_DELETE_ROWS = """
    DELETE FROM log.rows
     WHERE stream = $1 AND partition = $2
       AND last IN (SELECT last FROM log.rows
                     WHERE stream = $1 AND partition = $2 AND last < $3 ORDER BY last LIMIT $4)
 RETURNING last
"""


async def drop_passed(
    database: Database, stream: str, partition: int, before_offset: int, older_than: timedelta
) -> int:
    """Note that every reader has passed `before_offset`, and drop the rows that were passed `older_than` ago or longer.
    Returns how many went."""
    async with database.transaction() as connection:
        await connection.execute(_NOTE_PASSED, stream, partition, before_offset, older_than)
        old = await connection.fetch(_PASSED_BEFORE, stream, partition, older_than)
        if not old:
            return 0
        before = max(row["before"] for row in old)
        # The newest of the old notes stays, so that a call that is ended here is made good by the next one.
        await connection.execute(_KEEP_NOTE, stream, partition, older_than, before)
    dropped = 0
    while True:
        async with database.transaction() as connection:
            # Never past where a reader is now: one may have been set back on purpose.
            gone = await connection.fetch(_DELETE_ROWS, stream, partition, min(before, before_offset), TRIM_ROWS)
            if not gone:
                return dropped
            await connection.execute(
                "UPDATE log.heads SET earliest = greatest(earliest, $3) WHERE stream = $1 AND partition = $2",
                stream,
                partition,
                max(row["last"] for row in gone) + 1,
            )
        dropped += len(gone)
