"""What must always hold, on a cluster that is hurt in every way that one can be: killed at named points, stopped and
resumed, its broker and its database restarted, its services away for a while.

The cluster stays up over all tests of this module, and each test has customers of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio
from cluster_house import PARTITIONS, PATIENCE, REMINDED_AFTER, ClusterHouse, PatientMailServer, Shop, until_none
from house import added, identify, links, ordered, until
from kafka_for_tests import Kafka, RealKafka, also_on_kafka
from segment.analytics.client import Client

from deploy.dev.cluster import SERVICES, WRITE_KEY
from shared.database.embedded import EmbeddedPostgres

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

WORKING = SERVICES[1:]
"""The services that own partitions."""
LEFT = ("ended", "watching")
"""How those stand who have left a journey, whether or not its goal is still looked out for."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(kafka_broker: Kafka) -> AsyncIterator[ClusterHouse]:
    # PostgreSQL is one of our own, since it is ended and started again; its account must be able to enter the folder.
    with tempfile.TemporaryDirectory(prefix="rapport-cluster-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with PatientMailServer() as mails:
            async with EmbeddedPostgres(folder / "postgres") as postgres:
                house = ClusterHouse(folder, kafka_broker, postgres, mails)
                try:
                    await house.start()
                    yield house
                finally:
                    await house.close()


@pytest_asyncio.fixture(loop_scope="module")
async def house(standing: ClusterHouse) -> ClusterHouse:
    """Whatever the tests before have done to it, there is at least one worker of each service."""
    await standing.mend(workers=1)
    return standing


@pytest_asyncio.fixture(loop_scope="module")
async def two_of_each(standing: ClusterHouse) -> None:
    """For tests that do not begin by stopping workers: there are two of each service, and they share."""
    await standing.mend(workers=2)


@pytest.fixture
def shop(standing: ClusterHouse) -> Shop:
    return standing.shop()


@contextlib.asynccontextmanager
async def selling(shop: Shop) -> AsyncIterator[None]:
    """The shop sells on and on while this lasts, from a first order that was taken."""
    stop = asyncio.Event()
    first = len(shop.accepted)
    going_on = asyncio.create_task(shop.keep_selling(stop))

    async def begun() -> bool:
        if going_on.done():
            going_on.result()
        return len(shop.accepted) > first

    try:
        await until(begun, PATIENCE, "the first order")
        yield
    finally:
        stop.set()
        await going_on


@pytest.mark.usefixtures("two_of_each")
async def test_the_whole_way_from_the_segment_client_to_two_mails(house: ClusterHouse, shop: Shop) -> None:
    for service in WORKING:
        assert [await house.owned(worker) for worker in house.workers(service)] == [PARTITIONS // 2] * 2

    refusals: list[object] = []
    client = Client(WRITE_KEY, host=house.worker("ingest", 2).address, on_error=lambda *told: refusals.append(told))
    people = [f"walker-{number}" for number in range(8)]
    for person in people:
        made = identify(person)
        client.identify(person, made["traits"], message_id=f"{person}-identify")
        cart = added(person, f"cart-{person}")
        client.track(person, cart["event"], cart["properties"], message_id=f"{person}-cart")
    await asyncio.to_thread(client.flush)
    await asyncio.to_thread(client.join)
    assert refusals == []

    async def all_have(count: int) -> bool:
        return all(len(house.mails.to(f"{person}@example.com")) >= count for person in people)

    await until(lambda: all_have(1), PATIENCE, "a first reminder for each")
    returned = people[0]
    link = next(link for link in links(house.mails.to(f"{returned}@example.com")[0]) if "/c/" in link)
    async with httpx.AsyncClient() as browser:
        assert (await browser.get(link)).status_code == 302
    people.remove(returned)
    await until(lambda: all_have(2), PATIENCE, "a last word for each")
    await until(lambda: house.all_are([*people, returned], *LEFT), PATIENCE, "the end of each journey")

    assert {len(house.mails.to(f"{person}@example.com")) for person in people} == {2}
    assert len(house.mails.to(f"{returned}@example.com")) == 1
    events = [f"{person}-{what}" for person in [*people, returned] for what in ("identify", "cart")]
    assert await house.in_history(events) == dict.fromkeys(events, 1)


@pytest.mark.parametrize("place", ["before_commit", "after_commit", "published"])
@pytest.mark.parametrize("service", WORKING)
async def test_killed_at(house: ClusterHouse, shop: Shop, service: str, place: str) -> None:
    """With a backlog that the doomed worker meets as the first thing of all, and a successor that takes it over."""
    doomed, successor = house.workers(service)
    await house.stop([doomed, successor])
    # A mailer that has published an outcome has other mails in hand, where there are any.
    customers = await (shop.sell(1) if (service, place) == ("mailer", "published") else shop.sell_everywhere())
    if service == "mailer":
        await until(lambda: house.all_are(customers, "sending"), PATIENCE, "requests to the mailer")
    else:
        # What is before the service is in its stream now, and nothing of it in an outbox.
        await until_none(lambda: house.unpublished("segmenter"), "in the outbox")

    await house.dies_at(f"{service}.{place}", doomed)
    await house.launch([successor])
    assert await house.verdict(shop) == {"sent": len(customers)}


@pytest.mark.parametrize("place", ["sending", "data_sent"])
async def test_killed_in_a_hand_over_the_mail_is_unknown_and_never_sent_again(
    house: ClusterHouse, shop: Shop, place: str
) -> None:
    doomed, successor = house.workers("mailer")
    await house.stop([doomed, successor])
    (unlucky,) = await shop.sell(1)
    await until(lambda: house.all_are([unlucky], "sending"), PATIENCE, "the request to the mailer")

    await house.dies_at(f"mailer.{place}", doomed)
    await house.launch([successor])
    others = await shop.sell_everywhere()
    assert await house.verdict(shop) == {"unknown": 1, "sent": len(others)}
    assert (await house.messages([unlucky])) == {unlucky: "unknown"}
    assert len(house.mails.to(f"{unlucky}@example.com")) == (1 if place == "data_sent" else 0)
    await until(lambda: house.all_are([unlucky], *LEFT), PATIENCE, "the journey to have gone on")


@pytest.mark.usefixtures("two_of_each")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_when_one_of_each_goes_the_other_takes_over(
    house: ClusterHouse, shop: Shop, number: signal.Signals
) -> None:
    going = [house.worker(service, 1) for service in WORKING]
    staying = [house.worker(service, 2) for service in WORKING]

    async def taken_over() -> bool:
        return [await house.owned(worker) for worker in staying] == [PARTITIONS] * len(staying)

    async with selling(shop):
        for worker in going:
            worker.send(number)
        codes = [await asyncio.wait_for(worker.ended(), 60) for worker in going]
        left_behind = await house.held_by_nobody()
        await until(taken_over, PATIENCE, "the take-over")
        await shop.sell_everywhere()
    assert codes == [0 if number == signal.SIGTERM else -number] * len(going)
    ways = await house.verdict(shop)
    if number == signal.SIGTERM:
        assert ways == {"sent": len(shop.customers)}, "an orderly stop leaves nothing unknown"
        assert left_behind == 0, "nobody has to wait for their heartbeats to expire"
    else:
        assert ways.keys() <= {"sent", "unknown"}


@pytest.mark.usefixtures("two_of_each")
@pytest.mark.parametrize(
    ("service", "table"), [("segmenter", "segmenter.profiles"), ("journeys", "journeys.enrollments")]
)
async def test_an_owner_stopped_inside_its_transaction_comes_back_and_writes_nothing(
    house: ClusterHouse, shop: Shop, service: str, table: str
) -> None:
    sleeper, other = house.workers(service)
    assert sleeper.process is not None
    fenced_before = await house.metric(sleeper, "rapport_processing_fenced_total")

    async def inside() -> bool:
        """The sleeper holds the fence of a partition, and waits for us."""
        rows = await house.ask(
            "SELECT FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'",
            f"rapport-{sleeper.process.pid if sleeper.process else 0}",
        )
        return bool(rows)

    holder = await asyncpg.connect(house.postgres.url)
    try:
        async with holder.transaction():
            await holder.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
            await shop.sell_everywhere()
            await until(inside, PATIENCE, "a transaction that waits")
            sleeper.send(signal.SIGSTOP)
    finally:
        await holder.close()

    await until(lambda: _owns_all(house, other.service, 2), PATIENCE, "the take-over")
    assert await house.verdict(shop) == {"sent": len(shop.customers)}

    sleeper.send(signal.SIGCONT)
    await until(house.shared_out, PATIENCE, "a fair share for it that came back")
    assert await house.metric(sleeper, "rapport_processing_fenced_total") > fenced_before
    assert await house.answers(sleeper) == 200
    await shop.sell_everywhere()
    assert await house.verdict(shop) == {"sent": len(shop.customers)}


async def _owns_all(house: ClusterHouse, service: str, number: int) -> bool:
    return await house.owned(house.worker(service, number)) == PARTITIONS


@pytest.mark.usefixtures("two_of_each")
async def test_a_mailer_stopped_in_its_hand_overs_comes_back_and_sends_nothing_again(
    house: ClusterHouse, shop: Shop
) -> None:
    sleeper, other = house.workers("mailer")
    fenced_before = await house.metric(sleeper, "rapport_processing_fenced_total")
    house.mails.thinking = True
    await shop.sell_everywhere()

    async def both_in_hand_overs() -> bool:
        return all([await house.metric(worker, "rapport_mailer_in_hand_messages") for worker in (sleeper, other)])

    await until(both_in_hand_overs, PATIENCE, "hand-overs of both")
    sleeper.send(signal.SIGSTOP)
    house.mails.thinking = False

    await until(lambda: _owns_all(house, "mailer", 2), PATIENCE, "the take-over")
    await shop.sell_everywhere()
    ways = await house.verdict(shop)
    assert ways.keys() == {"sent", "unknown"}

    sleeper.send(signal.SIGCONT)
    await until(house.shared_out, PATIENCE, "a fair share for it that came back")
    assert await house.metric(sleeper, "rapport_processing_fenced_total") > fenced_before
    assert await house.answers(sleeper) == 200
    more = await shop.sell_everywhere()
    assert await house.verdict(shop) == {**ways, "sent": ways["sent"] + len(more)}


@pytest.mark.usefixtures("two_of_each")
@pytest.mark.parametrize("server", also_on_kafka(["database"]))
async def test_a_server_dies_in_the_middle_of_a_stream_of_posts_and_comes_back(
    house: ClusterHouse, shop: Shop, server: str
) -> None:
    async def refused() -> bool:
        return shop.refused.total() > 0

    async with selling(shop):
        if server == "kafka":
            assert isinstance(house.kafka, RealKafka)
            await house.kafka.kill()
            await until(refused, PATIENCE, "a post that was not taken")
            await house.kafka.start()
        else:
            await house.postgres.stop(immediate=True)
            await shop.sell_everywhere()
            await house.postgres.start()
        await shop.sell_everywhere()
    if server == "database":
        assert not shop.refused, "ingest needs no database"
    assert await house.verdict(shop) == {"sent": len(shop.customers)}
    for worker in house.workers():
        await house.cluster.ready(worker)


async def test_an_order_within_the_hour_is_heard_before_a_reminder_that_an_outage_has_made_late(
    house: ClusterHouse, shop: Shop
) -> None:
    away = house.workers(*WORKING)
    await house.stop(away)
    buyer, waverer = shop.new_customer(), f"{shop.name}-waverer"
    for customer in (buyer, waverer):
        await shop.post(identify(customer), added(customer, f"cart-{customer}"))
    filled = await house.now()

    async def passed(time: timedelta) -> bool:
        return await house.now() > filled + time

    await until(lambda: passed(REMINDED_AFTER / 3), PATIENCE, "the customer to come back")
    await shop.post(ordered(buyer, f"order-{buyer}", f"cart-{buyer}"))
    assert not await passed(REMINDED_AFTER), "this machine is too slow to order in time"
    await until(lambda: passed(REMINDED_AFTER * 2), PATIENCE, "the reminder to be overdue")

    # One record at a time, so that no batch joins what the outage has put apart.
    await house.launch(away, RAPPORT_BATCH_RECORDS="1")

    async def reminded() -> bool:
        return len(house.mails.to(f"{waverer}@example.com")) > 0

    await until(reminded, PATIENCE, "the reminder of a cart that nobody bought")
    assert await house.verdict(shop) == {"sent": 1}
    (thanks,) = house.mails.to(f"{buyer}@example.com")
    assert "Thank you" in thanks["Subject"]
    await house.stop(away)


async def test_stopped_in_order_along_the_road_nothing_is_left_unpublished_or_unread(
    house: ClusterHouse, shop: Shop
) -> None:
    customers = await shop.sell_everywhere()
    assert await house.verdict(shop) == {"sent": len(customers)}
    await house.stop(house.workers("ingest"))
    for writer, stream, reader in (("segmenter", "customers", "journeys"), ("journeys", "messages", "mailer")):
        await house.stop(house.workers(writer))
        assert await house.unpublished(writer) == []

        await until_none(partial(house.unread, writer, stream, reader), f"unread by {reader}")
    await house.stop(house.workers("mailer"))
    assert await house.unpublished() == []
