"""Ingest is measured beside an application that does the same in the end: the same answers, the same records."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fakes.memory_log import MemoryLog

from bench.ingest import Bare, batches, single_posts
from bench.rivals.naive_fastapi import application
from services.ingest.main import build
from services.ingest.settings import IngestSettings
from services.ingest.sources import GivenSources
from shared.clock import ManualClock
from shared.runtime import Runtime

CALLS = pytest.mark.parametrize(("path", "body"), [("/v1/track", single_posts()[3]), ("/v1/batch", batches()[2])])
HEADERS = {"Authorization": "Basic a2V5Og==", "Content-Type": "application/json"}
NOW = datetime(2025, 3, 1, 12, 40, 1, 5, tzinfo=UTC)


async def asked(app: Any, path: str, body: bytes) -> Any:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"authorization", b"Basic a2V5Og==")]
    await app({"type": "http", "method": "POST", "path": path, "headers": headers}, receive, send)
    return sent


@CALLS
async def test_the_limit_answers_and_appends_what_ingest_does(path: str, body: bytes) -> None:
    ours, theirs, clock = MemoryLog(partitions=12), MemoryLog(partitions=12), ManualClock(NOW)
    ingest = build(Runtime(ours, clock), IngestSettings.read(), GivenSources({"shop": ["key"]}))
    await ingest.start()
    assert await asked(ingest.app, path, body) == await asked(Bare(theirs, clock), path, body)
    assert [ours.records("events", partition) for partition in range(12)] == [
        theirs.records("events", partition) for partition in range(12)
    ]
    await ingest.stop()


class Producer:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes]] = []

    async def send(self, topic: str, *, key: bytes, value: bytes) -> asyncio.Future[None]:
        self.records.append((key.decode(), value))
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


@CALLS
async def test_the_rival_answers_and_sends_what_ingest_does(path: str, body: bytes) -> None:
    ours, producer, clock = MemoryLog(partitions=12), Producer(), ManualClock(NOW)
    ingest = build(Runtime(ours, clock), IngestSettings.read(), GivenSources({"shop": ["key"]}))
    await ingest.start()
    answers = []
    for app in (ingest.app, application(producer, "events", clock)):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as http:
            answers.append((await http.post(path, content=body, headers=HEADERS)).content)
    assert answers[0] == answers[1]
    records = [(record.key, record.value) for partition in range(12) for record in ours.records("events", partition)]
    assert sorted(records) == sorted(producer.records)
    await ingest.stop()
