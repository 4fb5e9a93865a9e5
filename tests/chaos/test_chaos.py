"""A short `make chaos`, with a seed: what CI can afford of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka_for_tests import also_on_kafka

from tests.chaos.run import Run, report


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the account that PostgreSQL runs as under root may enter."""
    with tempfile.TemporaryDirectory(prefix="rapport-chaos-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("log", also_on_kafka(["postgres"]))
async def test_nothing_is_lost_and_nothing_happens_twice(folder: Path, log: str) -> None:
    said: list[str] = []
    run = Run(log, 7, seconds=20, count=60, pause=0.5, say=said.append, folder=folder)
    world, verdict = await run.go()
    assert verdict.violations == [], "\n".join([*said, report(world, verdict, 0)])
    assert verdict.counts["events in the state"] > 0
