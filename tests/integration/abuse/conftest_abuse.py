"""A whole installation in this process, on real PostgreSQL and behind a real HTTP server, for everybody to abuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import greedy_playbook
import httpx
import pytest
import pytest_asyncio
from patience import PATIENCE

from services.embedded import Embedded, Options, running
from shared.contracts.streams import STREAMS

WRITE_KEY, READ_KEY = "write-key-of-the-siege", "read-key-of-the-siege"
_READERS = {"segmenter": "events", "journeys": "customers", "mailer": "messages"}


@dataclass
class Siege:
    """The installation, and clients of it."""

    house: Embedded
    http: httpx.AsyncClient

    async def post(self, calls: Sequence[Any], **more: Any) -> httpx.Response:
        return await self.http.post("/v1/batch", json={"batch": list(calls), **more}, auth=(WRITE_KEY, ""))

    async def settled(self) -> None:
        """Wait until every service has taken every record, and no mail is to be decided on."""
        async with asyncio.timeout(PATIENCE):
            while not await self._nothing_left():
                await asyncio.sleep(0.02)

    async def _nothing_left(self) -> bool:
        ends = {stream: await self.house.runtime.log.ends(stream) for stream in STREAMS}
        async with self.house.database.connect() as connection:
            rows = await connection.fetch("SELECT service, partition, next_offset FROM processing.partitions")
            read = {(row["service"], row["partition"]): row["next_offset"] for row in rows}
            for service, stream in _READERS.items():
                for partition, end in ends[stream].items():
                    if read.get((service, partition), 0) < end:
                        return False
            waiting = await connection.fetchval(
                "SELECT count(*) FROM mailer.messages WHERE status IN ('requested', 'sending')"
            )
        return not waiting and ends == {stream: await self.house.runtime.log.ends(stream) for stream in STREAMS}

    async def letters(self) -> list[tuple[str, str, str, bytes]]:
        """Service, code, message and body of each dead letter that ingest did not refuse at the door."""
        async with self.house.database.connect() as connection:
            rows = await connection.fetch(
                "SELECT service, code, message, body FROM processing.dead_letters ORDER BY id"
            )
        return [tuple(row) for row in rows]


@pytest_asyncio.fixture
async def siege(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Siege]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("RAPPORT_PARTITIONS", "2")
    playbook = greedy_playbook.write(tmp_path / "playbook")
    options = Options(tmp_path / "data", playbook, port=0, write_key=WRITE_KEY, read_key=READ_KEY)
    async with running(options) as house:
        async with httpx.AsyncClient(base_url=house.address, timeout=PATIENCE) as http:
            yield Siege(house, http)
