"""How many events ingest takes, to an acknowledged write, beside a bare application that does no more than it must.

Both are served by the same uvicorn in a process of its own, over the same log: PostgreSQL with fsync, or a Kafka broker
with acks=all. The bare one decodes the body with msgspec, appends the same records, and answers when the log has them;
it asks nobody for a key, checks nothing and bounds nothing. The figures are events per second, and events per second of
the server's own processor time, which is what stays comparable where client, server and log share two cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import resource
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench.measure import Series
from bench.posting import post, request
from deploy.dev.broker import KafkaBroker
from services.ingest.main import build
from services.ingest.settings import IngestSettings
from services.ingest.sources import GivenSources
from services.serving import HttpServer
from shared.clock import Clock, SystemClock
from shared.contracts.streams import DEFAULT_PARTITIONS, EVENTS, partition_of
from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database
from shared.database.migrations import migrate
from shared.log import postgres
from shared.log.kafka import KafkaLog
from shared.log.port import Entry, Log
from shared.memory import collect_seldom
from shared.runtime import Runtime

SECONDS = 1.5
CUSTOMERS = 1000
BATCH = 50
CONNECTIONS = {1: 256, BATCH: 32}
"""By events in a request: so many that the server always has one to work on while others wait for the log."""

SENT_AT = datetime(2025, 3, 1, 12, 31, tzinfo=UTC)


def event(customer: int) -> dict[str, Any]:
    """What segment-analytics-python sends for a product that was put into a cart: 610 bytes."""
    return {
        "type": "track",
        "userId": f"customer-{customer}",
        "anonymousId": None,
        "event": "Product Added",
        "messageId": f"0b6e4c9a-3b6d-4c2e-9d5a-{customer:012x}",
        "timestamp": "2025-03-01T12:30:00.123+00:00",
        "integrations": {},
        "context": {"library": {"name": "analytics-python", "version": "2.4.0"}},
        "properties": {
            "cart_id": f"c-{customer}",
            "product_id": "p-1",
            "sku": "SKU-1",
            "category": "Shoes",
            "name": "Blue running shoe",
            "brand": "Acme",
            "price": 49.95,
            "quantity": 1,
            "currency": "EUR",
            "url": "https://shop.example/products/1",
            "image_url": "https://shop.example/products/1.jpg",
        },
    }


def single_posts() -> list[bytes]:
    return [msgspec.json.encode(event(customer)) for customer in range(CUSTOMERS)]


def batches() -> list[bytes]:
    """Batches of 50 events of 50 customers each."""
    return [
        msgspec.json.encode({"batch": [event(customer) for customer in range(first, first + BATCH)], "sentAt": SENT_AT})
        for first in range(0, CUSTOMERS, BATCH)
    ]


# The limit


class Call(msgspec.Struct, rename="camel"):
    """What the bare application reads: the fields that a record has, all the way down."""

    message_id: str
    user_id: str
    event: str
    timestamp: datetime
    properties: dict[str, Any]
    context: dict[str, Any]


class Batch(msgspec.Struct, rename="camel"):
    batch: list[Call]
    sent_at: datetime


class Taken(msgspec.Struct, tag="event", tag_field="kind"):
    """What it appends: byte for byte the record that ingest makes of these calls."""

    id: str
    source: str
    key: str
    name: str
    user_id: str
    occurred_at: datetime
    received_at: datetime
    properties: dict[str, Any]
    context: dict[str, Any]


_APART = timedelta(microseconds=1)
"""What lies between two events of one request."""


class Bare:
    """The least that answers when the log has the events. What comes within three milliseconds shares the appends."""

    HEADERS = ((b"content-type", b"application/json"), (b"access-control-allow-origin", b"*"))

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self._one = msgspec.json.Decoder(Call).decode
        self._many = msgspec.json.Decoder(Batch).decode
        self._encode = msgspec.json.Encoder().encode
        self._entries: dict[int, list[Entry]] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._writes: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        message = await receive()
        body = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        now = self._clock.now()
        if scope["path"] == "/v1/batch":
            batch = self._many(body)
            calls, behind = batch.batch, now - batch.sent_at
        else:
            calls, behind = [self._one(body)], timedelta()
        for call in calls:
            user = call.user_id
            record = Taken(
                call.message_id,
                "shop",
                user,
                call.event,
                user,
                call.timestamp + behind,
                now,
                call.properties,
                call.context,
            )
            now, behind = now + _APART, behind + _APART
            entry = Entry(user, self._encode(record))
            self._entries.setdefault(partition_of(user, DEFAULT_PARTITIONS), []).append(entry)
        await self._written()
        answer = b'{"success":true,"accepted":%d,"rejected":[]}' % len(calls)
        headers = [*self.HEADERS, (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _written(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            loop.call_later(0.003, self._flush)
        self._waiting.append(done)
        return done

    def _flush(self) -> None:
        write = asyncio.get_running_loop().create_task(self._write(self._entries, self._waiting))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)
        self._entries, self._waiting = {}, []

    async def _write(self, entries: Mapping[int, list[Entry]], waiting: list[asyncio.Future[None]]) -> None:
        await asyncio.gather(*(self._log.append(EVENTS, partition, some) for partition, some in entries.items()))
        for done in waiting:
            if not done.done():
                done.set_result(None)


# Logs


@contextlib.asynccontextmanager
async def server_of(kind: str, folder: Path) -> AsyncIterator[str]:
    """A PostgreSQL server or a Kafka broker over `folder`; its address."""
    if kind == "kafka":
        async with KafkaBroker(folder / "kafka") as broker:
            yield broker.bootstrap
    else:
        async with EmbeddedPostgres(folder / "postgres") as server:
            yield server.url


@contextlib.asynccontextmanager
async def log_at(kind: str, address: str) -> AsyncIterator[Log]:
    """The started log."""
    if kind == "kafka":
        log: Log = KafkaLog(address, DEFAULT_PARTITIONS)
        await log.start()
        yield log
        await log.close()
    else:
        database = Database(address)
        log = postgres.PostgresLog(database, DEFAULT_PARTITIONS)
        await log.start()
        yield log
        await log.close()
        await database.close()


def prepare(kind: str, folder: Path) -> None:
    async def make() -> None:
        async with server_of(kind, folder) as address:
            if kind == "kafka":
                await KafkaLog(address, DEFAULT_PARTITIONS).ensure_streams()
            else:
                database = Database(address)
                await migrate(database, [postgres.MIGRATIONS])
                await database.close()

    asyncio.run(make())


# A round


@contextlib.asynccontextmanager
async def ingest(log: Log, address: str) -> AsyncIterator[Any]:
    """Ingest as it is deployed: with write keys, and with a rate that is never reached."""
    settings = IngestSettings.read(ingest_rate=1e6)
    service = build(Runtime(log, SystemClock()), settings, GivenSources({"shop": ["key"]}, settings.rate))
    await service.start()
    yield service.app
    await service.stop()


@contextlib.asynccontextmanager
async def bare(log: Log, address: str) -> AsyncIterator[Any]:
    yield Bare(log, SystemClock())


App = Callable[[Log, str], contextlib.AbstractAsyncContextManager[Any]]
"""From a started log, and its server's address, to an ASGI application."""


