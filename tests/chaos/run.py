"""A run: everything is started, hurt at random from a seed, let come to its end, and judged."""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import again, faults, tables
from tests.chaos.verdict import Verdict, judge
from tests.chaos.world import World, a_world

_EVERY = 15.0
_AT_ONCE = 4


@dataclass
class Run:
    """How long to go on: until the time is over, or until so many faults have been injected."""

    log: str
    seed: int
    seconds: float
    count: int
    pause: float
    """Seconds between the beginnings of two faults, on average."""
    say: Callable[[str], None]
    folder: Path

    async def go(self) -> tuple[World, Verdict]:
        async with a_world(self.folder, self.log, self.seed) as world:
            self.say(f"{self.log}: everything is up (seed {self.seed})")
            world.open()
            try:
                await self._hurt(world)
            except Exception as error:
                # Of the run itself: what has happened so far is judged all the same.
                world.wrong.append("the run: " + "".join(traceback.format_exception(error)[-4:]))
            self.say(f"{self.log}: {world.faults.total()} faults; waiting for the end of what is under way")
            return world, await judged(world, self.say)

    async def _hurt(self, world: World) -> None:
        dice = random.Random(self.seed)
        kinds = faults.possible(world)
        weights = [kind.weight for kind in kinds]
        under_way: dict[asyncio.Task[int], faults.Fault] = {}
        owed: faults.Fault | None = None
        begun = said = time.monotonic()
        while time.monotonic() - begun < self.seconds and world.faults.total() < self.count:
            await asyncio.sleep(dice.expovariate(1 / self.pause))
            world.check()
            self._count(world, under_way)
            kind = dice.choices(kinds, weights)[0]
            if owed is None and kind.server == faults.EVERY_SERVER:
                owed = kind
            if owed is not None:
                # It would never find all servers free, if others went on to begin: they wait until it has begun.
                kind = owed if kind.server or not _in_the_way(owed, under_way.values()) else kind
            if len(under_way) < _AT_ONCE and not _in_the_way(kind, under_way.values()):
                task = asyncio.create_task(_injected(kind, world, random.Random(dice.random())))
                under_way[task] = kind
                owed = None if kind is owed else owed
            if time.monotonic() - said > _EVERY:
                said = time.monotonic()
                answered = world.shop.did["posts answered"]
                self.say(
                    f"{self.log}: {said - begun:.0f} s, {world.faults.total()} faults, {answered} posts answered, "
                    f"{len(world.ledger.arrivals)} mails"
                )
        if under_way:
            await asyncio.wait(under_way)
        self._count(world, under_way)
        world.faults.update({f"the mail server {way}": count for way, count in world.mails.was_rude.items()})
        world.faults.update({f"a receiver {way}": count for way, count in world.receiver.was_rude.items()})

    def _count(self, world: World, under_way: dict[asyncio.Task[int], faults.Fault]) -> None:
        for task in [task for task in under_way if task.done()]:
            kind = under_way.pop(task)
            if (error := task.exception()) is not None:
                world.wrong.append(f"{kind.name}: " + "".join(traceback.format_exception(error)[-4:]))
            elif (count := task.result()) and kind.server not in ("mails", "calls"):
                world.faults[kind.name] += count


async def _injected(kind: faults.Fault, world: World, dice: random.Random) -> int:
    if not kind.hinders:
        return await kind.inject(world, dice)
    with world.hindered():
        return await kind.inject(world, dice)


def _in_the_way(kind: faults.Fault, others: Iterable[faults.Fault]) -> bool:
    """Whether a fault needs to itself what another one has."""
    busy = {other.server for other in others if other.server}
    return bool(kind.server and busy) if faults.EVERY_SERVER in (kind.server, *busy) else kind.server in busy


async def judged(world: World, say: Callable[[str], None] = lambda line: None) -> Verdict:
    """Let everything come to its end, stop the workers in order, and hold the ledger against what is there."""
    left = await world.settle(say)
    connection = await world.connect()
    try:
        facts = await tables.read(connection, left)
        await world.stop_workers(connection)
    finally:
        await connection.close()
    verdict = await asyncio.to_thread(judge, world.ledger, facts)
    verdict.violations += world.wrong
    # What was buried since its owner was killed each time is not replayed as it came.
    if not verdict.counts["dead letters: poison"]:
        say("replaying the journal")
        verdict.violations += await again.differences(world)
        verdict.counts["journals replayed"] += 1
    return verdict


def report(world: World, verdict: Verdict, seconds: float) -> str:
    """As it stands in docs/faults.md."""
    lines = [f"### On {'Kafka' if world.kafka else 'the embedded log'}: {world.faults.total()} faults", ""]
    lines += ["| injected | times |", "|---|---|"]
    lines += [f"| {name} | {count} |" for name, count in sorted(world.faults.items())]
    lines += ["", "| the shop | |", "|---|---|"]
    lines += [f"| {name} | {count} |" for name, count in sorted(world.shop.did.items())]
    lines += ["", "| the people | |", "|---|---|"]
    lines += [f"| {name} | {count} |" for name, count in sorted(world.people.did.items())]
    lines += ["", "| the ledger | |", "|---|---|"]
    lines += [f"| {name} | {count} |" for name, count in sorted(verdict.counts.items())]
    lines += ["", f"{seconds:.0f} seconds. Violations: {len(verdict.violations) or 'none'}."]
    if world.disk is None:
        lines.append("No full disk was tried: this machine lets nobody mount a small one.")
    if world.clock is None:
        lines.append("No clock was set: libfaketime is not installed here.")
    return "\n".join(lines)
