"""The four services as processes of their own, two workers each, on Kafka and PostgreSQL: what `make cluster` runs."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import httpx
import pytest
from house import HOUR_A_SECOND, MailServer, until
from kafka_for_tests import MOCK_PARTITIONS, Kafka

from deploy.dev.cluster import READ_KEY, SERVICES, WRITE_KEY, Cluster, Worker
from shared.errors import RapportError

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

EXPIRY = 3.0
PATIENCE = 180.0


class Shop:
    """Posts to the workers of ingest in turn, and to another one where one does not take it."""

    def __init__(self, workers: list[Worker]) -> None:
        self._workers = workers
        self.orders: list[str] = []

    async def order(self, client: httpx.AsyncClient, first: int, count: int) -> None:
        """One order by each of `count` customers, whose posts are sent twice, as shops do."""
        for number in range(first, first + count):
            email = f"customer-{number}@shop.example"
            traits = {"email": email, "consent": {"thank-you": True}}
            properties = {"order_id": f"o{number}", "total": 20 + number, "currency": "EUR"}
            batch = [
                {"type": "identify", "userId": f"c{number}", "traits": traits, "messageId": f"i{number}"},
                {"type": "track", "userId": f"c{number}", "event": "Order Completed", "messageId": f"t{number}"}
                | {"properties": properties},
            ]
            for worker in (self._workers[number % 2], self._workers[(number + 1) % 2]):
                answer = await client.post(f"{worker.address}/v1/batch", json={"batch": batch}, auth=(WRITE_KEY, ""))
                assert answer.json() == {"success": True, "accepted": 2, "rejected": []}
            self.orders.append(email)


def addressees(mails: MailServer) -> Counter[str]:
    return Counter(mail["To"].addresses[0].addr_spec for mail in mails.mails)


async def test_every_order_is_thanked_for_once_while_workers_die_and_sleep(
    kafka_broker: Kafka, database_url: str, folder: Path, playbook: Path, mails: MailServer
) -> None:
    await kafka_broker.make_topics("cluster.")
    environment = {
        "DATABASE_URL": database_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap,
        "RAPPORT_KAFKA_TOPIC_PREFIX": "cluster.",
        "RAPPORT_PARTITIONS": str(MOCK_PARTITIONS),
        "RAPPORT_EXPIRY_SECONDS": str(EXPIRY),
        "RAPPORT_CLOCK_SPEED": str(HOUR_A_SECOND),
        "RAPPORT_MAILER_SMTP_URL": mails.url,
    }
    async with Cluster(folder, environment, playbook=playbook) as cluster, httpx.AsyncClient(timeout=30) as client:
        shop = Shop(cluster.of("ingest"))

        async def all_are_thanked() -> bool:
            return addressees(mails).keys() >= set(shop.orders)

        await shop.order(client, 0, 10)
        await until(all_are_thanked, PATIENCE, "a mail for each of the first orders")

        cluster.workers["segmenter-1"].send(signal.SIGKILL)
        assert await cluster.workers["segmenter-1"].ended() == -signal.SIGKILL
        cluster.workers["journeys-2"].send(signal.SIGSTOP)
        await shop.order(client, 10, 10)
        await until(all_are_thanked, PATIENCE, "mails by way of the workers that are left")

        cluster.workers["journeys-2"].send(signal.SIGCONT)
        cluster.launch(cluster.workers["segmenter-1"])
        await cluster.ready(cluster.workers["segmenter-1"])
        await shop.order(client, 20, 10)
        await until(all_are_thanked, PATIENCE, "mails after all are back")

        for number in range(30):
            customer = await client.get(
                f"{cluster.workers['segmenter-1'].address}/v1/customers/c{number}",
                headers={"Authorization": f"Bearer {READ_KEY}"},
            )
            happened = Counter(row.get("name") for row in customer.json()["timeline"]["rows"] if row["kind"] == "event")
            assert happened["Order Completed"] == 1
    assert addressees(mails) == dict.fromkeys(shop.orders, 1)
    assert {worker.name: await worker.ended() for worker in cluster.workers.values()} == {
        f"{service}-{number}": 0 for service in SERVICES for number in (1, 2)
    }


async def test_a_cluster_that_cannot_start_says_why_and_leaves_nothing_running(
    kafka_broker: Kafka, database_url: str, folder: Path
) -> None:
    await kafka_broker.make_topics("broken.")
    cluster = Cluster(
        folder,
        {
            "DATABASE_URL": database_url,
            "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap,
            "RAPPORT_KAFKA_TOPIC_PREFIX": "broken.",
            "RAPPORT_PARTITIONS": str(MOCK_PARTITIONS),
            "RAPPORT_MAILER_SMTP_URL": "gopher://mails",
        },
        workers=1,
    )
    with pytest.raises(RapportError, match=r"mailer-1 ended at its start(.|\n)*gopher://mails"):
        await cluster.start()
    assert not any(worker.alive for worker in cluster.workers.values())
