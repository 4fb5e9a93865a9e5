"""What a chaotic run has recorded, replayed in one piece and without a fault, gives the same states and commands."""

from __future__ import annotations

from collections.abc import Collection

import asyncpg

from services import serving
from shared.contracts.streams import EVENTS
from shared.database.engine import Database
from shared.database.migrations import migrate
from shared.log.kafka import KafkaLog
from shared.log.port import Log
from shared.log.postgres import PostgresLog
from shared.processing.installation import open_installation
from shared.processing.playbooks import PlaybookShelf
from tests.chaos.world import PARTITIONS, World
from tests.patience import answered
from tests.simulation import replay

_AGAIN = "again"
_CARRIED_OVER = ("processing.installation", "processing.playbooks")


async def differences(world: World) -> list[str]:
    """A line each, once all workers have ended."""
    recorded_in, replayed_in = Database(world.postgres.url), Database(await _another(world))
    log: Log = KafkaLog(world.broker.bootstrap, PARTITIONS) if world.broker else PostgresLog(recorded_in, PARTITIONS)
    try:
        await answered(log.start, "the log")
        journal = await replay.read_journal(log, world.gone)
        lost = {partition for stream, partition in world.gone if stream == EVENTS}
        recorded = await replay.states(recorded_in)
        shelf = PlaybookShelf()
        async with replayed_in.connect() as connection:
            installation = await open_installation(connection, PARTITIONS, None)
        again = await replay.replay(
            journal, replayed_in, installation, shelf, PARTITIONS, times=replay.times_of(journal)
        )
        replayed = await replay.states(replayed_in)
        recorded = but_for_more_duplicates(recorded, replayed, lost)
        beside = await replay.beside(journal, replayed_in, shelf)
        return [f"replay: {line}" for line in replay.differences(journal, recorded, again, replayed, beside)]
    finally:
        await log.close()
        await recorded_in.close()
        await replayed_in.close()


def but_for_more_duplicates(recorded: replay.States, replayed: replay.States, lost: Collection[int]) -> replay.States:
    """`recorded`, but for what came twice to partitions that went on where an operator said, and comes once in the
    replay: going on there forgets the numbers by which what was appended twice is passed over, so ids tell it, which
    counts; and the journal has it once. That less came twice than in the replay has no such reason."""
    again = {row["partition"]: row["deduplicated"] for row in replayed["counters"]}
    counters = [
        {**row, "deduplicated": min(row["deduplicated"], again.get(row["partition"], 0))}
        if row["partition"] in lost
        else row
        for row in recorded["counters"]
    ]
    return {**recorded, "counters": counters}


async def _another(world: World) -> str:
    """A database beside the first, with the same playbooks and the same installation, and nothing else."""
    server, _, name = world.postgres.url.rpartition("/")
    first = await asyncpg.connect(world.postgres.url)
    try:
        await first.execute(f"CREATE DATABASE {_AGAIN}")
        url = f"{server}/{_AGAIN}" + ("?" + name.partition("?")[2] if "?" in name else "")
        database = Database(url)
        await migrate(database, serving.MIGRATIONS)
        await database.close()
        second = await asyncpg.connect(url)
        for table in _CARRIED_OVER:
            schema, _, bare = table.partition(".")
            rows = await first.fetch(f"SELECT * FROM {table}")
            await second.copy_records_to_table(bare, schema_name=schema, records=[tuple(row) for row in rows])
        await second.close()
    finally:
        await first.close()
    return url
