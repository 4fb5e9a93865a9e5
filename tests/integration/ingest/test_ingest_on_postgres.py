"""Ingest on the log that the embedded default has."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import msgspec

from services.ingest.main import build
from services.ingest.settings import IngestSettings
from services.ingest.sources import GivenSources
from shared.clock import ManualClock
from shared.contracts.events import Event
from shared.contracts.streams import EVENTS, partition_of
from shared.database.engine import Database
from shared.log.postgres import PostgresLog
from shared.runtime import Runtime

NOW = datetime(2025, 3, 1, 12, 30, tzinfo=UTC)


async def test_what_was_answered_200_is_in_postgresql(database: Database) -> None:
    log = PostgresLog(database, 4)
    await log.start()
    ingest = build(Runtime(log, ManualClock(NOW), database), IngestSettings.read(), GivenSources({"shop": ["k"]}))
    await ingest.start()
    batch = [{"type": "track", "userId": f"u{n % 9}", "event": f"E{n}", "messageId": f"m{n}"} for n in range(200)]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(ingest.app), base_url="http://ingest") as http:
        assert (await http.get("/readyz")).status_code == 200
        answer = await http.post("/v1/batch", json={"batch": batch}, auth=("k", ""))
        assert answer.json() == {"success": True, "accepted": 200, "rejected": []}
    await ingest.stop()
    await log.close()

    # Another process, later.
    log = PostgresLog(database, 4)
    await log.start()
    reader = log.reader(EVENTS)
    reader.assign(dict.fromkeys(range(4), 0))
    for partition in range(4):
        records = (await reader.fetch(partition, 500, 0)).records
        events = [msgspec.json.decode(record.value, type=Event) for record in records]
        expected = [call for call in batch if partition_of(call["userId"], 4) == partition]
        assert [event.id for event in events] == [call["messageId"] for call in expected]
        assert [record.key for record in records] == [event.key for event in events]
    await reader.close()
    await log.close()
