"""How long an event takes at 500 events a second: from the request to what journeys makes of it, and to the mail.

One event a request, a shop's usual mix. A tenth of them are orders whose journey begins with a mail, each of another
customer. The decision counts from when it stands in the database: PostgreSQL is told to keep the moment of each commit.
A mail counts from its final dot. Everything runs on this machine, the client and the mail server too. What comes in the
first seconds is not counted, in which a broker of Kafka is still compiling itself.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import quantiles

import asyncpg
import uvloop

from bench.house import House
from bench.measure import Series
from bench.traffic import Client, Traffic, address, connect
from shared.language import SHIPPED

RATE = 500
SECONDS = 10
WARM_UP_SECONDS = 15
PROBES = 0.1
UNITS = {"µs of": "µs an event"}
CUSTOMERS = 20_000
CONNECTIONS = 64
GOALS = {"decision p50": 10.0, "decision p99": 50.0, "mail p50": 50.0, "mail p99": 200.0}

_JOURNEY = """\
journey: receipt
title: Confirm an order
status: live
trigger: {event: Order Completed, key: event.order_id}
again: never
defaults: {topic: receipts, expires: 1d}
steps:
  - email: receipt
"""
_TOPIC = """\
  receipts:
    title: Receipts
    description: What was ordered.
    kind: transactional
    default: opt_out
"""


def playbook(folder: Path) -> Path:
    """The shipped one, and a journey whose first step is a mail."""
    copy = folder / "playbook"
    shutil.copytree(SHIPPED, copy)
    (copy / "journeys" / "receipt.yaml").write_text(_JOURNEY)
    shutil.copytree(copy / "messages" / "thank-you-first", copy / "messages" / "receipt")
    with open(copy / "topics.yaml", "a") as topics:
        topics.write(_TOPIC)
    return copy


def run(folder: Path, *, apart: bool, kafka: bool) -> Mapping[str, float]:
    return uvloop.run(_measure(folder, apart=apart, kafka=kafka))


async def _measure(folder: Path, *, apart: bool, kafka: bool) -> Mapping[str, float]:
    here = folder / "round"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir(mode=0o755)
    book = playbook(here)
    # Twice, since what PostgreSQL keeps of commits is settled when it starts.
    async with House(here, apart=apart, kafka=kafka, playbook=book) as house:
        connection = await asyncpg.connect(house.url)
        await connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
        await connection.close()
    async with House(here, apart=apart, kafka=kafka, playbook=book) as house:
        traffic = Traffic(CUSTOMERS, 1, "usual")
        clients = [await connect(house.port) for _ in range(CONNECTIONS)]
        await _introduce(house, clients[0], traffic)
        asked, answered, used = await _post(house, clients, traffic)
        await _quiet(house, {address(number) for number in asked})
        for client in clients:
            client.close()
        decided = await _decided(house)
        mailed = {number: house.mails[address(number)] for number in asked if address(number) in house.mails}
    counted = [number for number, at in asked.items() if at - min(asked.values()) > WARM_UP_SECONDS]
    figures: dict[str, float] = {}
    for name, moments in (("answer", answered), ("decision", decided), ("mail", mailed)):
        if lost := [number for number in counted if number not in moments]:
            raise RuntimeError(f"{len(lost)} of {len(counted)} orders have no {name}.")
        cuts = quantiles([(moments[number] - asked[number]) * 1000 for number in counted], n=100)
        figures |= {f"{name} p50": cuts[49], f"{name} p99": cuts[98]}
    return figures | {f"µs of {name}": 1e6 * seconds / (RATE * SECONDS) for name, seconds in used.items()}


async def _introduce(house: House, client: Client, traffic: Traffic) -> None:
    """The customers who will order."""
    for first in range(0, _probes(), 100):
        made = [traffic.event("identify", CUSTOMERS + number, "") for number in range(first, first + 100)]
        assert await client.post("/v1/batch", f'{{"batch":[{",".join(made)}]}}'.encode()) == 200
    async with asyncio.timeout(60):
        connection = await asyncpg.connect(house.url)
        while await connection.fetchval("SELECT count(*) FROM mailer.customers") < _probes():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await connection.close()


def _probes() -> int:
    return int(RATE * (SECONDS + WARM_UP_SECONDS) * PROBES) + 100


async def _post(
    house: House, clients: list[Client], traffic: Traffic
) -> tuple[dict[int, float], dict[int, float], dict[str, float]]:
    """At an even rate, whatever the answers take. When each order was posted, and answered; and the processor time that
    each process took, in seconds, of what counts."""
    chance = random.Random(2)
    asked: dict[int, float] = {}
    answered: dict[int, float] = {}
    free: asyncio.Queue[Client] = asyncio.Queue()
    for client in clients:
        free.put_nowait(client)

    async def post(client: Client, path: str, body: bytes, order: int | None) -> None:
        if order is not None:
            asked[order] = time.time()
        assert await client.post(path, body) == 200
        if order is not None:
            answered[order] = time.time()
        free.put_nowait(client)

    before: dict[str, float] = {}
    begun = time.monotonic()
    async with asyncio.TaskGroup() as posts:
        for number in range(RATE * (SECONDS + WARM_UP_SECONDS)):
            if number == RATE * WARM_UP_SECONDS:
                before = _used(house)
            order = CUSTOMERS + len(asked) if chance.random() < PROBES and len(asked) < _probes() else None
            if order is None:
                name, body = traffic.usual()
            else:
                name, body = "Order Completed", traffic.order(order)
            path = "/v1/identify" if name == "identify" else "/v1/track"
            await asyncio.sleep(max(0.0, begun + number / RATE - time.monotonic()))
            posts.create_task(post(await free.get(), path, body.encode(), order))
            await asyncio.sleep(0)
    return asked, answered, {name: seconds - before[name] for name, seconds in _used(house).items()}


def _used(house: House) -> dict[str, float]:
    return {**house.seconds_used(), "client": time.process_time()}


async def _quiet(house: House, addresses: set[str]) -> None:
    """Until each has its mail, or no more come. Others get mails, too."""
    seen, at = -1, time.monotonic()
    while not addresses <= house.mails.keys() and time.monotonic() - at < 10:
        if house.mailed != seen:
            seen, at = house.mailed, time.monotonic()
        await asyncio.sleep(0.05)


async def _decided(house: House) -> dict[int, float]:
    connection = await asyncpg.connect(house.url)
    rows = await connection.fetch(
        # The shipped journey that they begin as well waits two hours, so its row is as it was first written.
        "SELECT customer, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS at"
        "  FROM journeys.enrollments WHERE journey = 'thank-you'"
    )
    await connection.close()
    return {int(row["customer"].rpartition("-")[2]): row["at"] for row in rows}


SERIES = (
    Series(
        name="latency, everything in one process",
        unit="ms",
        units=UNITS,
        run=lambda folder: run(folder, apart=False, kafka=False),
        goal=GOALS,
        more_is_better=False,
        rounds=2,
    ),
    Series(
        name="latency, each service a process",
        unit="ms",
        units=UNITS,
        run=lambda folder: run(folder, apart=True, kafka=False),
        goal=GOALS,
        more_is_better=False,
        rounds=2,
    ),
    Series(
        name="latency, on Kafka",
        unit="ms",
        units=UNITS,
        run=lambda folder: run(folder, apart=True, kafka=True),
        goal=GOALS,
        more_is_better=False,
        rounds=2,
    ),
)
