"""How many records and timers journeys takes in a second: whole fenced-size batches on PostgreSQL.

    python bench/journeys.py [--customers 40000] [--batch 2000]

The playbook is the shipped one. Nothing is asserted.
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

from services.journeys import main as journeys
from services.journeys.batch import WAKE
from services.journeys.worker import JourneysProcessor
from shared.contracts.customers import Activation, Customer, CustomerUpdated
from shared.contracts.events import Event
from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database
from shared.database.migrations import migrate
from shared.language import SHIPPED, load, read_folder
from shared.language.playbook import Playbook
from shared.processing.agenda import Agenda
from shared.processing.playbooks import PlaybookShelf
from shared.processing.port import Connection, Timer

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
TRAITS = {"email": "ann@example.com", "name": "Ann Lund", "country": "NO", "birthday": "1990-06-15", "plan": "lamps"}
PRODUCT = {"product_id": "p17", "name": "Desk lamp, brass", "price": 49.9, "url": "https://lamps.example/p/17"}


class OneBook(PlaybookShelf):
    def __init__(self, book: Playbook) -> None:
        super().__init__()
        self._book = book

    async def get(self, connection: Connection, content_hash: str) -> Playbook:
        return self._book


class Outputs:
    """Counts what is put out."""

    partition = 0

    def __init__(self, as_of: datetime) -> None:
        self.as_of = as_of
        self.count = 0
        self.agenda = Agenda(())

    def emit(self, stream: str, key: str, value: bytes) -> None:
        self.count += 1

    def emit_here(self, stream: str, key: str, value: bytes) -> None:
        self.count += 1

    def set_timer(self, kind: str, subject: str, due: datetime | None) -> None:
        self.agenda.set(kind, subject, due)

    def dead_letter(self, key: str, body: bytes, code: str, message: str) -> None:
        self.count += 1


def did(key: str, name: str, at: datetime, properties: dict[str, Any]) -> bytes:
    event = Event(
        id=f"{name}-{key}",
        source="shop",
        key=key,
        name=name,
        occurred_at=at,
        received_at=at,
        properties=msgspec.Raw(msgspec.json.encode(properties)),
    )
    customer = Customer(
        key=key,
        traits=TRAITS,
        consent={"cart-reminders": True, "birthday": True},
        stage="convert",
        segments=("nordic",),
        locale="nb-NO",
        timezone="Europe/Oslo",
        first_seen=START,
        last_seen=at,
        address=f"{key}@example.com",
    )
    return msgspec.json.encode(CustomerUpdated(as_of=at, customer=customer, event=event))


class Bench:
    def __init__(self, database: Database, processor: JourneysProcessor, batch: int) -> None:
        self.database, self.processor, self.batch = database, processor, batch
        self.memo = b""

    async def records(self, label: str, values: Sequence[bytes]) -> None:
        spent = dict.fromkeys(("decode", "load", "handle", "save"), 0.0)
        put_out = 0
        started = time.perf_counter()
        for first in range(0, len(values), self.batch):
            marks = [time.perf_counter()]
            messages = [self.processor.decode("", value) for value in values[first : first + self.batch]]
            marks.append(time.perf_counter())
            async with self.database.transaction() as connection:
                batch = await self.processor.load(connection, 0, self.memo, messages, [])
                marks.append(time.perf_counter())
                out = Outputs(START)
                for message in messages:
                    out.as_of = max(out.as_of, message.as_of)
                    batch.handle(message, out)
                marks.append(time.perf_counter())
                self.memo = await batch.save(connection)
            marks.append(time.perf_counter())
            put_out += out.count
            for part, began, ended in zip(spent, marks, marks[1:], strict=False):
                spent[part] += ended - began
        self._report(label, len(values), time.perf_counter() - started, put_out, spent)

    async def timers(self, label: str, customers: Sequence[str], due: datetime) -> None:
        put_out = 0
        started = time.perf_counter()
        for first in range(0, len(customers), self.batch):
            timers = [Timer(due, WAKE, customer) for customer in customers[first : first + self.batch]]
            async with self.database.transaction() as connection:
                batch = await self.processor.load(connection, 0, self.memo, [], timers)
                out = Outputs(due)
                for timer in timers:
                    batch.fire(timer, out)
                self.memo = await batch.save(connection)
            put_out += out.count
        self._report(label, len(customers), time.perf_counter() - started, put_out, {})

    def _report(self, label: str, count: int, seconds: float, put_out: int, spent: dict[str, float]) -> None:
        parts = "  ".join(f"{part} {taken / count * 1e6:.1f}" for part, taken in spent.items())
        sys.stdout.write(f"{label:44} {count / seconds:9,.0f}/s  {put_out:6} out  {parts}{' µs' if parts else ''}\n")


async def run(customers: int, batch: int) -> None:
    book = load(read_folder(SHIPPED))
    keys = [f"customer-{number}" for number in range(customers)]
    chance = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="rapport-bench-") as folder:
        os.chmod(folder, 0o755)
        async with EmbeddedPostgres(Path(folder) / "postgres") as server:
            database = Database(server.url)
            await migrate(database, [journeys.MIGRATIONS])
            bench = Bench(database, JourneysProcessor(OneBook(book)), batch)
            await bench.records("activation", [msgspec.json.encode(Activation(as_of=START, playbook=book.hash))])
            viewed, cart = "Product Viewed", {"total": 50, "products": [PRODUCT] * 3}
            await bench.records("nobody is in a journey", [did(key, viewed, START, PRODUCT) for key in keys])
            entering = [did(key, "Cart Updated", START, {**cart, "cart_id": key}) for key in keys]
            await bench.records("everybody enters", entering)
            later = START + timedelta(minutes=5)
            mixed = [key if chance.random() < 0.1 else f"other-{key}" for key in keys]
            await bench.records("one in ten is inside", [did(key, viewed, later, PRODUCT) for key in mixed])
            await bench.records("all are inside; it means nothing", [did(key, viewed, later, PRODUCT) for key in keys])
            await bench.timers("timers: the wait is over, a mail is asked for", keys, START + timedelta(hours=1))
            ordering = [did(key, "Order Completed", START + timedelta(hours=2), {"order_id": key}) for key in keys]
            await bench.records("orders: goal, cancellation, another journey", ordering)
            await database.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=40_000)
    parser.add_argument("--batch", type=int, default=2000)
    given = parser.parse_args()
    asyncio.run(run(given.customers, given.batch))
