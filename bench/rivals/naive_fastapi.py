"""What one writes first: FastAPI, pydantic models, and aiokafka's `send`; posted to like ingest, on the same broker.

Each in the best way that its own documentation shows. FastAPI on uvicorn with uvloop and httptools, models as
parameters and results, so that pydantic's core reads and writes the JSON (https://fastapi.tiangolo.com/tutorial/body/);
one producer for the life of the application, `send` for every event of a request before the first is waited for
(https://aiokafka.readthedocs.io/en/stable/producer.html), with idempotence, acks=all and lz4 as ingest has them, and
a linger as long as ingest's. It answers the same when the broker has the same records. It is spared what ingest does
beside: no write key, no rate, no bounds, and no event is ever refused alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

from aiokafka import AIOKafkaProducer
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from bench import ingest
from bench.measure import Series
from shared.clock import Clock, SystemClock
from shared.log.kafka import KafkaLog
from shared.log.port import Log


class Posted(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class Call(Posted):
    type: Literal["track"]
    message_id: str
    user_id: str
    anonymous_id: str | None = None
    event: str
    timestamp: datetime
    properties: dict[str, Any] = {}
    context: dict[str, Any] = {}
    integrations: dict[str, Any] = {}


class Batch(Posted):
    batch: list[Call]
    sent_at: datetime


class Event(BaseModel):
    kind: Literal["event"] = "event"
    id: str
    source: str
    key: str
    name: str
    user_id: str
    occurred_at: datetime
    received_at: datetime
    properties: dict[str, Any]
    context: dict[str, Any]


class Taken(BaseModel):
    success: bool = True
    accepted: int
    rejected: list[str] = []


_APART = timedelta(microseconds=1)
"""What lies between two events of one request."""


def application(producer: Any, topic: str, clock: Clock) -> FastAPI:
    app = FastAPI()

    async def send(calls: list[Call], behind: timedelta, now: datetime) -> Taken:
        sent = [
            await producer.send(
                topic,
                key=call.user_id.encode(),
                value=Event(
                    id=call.message_id,
                    source="shop",
                    key=call.user_id,
                    name=call.event,
                    user_id=call.user_id,
                    occurred_at=call.timestamp.astimezone(UTC) + behind + place * _APART,
                    received_at=now + place * _APART,
                    properties=call.properties,
                    context=call.context,
                )
                .model_dump_json()
                .encode(),
            )
            for place, call in enumerate(calls)
        ]
        await asyncio.gather(*sent)
        return Taken(accepted=len(calls))

    @app.post("/v1/track")
    async def track(call: Call) -> Taken:
        return await send([call], timedelta(), clock.now())

    @app.post("/v1/batch")
    async def batch(posted: Batch) -> Taken:
        now = clock.now()
        return await send(posted.batch, now - posted.sent_at, now)

    return app


@contextlib.asynccontextmanager
async def naive(log: Log, address: str) -> AsyncIterator[FastAPI]:
    async with AIOKafkaProducer(
        bootstrap_servers=address,
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        linger_ms=3,
        max_batch_size=1 << 20,
    ) as producer:
        yield application(producer, KafkaLog(address, log.partitions).topic("events"), SystemClock())


SERIES = (
    Series(
        "rival: naive fastapi",
        "events/s",
        run=partial(ingest.measure, ingest.ingest, "kafka"),
        limit=partial(ingest.measure, naive, "kafka"),
        limit_name="FastAPI, pydantic, aiokafka send",
        ratio_goal=1.0,
        prepare=partial(ingest.prepare, "kafka"),
        rounds=3,
        long=True,
    ),
)
