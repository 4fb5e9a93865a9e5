"""How many events the segmenter takes in a second: its heart alone, and whole fenced-size batches on PostgreSQL.

    python bench/segmenter.py [--customers 20000] [--events 40000] [--batch 2000]

The playbook is the shipped one. Figures are of this process's
own processor time, so that what else the machine does matters little; PostgreSQL's time is not in them, but in the
wall clock's line. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))

from services.segmenter import main as segmenter
from services.segmenter.profile import Profile, apply
from services.segmenter.rules import compile_rules
from services.segmenter.worker import SegmenterProcessor
from shared.contracts.events import Activation, Event, EventRecord
from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database
from shared.database.migrations import migrate
from shared.language import SHIPPED, load, read_folder
from shared.language.playbook import Playbook
from shared.processing.agenda import Agenda
from shared.processing.port import Connection

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
CONTEXT = msgspec.json.encode(
    {
        "library": {"name": "analytics-python", "version": "2.3.4"},
        "locale": "nb-NO",
        "timezone": "Europe/Oslo",
        "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0",
        "page": {"url": "https://lamps.example/p/lamp-17", "referrer": "https://lamps.example/", "title": "Lamp 17"},
    }
)


def events(count: int, customers: int) -> list[Event]:
    """A shop's usual mix, about 1 KB each."""
    chance = random.Random(1)
    made = []
    for number in range(count):
        at = START + timedelta(seconds=number / 20)
        product = {
            "product_id": f"p{chance.randrange(300)}",
            "name": "Desk lamp, brass",
            "category": chance.choice(["lamps", "bulbs", "shades"]),
            "price": 49.9,
            "currency": "EUR",
            "url": "https://lamps.example/p/17",
            "image_url": "https://lamps.example/i/17.jpg",
        }
        name = chance.choices(
            ["Product Viewed", "Product Added", "Order Completed", "Page Viewed", ""], [50, 15, 5, 22, 8]
        )[0]
        traits = {"email": f"c{number}@example.com", "name": "Ann Lund", "country": "NO", "birthday": "1990-06-15"}
        made.append(
            Event(
                id=f"3f2c8e9a-{number:012d}",
                source="shop",
                key=f"customer-{chance.randrange(customers)}",
                type="track" if name else "identify",
                name=name,
                occurred_at=at,
                received_at=at,
                properties=msgspec.Raw(msgspec.json.encode(product if name else {})),
                traits=msgspec.Raw(b"{}" if name else msgspec.json.encode(traits)),
                context=msgspec.Raw(CONTEXT),
            )
        )
    return made


def heart(made: Sequence[Event], playbook: Playbook) -> float:
    rules = compile_rules(playbook)
    profiles: dict[str, Profile] = {}
    began = time.process_time()
    for event in made:
        profiles[event.key], _ = apply(profiles.get(event.key), event, rules, event.received_at)
    return len(made) / (time.process_time() - began)


class _Out:
    partition = 0

    def __init__(self, as_of: datetime) -> None:
        self.as_of = as_of
        self.agenda = Agenda(())
        self.emitted: list[bytes] = []

    def emit(self, stream: str, key: str, value: bytes) -> None:
        self.emitted.append(value)

    emit_here = emit

    def set_timer(self, kind: str, subject: str, due: datetime | None) -> None:
        self.agenda.set(kind, subject, due)

    def dead_letter(self, key: str, body: bytes, code: str, message: str) -> None:
        raise AssertionError(f"{code}: {message}")


class _Shelf:
    def __init__(self, playbook: Playbook) -> None:
        self._playbook = playbook

    async def get(self, connection: Connection, content_hash: str) -> Playbook:
        return self._playbook


async def batches(made: Sequence[Event], playbook: Playbook, size: int) -> dict[str, Any]:
    """Decode, load, handle and save, as the mechanics do; without their fence, timers and outbox."""
    values = [("", msgspec.json.encode(Activation(playbook=playbook.hash, received_at=START)))]
    values += [(event.key, msgspec.json.encode(event)) for event in made]
    spent = {"decode": 0.0, "load": 0.0, "handle": 0.0, "save": 0.0}
    with tempfile.TemporaryDirectory(prefix="rapport-bench-") as folder:
        os.chmod(folder, 0o755)
        async with EmbeddedPostgres(Path(folder) / "postgres") as server:
            database = Database(server.url)
            await migrate(database, [segmenter.MIGRATIONS])
            processor = SegmenterProcessor(_Shelf(playbook))
            memo, as_of, emitted = b"", START, 0
            wall = time.perf_counter()
            for begin in range(0, len(values), size):
                clock = time.process_time()
                messages: list[EventRecord] = [processor.decode(*value) for value in values[begin : begin + size]]
                spent["decode"] += time.process_time() - clock
                clock = time.process_time()
                async with database.connect() as connection:
                    batch = await processor.load(connection, 0, memo, messages, ())
                spent["load"] += time.process_time() - clock
                clock = time.process_time()
                out = _Out(as_of)
                for message in messages:
                    out.as_of = max(out.as_of, message.received_at)
                    batch.handle(message, out)
                spent["handle"] += time.process_time() - clock
                clock = time.process_time()
                async with database.transaction() as connection:
                    memo = await batch.save(connection)
                spent["save"] += time.process_time() - clock
                as_of = out.as_of
                emitted += sum(map(len, out.emitted))
            wall = time.perf_counter() - wall
            await database.close()
    total = sum(spent.values())
    return {
        "events/s": round(len(made) / total),
        "events/s by the wall clock, with PostgreSQL": round(len(made) / wall),
        "record bytes": round(emitted / len(made)),
        **{f"{name} µs/event": round(seconds / len(made) * 1e6, 1) for name, seconds in spent.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=20_000)
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--batch", type=int, default=2_000)
    asked = parser.parse_args()
    playbook = load(read_folder(SHIPPED))
    made = events(asked.events, asked.customers)
    print(f"heart alone: {heart(made, playbook):,.0f} events/s")  # noqa: T201
    for name, figure in asyncio.run(batches(made, playbook, asked.batch)).items():
        print(f"{name}: {figure:,}")  # noqa: T201


if __name__ == "__main__":
    main()
