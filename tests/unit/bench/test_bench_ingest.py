"""Ingest is measured beside an application that does the same in the end: the same answers, the same records."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from fakes.memory_log import MemoryLog

from bench.ingest import Bare, batches, single_posts
from services.ingest.main import build
from services.ingest.settings import IngestSettings
from services.ingest.sources import GivenSources
from shared.clock import ManualClock
from shared.runtime import Runtime

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


@pytest.mark.parametrize(("path", "body"), [("/v1/track", single_posts()[3]), ("/v1/batch", batches()[2])])
async def test_the_limit_answers_and_appends_what_ingest_does(path: str, body: bytes) -> None:
    ours, theirs, clock = MemoryLog(partitions=12), MemoryLog(partitions=12), ManualClock(NOW)
    ingest = build(Runtime(ours, clock), IngestSettings.read(), GivenSources({"shop": ["key"]}))
    await ingest.start()
    assert await asked(ingest.app, path, body) == await asked(Bare(theirs, clock), path, body)
    assert [ours.records("events", partition) for partition in range(12)] == [
        theirs.records("events", partition) for partition in range(12)
    ]
    await ingest.stop()
