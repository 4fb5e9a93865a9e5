"""How many messages a second the mailer takes from the road, decides, hands to a sink and reports.

    python -m bench.mailer [MESSAGES] [CONNECTIONS]

PostgreSQL from the wheel, streams in it, one process, 12 partitions, a cap to look up. The sink answers at once, so
what is measured is everything but the network: the records' batches, decisions under locks, outcomes, their events.
Processor time tells more than the wall clock where others work on the machine, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psutil

from services.mailer import store
from services.mailer.sending import Sending
from services.mailer.transport import Accepted, Mail, Receipt
from services.mailer.worker import MailerProcessor
from shared import processing
from shared.clock import SystemClock
from shared.contracts import streams
from shared.contracts.customers import Activation
from shared.contracts.messages import MessageRequested
from shared.contracts.streams import DEFAULT_PARTITIONS, partition_of
from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database
from shared.database.migrations import Migrations, migrate
from shared.language.playbook import Brand, Cap, Playbook, Topic
from shared.log import postgres
from shared.log.port import Entry
from shared.processing.installation import open_installation
from shared.processing.port import Connection
from shared.processing.worker import Worker
from shared.runtime import Runtime
from shared.settings import Settings


class Sink:
    def __init__(self, connections: int) -> None:
        self.connections = connections

    async def deliver(self, mail: Mail, data_by: float) -> Receipt:
        await asyncio.sleep(0)
        return Accepted("250 ok")

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def ready(self) -> str | None:
        return None


class OnePlaybook:
    async def get(self, connection: Connection, content_hash: str) -> Playbook:
        brand = Brand(
            "Lamps", "hello@lamps.example", None, "", "Europe/Oslo", "en", "NOK", {}, {}, None,
            (Cap(3, timedelta(days=7)),), "derived",
        )  # fmt: skip
        topic = Topic("cart-reminders", "Cart reminders", "", "promotional", "opt_out")
        return Playbook("p1", {}, brand, (), {}, {topic.name: topic}, {}, {}, {})


def compose(playbook: Playbook, request: MessageRequested, now: datetime) -> Mail:
    rendered: Any = None
    return Mail(request, "hello@lamps.example", request.address or "", b"", rendered, {}, ("https://lamps.example/",))


def request(number: int, now: datetime) -> MessageRequested:
    return MessageRequested(
        as_of=now,
        id=f"{number:08x}-0000-5000-8000-000000000000",
        customer=f"customer-{number}",
        address=f"customer-{number}@example.org",
        message="cart-reminder",
        topic="cart-reminders",
        journey="abandoned-cart",
        enrollment=f"e-{number}",
        step="cart-reminder",
        due=now,
        expires=now + timedelta(hours=72),
        data={"trigger": {"cart_id": "c1", "products": [{"name": f"Lamp {n}", "price": 99.5} for n in range(5)]}},
    )


async def all_sent(connection: Connection, count: int) -> None:
    sent = "SELECT count(*) FROM mailer.messages WHERE status = 'sent'"
    while await connection.fetchval(sent) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.2)


def processor_time(server: EmbeddedPostgres) -> float:
    """Seconds that the server has used so far."""
    parent = psutil.Process(server.pid)
    reaped = parent.cpu_times()
    used = reaped.user + reaped.system + reaped.children_user + reaped.children_system
    for process in parent.children():
        with contextlib.suppress(psutil.NoSuchProcess):  # such as a worker of autovacuum that is done
            each = process.cpu_times()
            used += each.user + each.system
    return used


async def run(messages: int, connections: int, folder: Path) -> None:
    async with EmbeddedPostgres(folder) as server:
        database = Database(server.url, size=12)
        own = Migrations("mailer", Path(store.__file__).parent / "migrations")
        await migrate(database, [postgres.MIGRATIONS, processing.MIGRATIONS, own])
        log = postgres.PostgresLog(database, DEFAULT_PARTITIONS)
        await log.start()
        async with database.connect() as connection:
            installation = await open_installation(connection, DEFAULT_PARTITIONS, 1.0)
        now = datetime.now(UTC)
        for partition in range(DEFAULT_PARTITIONS):
            value = msgspec.json.encode(Activation(as_of=now, playbook="p1"))
            await log.append(streams.MESSAGES, partition, [Entry("", value)])
        shelf = OnePlaybook()
        sending = Sending(Sink(connections), compose, shelf, SystemClock(), timedelta(minutes=1))
        runtime = Runtime(log, SystemClock(), database, installation)
        worker = Worker(runtime, MailerProcessor(sending, shelf), Settings())
        await worker.start()
        for round in range(4):
            entries: dict[int, list[Entry]] = {}
            for number in range(round * messages, (round + 1) * messages):
                asked = request(number, now)
                partition = partition_of(asked.customer, DEFAULT_PARTITIONS)
                entries.setdefault(partition, []).append(Entry(asked.customer, msgspec.json.encode(asked)))
            started, cpu, server_cpu = time.perf_counter(), time.process_time(), processor_time(server)
            for partition, some in entries.items():
                await log.append(streams.MESSAGES, partition, some)
            async with database.connect() as connection:
                await all_sent(connection, (round + 1) * messages)
                transactions = await connection.fetchval("SELECT sum(version) FROM processing.partitions")
            took = time.perf_counter() - started
            sys.stdout.write(
                f"{messages} messages, {connections} connections: {messages / took:.0f}/s, "
                f"{(time.process_time() - cpu) / messages * 1e6:.0f} us of this process and "
                f"{(processor_time(server) - server_cpu) / messages * 1e6:.0f} us of PostgreSQL each, "
                f"{transactions} transactions so far\n"
            )
        await worker.stop()
        await sending.finish()
        await log.close()
        await database.close()


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]] + [5000, 16][len(sys.argv) - 1 :]
    with tempfile.TemporaryDirectory(prefix="rapport-bench-") as folder:
        Path(folder).chmod(0o755)
        asyncio.run(run(arguments[0], arguments[1], Path(folder) / "postgres"))
