"""What CI can afford of `make chaos`: a short one, with a seed, on each log; and each named point once."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka_for_tests import also_on_kafka

from deploy.dev.cluster import SERVICES
from tests.chaos.faults import out_of_retention
from tests.chaos.run import Run, judged, report
from tests.chaos.world import World, a_world

pytestmark = pytest.mark.timeout(600)

LOGS = also_on_kafka(["postgres"])


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the account that PostgreSQL runs as under root may enter."""
    with tempfile.TemporaryDirectory(prefix="rapport-chaos-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("log", LOGS)
async def test_nothing_is_lost_and_nothing_happens_twice(folder: Path, log: str) -> None:
    said: list[str] = []
    run = Run(log, 7, seconds=20, count=60, pause=0.5, say=said.append, folder=folder)
    world, verdict = await run.go()
    assert verdict.violations == [], "\n".join([*said, report(world, verdict, 0)])
    assert verdict.counts["events in the state"] > 0


async def test_killed_at_every_point_of_the_transaction_and_of_the_hand_over(folder: Path) -> None:
    async with a_world(folder, LOGS[-1], seed=7) as world:
        world.arming = 0.0
        world.open()
        await asyncio.gather(*(killed_at_each_of(world, service) for service in SERVICES))
        verdict = await judged(world)
    assert verdict.violations == [], "\n".join(verdict.violations)
    points = {f"killed at {point}" for service in SERVICES for point in world.points(service)}
    assert world.faults.keys() == points


@pytest.mark.parametrize("log", LOGS)
async def test_what_was_deleted_halts_and_alarms_and_nothing_else_is_lost(folder: Path, log: str) -> None:
    async with a_world(folder, log, seed=7) as world:
        world.open()
        dice = random.Random(7)

        async def deleted() -> bool:
            return await out_of_retention(world, dice) == 1

        assert await world.comes_true(deleted)
        verdict = await judged(world)
    assert verdict.violations == [], "\n".join(verdict.violations)
    assert verdict.counts["events deleted from the log"] > 0


async def killed_at_each_of(world: World, service: str) -> None:
    for number, point in enumerate(world.points(service)):
        await world.dies_at(world.cluster.of(service)[number % 2], point)
