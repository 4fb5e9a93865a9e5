"""How much memory each process takes: at rest, under load, and with a backlog before it. Proportional set size, in MB:
pages that processes share count in parts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import uvloop

from bench.box import Load
from bench.house import House
from bench.measure import Series
from bench.traffic import Traffic, connect

CUSTOMERS = 100_000
MOST = 200.0
REST_SECONDS = 5
LOAD_SECONDS = 20
WATCHED_SECONDS = 60
"""How long a backlog is watched while it is worked off."""


def run(folder: Path, *, apart: bool) -> Mapping[str, float]:
    return uvloop.run(_measure(folder, apart=apart))


def run_backlog(folder: Path, *, events: int) -> Mapping[str, float]:
    return uvloop.run(_backlog(folder, events))


async def _measure(folder: Path, *, apart: bool) -> Mapping[str, float]:
    async with House(folder, apart=apart) as house:
        await asyncio.sleep(REST_SECONDS)
        figures = {f"{name}, at rest": taken for name, taken in _taken(house).items()}
        load = Load(house, Traffic(CUSTOMERS, 1, "memory"))
        watching = asyncio.create_task(_highest(house, LOAD_SECONDS))
        await load.run(LOAD_SECONDS)
        await load.end()
        return figures | {f"{name}, under load": taken for name, taken in (await watching).items()}


async def _backlog(folder: Path, events: int) -> Mapping[str, float]:
    """Ingest takes what nobody reads yet; then the others begin."""
    async with House(folder, apart=True, services=("ingest",)) as house:
        traffic = Traffic(CUSTOMERS, 1, "backlog")

        async def post() -> None:
            client = await connect(house.port)
            while traffic.made < events:
                assert await client.post("/v1/batch", traffic.batch(500)) == 200
            client.close()

        await asyncio.gather(*(post() for _ in range(8)))
        figures = {"ingest, backlog grows": _taken(house)["ingest"]}
    async with House(folder, apart=True) as house:
        highest = await _highest(house, WATCHED_SECONDS)
        behind = (await house.behind())["events"]
    return figures | {f"{name}, backlog": taken for name, taken in highest.items()} | {"events still behind": behind}


async def _highest(house: House, seconds: float) -> dict[str, float]:
    """The most that each process took within so many seconds."""
    highest: dict[str, float] = {}
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        for name, taken in _taken(house).items():
            highest[name] = max(taken, highest.get(name, 0.0))
        await asyncio.sleep(0.5)
    return highest


def _taken(house: House) -> dict[str, float]:
    return {
        name: process.memory_full_info().pss / 1e6 for name, process in house.processes.items() if name != "postgresql"
    }


SERIES = (
    Series(
        name="memory, each service a process",
        unit="MB",
        run=partial(run, apart=True),
        goal=MOST,
        more_is_better=False,
        rounds=1,
        long=True,
    ),
    Series(
        name="memory, in one process",
        unit="MB",
        run=partial(run, apart=False),
        more_is_better=False,
        rounds=1,
        long=True,
    ),
    Series(
        name="memory, with a backlog of 5 million",
        unit="MB",
        units={"events still behind": "events"},
        run=partial(run_backlog, events=5_000_000),
        goal={f"{name}, backlog": MOST for name in ("ingest", "segmenter", "journeys", "mailer")},
        more_is_better=False,
        rounds=1,
        long=True,
        seconds=1500,
    ),
)
