"""A whole cluster to be hurt: two workers of each service as processes on Kafka and PostgreSQL, a shop that posts to
them until it is answered, and questions whose answers say whether anything was lost or done twice."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec
from aiosmtpd.smtp import SMTP, Envelope, Session
from house import MailServer, identify, ordered, until
from kafka_for_tests import MOCK_PARTITIONS, Kafka

from deploy.dev.cluster import SERVICES, WRITE_KEY, Cluster, Worker
from shared.contracts.streams import partition_of
from shared.database.embedded import EmbeddedPostgres
from shared.language import SHIPPED
from shared.language.durations import format_duration
from shared.processing.installation import open_installation

PARTITIONS = MOCK_PARTITIONS
EXPIRY_SECONDS = 4.0
MINUTE_A_SECOND = 60.0
REMINDED_AFTER = timedelta(minutes=6)
PATIENCE = 150.0

# The shipped journeys with minutes for hours, so that the window of de-duplication (24 h) and what else counts in days
# stays longer than any trouble of these tests.
_SOONER = {
    "journeys/abandoned-cart.yaml": {
        "wait: 1h": f"wait: {format_duration(REMINDED_AFTER)}",
        "timeout: 23h": "timeout: 4m",
    },
    "journeys/thank-you.yaml": {"wait: 2h": "wait: 1m"},
}
_HOUSE_RULES = re.compile(r"^(?:quiet_hours|caps):.*\n(?:[ ].*\n)*", re.MULTILINE)


def sooner_playbook(folder: Path) -> Path:
    """A copy of the shipped playbook whose waits are short, without quiet hours and caps."""
    copy = folder / "playbook"
    shutil.copytree(SHIPPED, copy)
    rules, count = _HOUSE_RULES.subn("", (copy / "rapport.yaml").read_text())
    assert count == 2
    (copy / "rapport.yaml").write_text(rules)
    for name, changes in _SOONER.items():
        text = (copy / name).read_text()
        for old, new in changes.items():
            assert old in text, f"the shipped {name} has changed: there is no {old!r}"
            text = text.replace(old, new)
        (copy / name).write_text(text)
    return copy


async def until_none(question: Callable[[], Awaitable[Sequence[str]]], what: str) -> None:
    """Wait until the answer to the question is that there are none."""
    left: Sequence[str] = ()

    async def none() -> bool:
        nonlocal left
        left = await question()
        return not left

    try:
        await until(none, PATIENCE, what)
    except AssertionError:
        raise AssertionError(f"after {PATIENCE:.0f} s there is still {what}: {left}") from None


class PatientMailServer(MailServer):
    """A mail server that can be told to think about each mail before it accepts it."""

    def __init__(self) -> None:
        super().__init__()
        self.thinking = False
        self.offered: list[str] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.offered += envelope.rcpt_tos
        while self.thinking:
            await asyncio.sleep(0.02)
        return await super().handle_DATA(server, session, envelope)


class Shop:
    """Posts to the workers of ingest in turn, each post again and again until it is answered 200.

    `accepted` are the ids of the events that were; `customers` those who have ordered, each of whom is to be thanked
    once.
    """

    def __init__(self, name: str, addresses: Sequence[str]) -> None:
        self.name = name
        self.accepted: list[str] = []
        self.customers: list[str] = []
        self.refused: Counter[int] = Counter()
        self._addresses = addresses
        self._http = httpx.AsyncClient(timeout=20, auth=(WRITE_KEY, ""))
        self._turn = 0

    async def close(self) -> None:
        await self._http.aclose()

    async def post(self, *events: dict[str, Any]) -> None:
        for event in events:
            self._turn += 1
            event["messageId"] = f"{self.name}-{self._turn}"
        while True:
            self._turn += 1
            address = self._addresses[self._turn % len(self._addresses)]
            try:
                answer = await self._http.post(f"{address}/v1/batch", json={"batch": list(events)})
            except httpx.TransportError:
                self.refused[0] += 1
            else:
                if answer.status_code == 200:
                    assert answer.json() == {"success": True, "accepted": len(events), "rejected": []}
                    self.accepted += [event["messageId"] for event in events]
                    return
                assert answer.status_code == 503, answer.text
                self.refused[503] += 1
            await asyncio.sleep(0.1)

    def new_customer(self) -> str:
        self.customers.append(f"{self.name}-c{len(self.customers)}")
        return self.customers[-1]

    async def sell(self, count: int) -> list[str]:
        """As many new customers order, one post each."""
        customers = [self.new_customer() for _ in range(count)]
        for customer in customers:
            await self.post(identify(customer), ordered(customer, f"order-{customer}"))
        return customers

    async def sell_everywhere(self) -> list[str]:
        """New customers order until every partition has one of them; no partition is left without work."""
        customers: list[str] = []
        while len({partition_of(customer, PARTITIONS) for customer in customers}) < PARTITIONS:
            customers += await self.sell(1)
        return customers

    async def keep_selling(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.sell(1)


class ClusterHouse:
    """A cluster that stays up over many tests; `mend` brings back what a test has ended or stopped."""

    def __init__(self, folder: Path, kafka: Kafka, postgres: EmbeddedPostgres, mails: PatientMailServer) -> None:
        self.kafka = kafka
        self.postgres = postgres
        self.mails = mails
        self.proof = folder / "reached"
        self.cluster = Cluster(
            folder,
            {
                "DATABASE_URL": postgres.url,
                "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
                "RAPPORT_KAFKA_TOPIC_PREFIX": "house.",
                "RAPPORT_PARTITIONS": str(PARTITIONS),
                "RAPPORT_HEARTBEAT_SECONDS": "0.5",
                "RAPPORT_EXPIRY_SECONDS": str(EXPIRY_SECONDS),
                "RAPPORT_CLOCK_SPEED": str(MINUTE_A_SECOND),
                "RAPPORT_MAILER_SMTP_URL": mails.url,
                "RAPPORT_FAULT_PROOF": str(self.proof),
            },
            playbook=sooner_playbook(folder),
        )
        self._http = httpx.AsyncClient(timeout=20)
        self._shops: list[Shop] = []

    async def start(self) -> None:
        await self.kafka.make_topics("house.", PARTITIONS)
        await self.cluster.start()
        await until(self.shared_out, PATIENCE, "a fair share for each")

    async def close(self) -> None:
        for shop in self._shops:
            await shop.close()
        for worker in self.workers():
            if worker.alive:
                worker.send(signal.SIGKILL)
                await worker.ended()
        await self._http.aclose()

    # The processes

    def workers(self, *services: str) -> list[Worker]:
        """All of them, or those of some services."""
        return [worker for worker in self.cluster.workers.values() if not services or worker.service in services]

    def worker(self, service: str, number: int) -> Worker:
        return self.cluster.workers[f"{service}-{number}"]

    async def launch(self, workers: Iterable[Worker], **environment: str) -> None:
        """Start these, and wait until they are ready."""
        workers = list(workers)
        for worker in workers:
            self.cluster.launch(worker, **environment)
        await asyncio.gather(*map(self.cluster.ready, workers))

    async def stop(self, workers: Iterable[Worker]) -> None:
        """In order; each must end well."""
        workers = [worker for worker in workers if worker.alive]
        for worker in workers:
            worker.send(signal.SIGTERM)
        for worker in workers:
            assert await asyncio.wait_for(worker.ended(), 60) == 0, worker.log_tail()

    async def dies_at(self, point: str, worker: Worker) -> None:
        """Start a worker that is to be killed at a named point, and see that it was, there."""
        self.proof.unlink(missing_ok=True)
        self.cluster.launch(worker, RAPPORT_FAULT=point)
        assert await asyncio.wait_for(worker.ended(), PATIENCE) == -signal.SIGKILL, worker.log_tail()
        assert self.proof.read_text().split() == [point]

    async def mend(self, workers: int) -> None:
        """Whatever a test has done or left undone: there are so many workers of each service, at least."""
        self.mails.thinking = False
        for worker in self.workers():
            if worker.alive:
                worker.send(signal.SIGCONT)
        missing: list[Worker] = []
        for service in SERVICES:
            dead = [worker for worker in self.workers(service) if not worker.alive]
            missing += dead[: max(0, workers - (len(self.workers(service)) - len(dead)))]
        await self.launch(missing)
        if workers == 2:
            await until(self.shared_out, PATIENCE, "a fair share for each")

    # Questions to the processes

    async def metric(self, worker: Worker, name: str) -> float:
        """The sum over all labels; 0 where the process does not answer."""
        try:
            text = (await self._http.get(f"{worker.address}/metrics")).text
        except httpx.TransportError:
            return 0.0
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))

    async def owned(self, worker: Worker) -> int:
        return int(await self.metric(worker, "rapport_processing_partitions_owned"))

    async def shared_out(self) -> bool:
        owned = [await self.owned(worker) for worker in self.workers(*SERVICES[1:])]
        return owned == [PARTITIONS // 2] * len(owned)

    async def answers(self, worker: Worker, path: str = "/readyz") -> int:
        return (await self._http.get(worker.address + path)).status_code

    async def halted(self) -> float:
        return sum([await self.metric(worker, "rapport_processing_partitions_halted") for worker in self.workers()])

    # Questions to the database

    async def ask(self, question: str, *arguments: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.postgres.url)
        try:
            return await connection.fetch(question, *arguments)
        finally:
            await connection.close()

    async def now(self) -> datetime:
        """What the installation's clock shows."""
        connection = await asyncpg.connect(self.postgres.url)
        try:
            return (await open_installation(connection, PARTITIONS, None)).clock.now()
        finally:
            await connection.close()

    async def in_history(self, events: Collection[str]) -> Counter[str]:
        """How often each of these events is in the customers' history."""
        rows = await self.ask("SELECT id FROM segmenter.history WHERE id = ANY($1)", list(events))
        return Counter(row["id"] for row in rows)

    async def messages(self, customers: Collection[str]) -> dict[str, str]:
        """How the message to each of these customers stands, of whom nobody may have more than one."""
        rows = await self.ask("SELECT customer, status FROM mailer.messages WHERE customer = ANY($1)", list(customers))
        assert len({row["customer"] for row in rows}) == len(rows), "somebody has two messages for one cause"
        return {row["customer"]: row["status"] for row in rows}

    async def all_are(self, customers: Collection[str], *statuses: str) -> bool:
        """Whether each of these customers is in a journey, or has been in one, and stands so there."""
        rows = await self.ask(
            "SELECT customer FROM journeys.enrollments WHERE customer = ANY($1) AND status = ANY($2)",
            list(customers),
            list(statuses),
        )
        return {row["customer"] for row in rows} == set(customers)

    async def unpublished(self, *services: str) -> list[str]:
        """What is in the outboxes of these services, or of all."""
        rows = await self.ask(
            "SELECT service, partition, stream, destination, first_seq FROM processing.outbox WHERE service = ANY($1)",
            list(services or SERVICES),
        )
        return [f"{service}[{one}] to {stream}[{two}] from {seq}" for service, one, stream, two, seq in rows]

    async def held_by_nobody(self) -> int:
        """Partitions whose owner has left, and has not let go of them."""
        rows = await self.ask(
            "SELECT FROM processing.partitions p WHERE owner IS NOT NULL"
            " AND NOT EXISTS (SELECT FROM processing.workers w WHERE w.service = p.service AND w.id = p.owner)"
        )
        return len(rows)

    async def dead_letters(self) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in await self.ask("SELECT code, message FROM processing.dead_letters")]

    async def unread(self, writer: str, stream: str, reader: str) -> list[str]:
        """The roads from `writer` to `reader` on which the last that was taken is not the last that was given out."""
        rows = await self.ask("SELECT service, partition, in_seqs, out_seqs FROM processing.partitions")
        decode = msgspec.msgpack.decode
        given = {
            (row["partition"], int(road.rpartition("/")[2])): seq
            for row in rows
            if row["service"] == writer and row["out_seqs"]
            for road, seq in decode(row["out_seqs"]).items()
            if road.startswith(f"{stream}/")
        }
        taken = {
            (int(source.split("/")[1]), row["partition"]): seq
            for row in rows
            if row["service"] == reader and row["in_seqs"]
            for source, seq in decode(row["in_seqs"]).items()
            if source.startswith(f"{writer}/")
        }
        return [
            f"{road}: {seq} given, {taken.get(road)} taken" for road, seq in given.items() if taken.get(road) != seq
        ]

    # The shop and the verdict

    def shop(self) -> Shop:
        """One with customers of its own."""
        self._shops.append(Shop(f"shop{len(self._shops)}", [worker.address for worker in self.workers("ingest")]))
        return self._shops[-1]

    async def verdict(self, shop: Shop) -> Counter[str]:
        """Wait until all that the shop posted has had its effect, and hold it to what must always hold.

        Returns how many of the thanks ended in which way; a mail has gone out for each that was sent, and at most one
        for the others."""
        accepted, customers = shop.accepted, shop.customers

        async def remembered() -> bool:
            return len(await self.in_history(accepted)) == len(accepted)

        async def ended() -> bool:
            found = await self.messages(customers)
            return len(found) == len(customers) and not {"requested", "held", "sending"} & set(found.values())

        await until(remembered, PATIENCE, "the history of every accepted event")
        await until(ended, PATIENCE, "the end of every message")
        await until_none(self.unpublished, "in the outbox")
        statuses = await self.messages(customers)
        mails = {customer: len(self.mails.to(f"{customer}@example.com")) for customer in customers}
        assert set((await self.in_history(accepted)).values()) == {1}, "an event is in history twice"
        assert not {customer: count for customer, count in mails.items() if count > 1}, "a mail went out twice"
        assert [c for c, status in statuses.items() if status == "sent" and not mails[c]] == []
        assert await self.dead_letters() == []
        assert await self.halted() == 0
        return Counter(statuses.values())
