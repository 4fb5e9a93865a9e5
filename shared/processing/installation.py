"""Which installation this is: its id, its partition count, its secret and the anchor of its clock. One row."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid4

from shared.clock import Clock, ScaledClock, SystemClock
from shared.errors import RapportError
from shared.processing.port import Connection


@dataclass(frozen=True)
class Installation:
    """`generation` is part of every output's origin; it is raised when a database is restored from a backup.

    `secret` signs links. `clock` runs at the speed that was asked for and never goes back over a restart."""

    id: UUID
    generation: int
    secret: bytes
    clock: Clock


async def open_installation(connection: Connection, partitions: int, clock_speed: float | None) -> Installation:
    """Read the installation's row, or make it at the first start. `clock_speed` None leaves its clock as it is.

    Raises RapportError where the partition count differs from the one that it was made with."""
    now = datetime.now(UTC)
    await connection.execute(
        "INSERT INTO processing.installation (id, partitions, secret, clock_speed, clock_real, clock_shown)"
        " VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT DO NOTHING",
        uuid4(),
        partitions,
        secrets.token_bytes(32),
        clock_speed or 1.0,
        now,
    )
    row = await connection.fetchrow("SELECT * FROM processing.installation")
    assert row is not None
    if row["partitions"] != partitions:
        raise RapportError(
            f"this installation has {row['partitions']} partitions, and the settings say {partitions}. The count is "
            f"fixed at installation: set RAPPORT_PARTITIONS={row['partitions']}."
        )
    clock: Clock = ScaledClock(row["clock_speed"], row["clock_real"], row["clock_shown"])
    if clock_speed is not None and row["clock_speed"] != clock_speed:
        # Another speed from here on: the clock goes on from what it shows now.
        shown = clock.now()
        await connection.execute(
            # Of several processes that start at once, the first sets the anchor and the others read it.
            "UPDATE processing.installation SET clock_speed = $1, clock_real = $2, clock_shown = $3"
            " WHERE clock_speed <> $1",
            clock_speed,
            now,
            max(shown, now) if clock_speed == 1 else shown,
        )
        return await open_installation(connection, partitions, clock_speed)
    if row["clock_speed"] == 1 and row["clock_real"] == row["clock_shown"]:
        clock = SystemClock()
    return Installation(row["id"], row["generation"], row["secret"], clock)
