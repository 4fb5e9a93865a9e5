"""The four services as processes of their own, two workers each, on Kafka and PostgreSQL: what `make cluster` runs.

What becomes of them when they are hurt is the matter of tests/chaos.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest
from house import HOUR_A_SECOND, READER, MailServer, added, identify, links, ordered
from kafka_for_tests import MOCK_PARTITIONS, Kafka
from patience import until
from segment.analytics.client import Client

from deploy.dev.cluster import READ_KEY, SERVICES, WRITE_KEY, Cluster
from shared.errors import RapportError

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

PATIENCE = 180.0


async def test_the_whole_way_from_the_segment_client_to_two_mails(
    kafka_broker: Kafka, bare_database_url: str, folder: Path, playbook: Path, mails: MailServer
) -> None:
    await kafka_broker.make_topics("cluster.")
    environment = {
        "DATABASE_URL": bare_database_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap,
        "RAPPORT_KAFKA_TOPIC_PREFIX": "cluster.",
        "RAPPORT_PARTITIONS": str(MOCK_PARTITIONS),
        "RAPPORT_CLOCK_SPEED": str(HOUR_A_SECOND),
        "RAPPORT_MAILER_SMTP_URL": mails.url,
    }
    people = [f"walker-{number}" for number in range(8)]
    async with (
        Cluster(folder, environment, playbook=playbook) as cluster,
        httpx.AsyncClient(timeout=PATIENCE, headers=READER) as browser,
    ):

        async def shared_out() -> bool:
            for service in SERVICES[1:]:
                for worker in cluster.of(service):
                    metrics = (await browser.get(f"{worker.address}/metrics")).text
                    if not re.search(
                        rf"^rapport_processing_partitions_owned.* {MOCK_PARTITIONS / 2}$", metrics, re.MULTILINE
                    ):
                        return False
            return True

        async def all_have(count: int) -> bool:
            return all(len(mails.to(f"{person}@example.com")) >= count for person in people)

        async def reminded(person: str) -> None:
            async def mailed() -> bool:
                return bool(mails.to(f"{person}@example.com"))

            await until(mailed, PATIENCE, f"a first reminder for {person}")

        await until(shared_out, PATIENCE, "a fair share for each worker")
        refusals: list[object] = []
        client = Client(
            WRITE_KEY, host=cluster.workers["ingest-2"].address, on_error=lambda *told: refusals.append(told)
        )
        for person in people:
            made, cart = identify(person), added(person, f"cart-{person}")
            client.identify(person, made["traits"])
            client.track(person, cart["event"], cart["properties"])
        await asyncio.to_thread(client.flush)
        await asyncio.to_thread(client.join)
        assert refusals == []

        async def comes_back(person: str) -> None:
            await reminded(person)
            link = next(link for link in links(mails.to(f"{person}@example.com")[0]) if "/c/" in link)

            async def came_back() -> bool:
                # A click counts ten seconds after the mail server's yes was written down; these fly here.
                assert (await browser.get(link)).status_code == 302
                told = await browser.get(
                    f"{cluster.workers['journeys-1'].address}/v1/customers/{person}/enrollments", headers=reader
                )
                return any(one["reason"] == "came back" for one in told.json()["enrollments"])

            await until(came_back, PATIENCE, "a click that brings a customer back")

        async def buys(person: str) -> None:
            await reminded(person)
            bought = {"batch": [ordered(person, "order-1", f"cart-{person}")]}
            posting = await browser.post(
                f"{cluster.workers['ingest-1'].address}/v1/batch", json=bought, auth=(WRITE_KEY, "")
            )
            assert posting.json() == {"success": True, "accepted": 1, "rejected": []}

        reader = {"Authorization": f"Bearer {READ_KEY}"}
        returned, buyer = people.pop(), people[-1]
        # The last word comes 23 seconds after the first.
        await asyncio.gather(comes_back(returned), buys(buyer))
        await until(lambda: all_have(2), PATIENCE, "a last word for each who did not come back")

        page = await browser.get(
            f"{cluster.workers['segmenter-1'].address}/v1/customers/{buyer}",
            headers=reader,
        )
        assert page.json()["stage"] == "retain"
    assert len(mails.to(f"{returned}@example.com")) == 1
    assert {len(mails.to(f"{person}@example.com")) for person in people} == {2}
    assert {worker.name: await worker.ended() for worker in cluster.workers.values()} == {
        f"{service}-{number}": 0 for service in SERVICES for number in (1, 2)
    }


async def test_a_cluster_that_cannot_start_says_why_and_leaves_nothing_running(
    kafka_broker: Kafka, bare_database_url: str, folder: Path
) -> None:
    await kafka_broker.make_topics("broken.")
    cluster = Cluster(
        folder,
        {
            "DATABASE_URL": bare_database_url,
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