def serve(app: App, kind: str, address: str, pipe: Connection) -> None:
    """The server's process. Over the pipe it tells its port, and its processor time whenever it is asked."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        async with log_at(kind, address) as log, app(log, address) as served, HttpServer("127.0.0.1", 0) as server:
            server.start(served)
            pipe.send(server.port)
            while await loop.run_in_executor(None, pipe.recv) == "time":
                used = resource.getrusage(resource.RUSAGE_SELF)
                pipe.send(used.ru_utime + used.ru_stime)

    collect_seldom()  # as the processes of the services do
    uvloop.run(run())


def measure(app: App, kind: str, folder: Path) -> dict[str, float]:
    """Events per second, single and in batches, by the clock and by the server's processor time."""
    figures: dict[str, float] = {}

    async def run() -> None:
        async with server_of(kind, folder) as address:
            ours, theirs = multiprocessing.Pipe()
            spawned = multiprocessing.get_context("spawn").Process(
                target=serve, args=(app, kind, address, theirs), daemon=True
            )
            spawned.start()
            port = ours.recv()
            for name, path, bodies, events in (
                ("single", "/v1/track", single_posts(), 1),
                ("batches of 50", "/v1/batch", batches(), BATCH),
            ):
                requests = [request(path, body) for body in bodies]
                await post(port, requests, CONNECTIONS[events], 0.7)  # to warm up
                ours.send("time")
                before = ours.recv()
                posted = await post(port, requests, CONNECTIONS[events], SECONDS)
                ours.send("time")
                used = ours.recv() - before
                figures[name] = posted.answers * events / posted.seconds
                figures[f"{name}, of processor time"] = posted.answers * events / used
            ours.send("end")
            spawned.join(20)

    uvloop.run(run())
    return figures


def series(kind: str, name: str) -> Series:
    return Series(
        f"ingest, {name}",
        "events/s",
        run=partial(measure, ingest, kind),
        limit=partial(measure, bare, kind),
        limit_name="bare ASGI",
        ratio_goal=0.8,
        prepare=partial(prepare, kind),
    )


SERIES = (series("postgres", "embedded log"), series("kafka", "Kafka"))
