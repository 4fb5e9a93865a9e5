"""Plays histories one after the other, and tells of those in which a law was broken."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

from services.serving import MIGRATIONS
from shared.contracts.streams import EVENTS, STREAMS
from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database
from shared.database.migrations import migrate
from tests.simulation import laws, mailing, rehearsal, replay
from tests.simulation.database import Server, Sessions, SimulatedDatabase
from tests.simulation.history import History, draw
from tests.simulation.machine import Process, register_tasks, virtual
from tests.simulation.weather import Weather
from tests.simulation.world import SHELF, World, hear

_IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
_CARELESS = {
    **dict.fromkeys(("fsync", "synchronous_commit", "autovacuum", "full_page_writes"), "off"),
    **dict.fromkeys(("track_activities", "track_counts", "update_process_title"), "off"),
    "wal_level": "minimal",
    "max_wal_senders": "0",
}
"""Nothing of it has to last, and nobody watches."""
_COLLECT_EVERY = 25


@dataclass(frozen=True)
class Outcome:
    breaches: list[str]
    story: list[str]
    injected: Counter[str]
    figures: Counter[str]
    fingerprint: int
    """Of everything that was recorded."""


@dataclass
class Tally:
    broken: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    figures: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.broken + other.broken, self.injected + other.injected, self.figures + other.figures)


def play(history: History, server: Server, *, again: bool) -> Outcome:
    server.empty()
    with virtual(history.seed) as loop:
        asyncio.set_event_loop(loop)
        world = World(history, server, loop)
        hear(world)
        found: list[str] = []
        try:
            loop.run_until_complete(world.play())
            found = laws.breaches(world)
        except Exception as error:
            where = "".join(traceback.format_exception(error)[-3:])
            found = [*world.lost, f"the history does not end: {type(error).__name__}: {error}\n{where}"]
        finally:
            loop.run_until_complete(world.end())
    if again and not found:
        found = _replayed(world, server)
    figures = Counter(
        statements=world.sessions.statements,
        seconds=round(loop.passed),
        events=len(world.posted),
        mails=len(world.office.handed),
        calls=world.office.took.total(),
        acts=len(history.acts),
        nights=sum(b'"cut-offs"' in record.value for record in world.broker.records(EVENTS, 0)),
    )
    recorded = [record for stream in STREAMS for record in world.broker.records(stream)]
    fingerprint = zlib.crc32(repr((recorded, world.office.handed)).encode())
    return Outcome(found, world.story, world.weather.injected, figures, fingerprint)


def _replayed(world: World, server: Server) -> list[str]:
    """The journal of this history, in one piece; and lived through in memory."""
    partitions = world.history.partitions
    journal = {
        (stream, partition): replay.taken(world.broker.records(stream, partition))
        for stream in STREAMS
        for partition in range(partitions)
    }
    trail = mailing.noted(world.query(mailing.READ))
    with virtual(world.history.seed) as loop:
        asyncio.set_event_loop(loop)
        register_tasks(loop)
        calm = Weather(random.Random(0), loop, 0.0, world.tell)
        process = Process("replay", loop, lambda process, what: None)
        database = SimulatedDatabase(Sessions(server, loop, calm), process)

        async def compare() -> list[str]:
            async with database.connect() as connection:
                playbooks = {name: await SHELF.get(connection, name) for name, _ in mailing.in_force(journal)}
            found = [f"mailer: {line}" for line in mailing.differences(journal, trail, playbooks, partitions)]
            beside = await replay.beside(journal, database, SHELF)
            if beside.early:
                return found
            recorded = await replay.states(database)
            server.empty()
            async with asyncio.timeout(300):
                again = await replay.replay(journal, database, world.installation, SHELF, partitions)
            replayed = await replay.states(database)
            found += [f"replay: {line}" for line in replay.differences(journal, recorded, again, replayed, beside)]
            lived = await rehearsal.rehearse(journal, recorded, beside, database, SHELF, partitions)
            return found + [f"in memory: {line}" for line in lived]

        try:
            return loop.run_until_complete(process.begin(compare()))
        except Exception as error:
            return [*world.lost, f"the replay does not end: {type(error).__name__}: {error}"]
        finally:
            loop.run_until_complete(process.die())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, help="play this history, and tell all of it")
    parser.add_argument("--histories", type=int, default=200)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with a PostgreSQL of its own")
    parser.add_argument(
        "--replay", action="store_true", help="replay what each has recorded, in one piece and in memory, and compare"
    )
    parser.add_argument("--trace", action="store_true", help="a fingerprint of each story")
    options = parser.parse_args()
    began = time.monotonic()
    if options.seed is not None:
        seeds = [[options.seed]]
    else:
        seeds = [
            list(range(options.first + job, options.first + options.histories, options.jobs))
            for job in range(options.jobs)
        ]
    if len(seeds) == 1:
        told = [_told(seeds[0], options)]
    else:
        with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
            told = list(pool.map(_told, seeds, repeat(options)))
    tally = sum(told, Tally())
    seconds = time.monotonic() - began
    count = sum(map(len, seeds))
    _say(f"\n{count} histories in {seconds:.1f} s ({count / seconds:.1f} a second), {tally.broken} broken")
    _say(", ".join(f"{name} {number:,}" for name, number in tally.figures.items()))
    for kind, number in sorted(tally.injected.items()):
        _say(f"{number:8,} {kind}")
    sys.exit(1 if tally.broken else 0)


def _told(seeds: list[int], options: argparse.Namespace) -> Tally:
    # With its server, which inherits it: they take turns, and waking one another across cores takes longer than that.
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[(seeds[0] if seeds else 0) % len(cores)]})
    return asyncio.run(_with_postgres(seeds, options))


async def _with_postgres(seeds: list[int], options: argparse.Namespace) -> Tally:
    with tempfile.TemporaryDirectory(prefix="rapport-simulation-", dir=_IN_MEMORY) as name:
        sockets = Path(name) / "sockets"
        sockets.mkdir()
        for folder, mode in ((Path(name), 0o755), (sockets, 0o777)):
            folder.chmod(mode)  # under root the server is somebody else
        settings = {**_CARELESS, "unix_socket_directories": str(sockets)}
        async with EmbeddedPostgres(Path(name) / "postgres", settings=settings) as postgres:
            by_socket = postgres.url.replace(f"127.0.0.1:{postgres.port}", "")
            by_socket += f"?host={sockets}&port={postgres.port}"
            database = Database(postgres.url)
            await migrate(database, MIGRATIONS)
            await database.close()
            return await asyncio.to_thread(_play_all, by_socket, seeds, options)


def _play_all(url: str, seeds: list[int], options: argparse.Namespace) -> Tally:
    server = Server(url)
    gc.disable()
    tally = Tally()
    for number, seed in enumerate(seeds):
        outcome = play(draw(seed), server, again=options.replay)
        if number % _COLLECT_EVERY == 0:
            # What is loaded stays; most of what a history leaves behind goes with it, and the rest all at once.
            gc.collect()
            gc.freeze()
        tally.injected += outcome.injected
        tally.figures += outcome.figures
        if options.seed is not None:
            _say("\n".join(outcome.story))
        if options.trace:
            _say(f"{seed}: {outcome.fingerprint:08x}")
        if outcome.breaches:
            tally.broken += 1
            _say(f"\nhistory {seed}: python -m tests.simulation --seed {seed}{' --replay' if options.replay else ''}")
            _say("\n".join(f"  {line}" for line in outcome.breaches[:20]))
    server.close()
    return tally


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
