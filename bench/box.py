"""Everything on one box over HTTP: a shop's usual traffic, a million known customers, and the mails that come of it.

The client posts batches of 50, as shops' libraries do, and as many as all of it can take: it pauses while more than a
few seconds' worth lies unprocessed between ingest and the mailer, so a rate is that of the whole road. Mails fall due
from the first second at the rate at which 8,000 events a second make new ones. The client, a mail server, PostgreSQL
and all services share the machine's cores.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import uvloop

from bench import known
from bench.house import House
from bench.measure import Series
from bench.traffic import Client, Traffic, connect

CUSTOMERS = 1_000_000
BATCH = 50
CONNECTIONS = 32
WARM_UP_SECONDS = 10
MOST_BEHIND = 24_000
"""Records, over all streams: three seconds' worth."""


def prepare(folder: Path, *, seconds: float) -> None:
    uvloop.run(known.make(folder, CUSTOMERS, pending_seconds=seconds + 60))


def run(folder: Path, *, apart: bool, seconds: float) -> Mapping[str, float]:
    return uvloop.run(_measure(folder, apart=apart, seconds=seconds))


async def _measure(folder: Path, *, apart: bool, seconds: float) -> Mapping[str, float]:
    await known.set_clock(folder)
    async with House(folder, apart=apart) as house:
        load = Load(house, Traffic(CUSTOMERS, 1, f"box-{time.time():.0f}"))
        await load.run(WARM_UP_SECONDS)
        mailed, minutes, used = house.mailed, [], [house.seconds_used()]
        for _ in range(round(seconds / 60)):
            minutes.append(await load.run(60))
            used.append(house.seconds_used())
        await load.end()
    taken = sum(minutes) * 60
    figures = {"": taken / seconds, "mails": (house.mailed - mailed) / seconds}
    if len(minutes) > 1:
        figures["last minute of first"] = minutes[-1] / minutes[0]
        for number, rate in enumerate(minutes, 1):
            spent = _spent(used[number - 1], used[number], rate * 60)
            figures[f"minute {number}"] = rate
            figures[f"minute {number}, µs of postgresql"] = spent.pop("postgresql")
            figures[f"minute {number}, µs of services"] = sum(spent.values())
    return figures | {f"µs of {name}": one for name, one in _spent(used[0], used[-1], taken).items()}


def _spent(before: Mapping[str, float], after: Mapping[str, float], events: float) -> dict[str, float]:
    """Microseconds of processor time an event, by process."""
    return {name: 1e6 * (seconds - before[name]) / events for name, seconds in after.items()}


class Load:
    """Posts for as long as it is told to, and says how many events a second went through."""

    def __init__(self, house: House, traffic: Traffic, most_behind: int = MOST_BEHIND) -> None:
        self._house, self._traffic, self._most_behind = house, traffic, most_behind
        self._go = asyncio.Event()
        self._posting: list[asyncio.Task[None]] = []

    async def run(self, seconds: float) -> float:
        """Events a second that the segmenter has kept, while the others stayed as close behind as they were."""
        if not self._posting:
            clients = [await connect(self._house.port) for _ in range(CONNECTIONS)]
            self._posting = [asyncio.create_task(self._post(client)) for client in clients]
        begun, before = time.monotonic(), await self._kept()
        while (now := time.monotonic()) - begun < seconds:
            behind = sum((await self._house.behind()).values())
            (self._go.clear if behind > self._most_behind else self._go.set)()
            for one in self._posting:
                if one.done():
                    one.result()
            await asyncio.sleep(0.1)
        return (await self._kept() - before) / (now - begun)

    async def end(self) -> None:
        for one in self._posting:
            one.cancel()
        await asyncio.gather(*self._posting, return_exceptions=True)

    async def _post(self, client: Client) -> None:
        try:
            while True:
                await self._go.wait()
                status = await client.post("/v1/batch", self._traffic.batch(BATCH))
                if status != 200:
                    raise RuntimeError(f"ingest answered {status}.")
        finally:
            client.close()

    async def _kept(self) -> int:
        connection = await self._house.database()
        kept: int = await connection.fetchval("SELECT coalesce(sum(processed), 0)::bigint FROM segmenter.counters")
        return kept


def _series(name: str, *, apart: bool, seconds: float) -> Series:
    return Series(
        name=f"box, {name}, {seconds / 60:g} min",
        unit="events/s",
        prepare=partial(prepare, seconds=seconds),
        run=partial(run, apart=apart, seconds=seconds),
        units={"µs of": "µs an event", "mails": "mails/s", "last minute of first": ""},
        goal={"": 8000, "last minute of first": 0.95},
        rounds=1,
        long=True,
        seconds=seconds + 400,
    )


SERIES = (
    _series("each service a process", apart=True, seconds=60),
    _series("each service a process", apart=True, seconds=600),
    _series("in one process", apart=False, seconds=600),
)
