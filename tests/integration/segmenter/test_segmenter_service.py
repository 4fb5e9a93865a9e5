"""The whole service on a real database: events in, customers out, and what its pages tell."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from textwrap import dedent
from typing import Any

import httpx
import msgspec
import pytest_asyncio
from patience import until
from prometheus_client import REGISTRY
from segmenter_world import at, event, identify

from services.segmenter import main as segmenter
from services.segmenter import store
from services.segmenter.forecast import forecast
from services.segmenter.main import Segmenter
from services.segmenter.rules import compile_rules
from services.segmenter.settings import SegmenterSettings
from shared.clock import ManualClock
from shared.contracts.customers import CustomerRecord, CustomerUpdated, DateReached, Invited
from shared.contracts.events import Backfill, EventRecord, Refused
from shared.contracts.streams import CUSTOMERS, EVENTS, partition_of
from shared.database.engine import Database
from shared.language import SHIPPED, load, read_folder
from shared.log.port import Entry
from shared.log.postgres import PostgresLog
from shared.processing import partitions, playbooks
from shared.processing.installation import Installation, open_installation
from shared.runtime import Runtime
from shared.security import hash_key

PARTITIONS = 2
READ_KEY = "a-key-for-reading"


@dataclass
class Shop:
    """A segmenter at work, and the hands that feed it."""

    database: Database
    log: PostgresLog
    clock: ManualClock
    installation: Installation
    service: Segmenter = field(init=False)

    def __post_init__(self) -> None:
        self.service = self.build()

    def build(self) -> Segmenter:
        settings = SegmenterSettings(read_keys=hash_key(READ_KEY), heartbeat_seconds=0.2)
        return segmenter.build(Runtime(self.log, self.clock, self.database, self.installation), settings)

    async def post(self, *records: EventRecord) -> None:
        for record in records:
            key = record.source if isinstance(record, Refused) else getattr(record, "key", "")
            entry = Entry(key, msgspec.json.encode(record))
            await self.log.append(EVENTS, partition_of(key, PARTITIONS), [entry])

    async def apply(self, **files: str) -> None:
        """Put the shipped playbook in force, with some of its files replaced."""
        content = dict(read_folder(SHIPPED))
        content |= {f"{name}.yaml": body.encode() for name, body in files.items()}
        async with self.database.connect() as connection:
            await playbooks.activate(self.log, connection, load(content), self.clock.now())

    async def told(self, key: str) -> list[CustomerRecord]:
        reader = self.log.reader(CUSTOMERS)
        partition = partition_of(key, PARTITIONS)
        reader.assign({partition: 0})
        found: list[CustomerRecord] = []
        while (fetched := await reader.fetch(partition, 1000, 0.05)).records:
            found += [msgspec.json.decode(r.value, type=CustomerRecord) for r in fetched.records if r.key == key]  # type: ignore[arg-type]
        await reader.close()
        return found

    async def updates(self, key: str, count: int) -> list[CustomerUpdated]:
        """Wait for so many updates of a customer."""

        async def enough() -> list[CustomerUpdated] | None:
            found = [record for record in await self.told(key) if isinstance(record, CustomerUpdated)]
            return found if len(found) >= count else None

        found: list[CustomerUpdated] = await until(enough)
        assert len(found) == count
        return found

    async def get(self, path: str, key: str | None = READ_KEY) -> httpx.Response:
        transport = httpx.ASGITransport(self.service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://segmenter") as client:
            return await client.get(path, headers={"Authorization": f"Bearer {key}"} if key else {})

    async def fetch(self, query: str) -> list[Any]:
        async with self.database.connect() as connection:
            return [tuple(row) for row in await connection.fetch(query)]


@pytest_asyncio.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    log = PostgresLog(database, PARTITIONS)
    await log.start()
    async with database.connect() as connection:
        installation = await open_installation(connection, PARTITIONS, 1.0)
    shop = Shop(database, log, ManualClock(at()), installation)
    await shop.service.start()
    yield shop
    await shop.service.stop()
    await log.close()


async def test_posted_events_become_a_customer_with_a_story(shop: Shop) -> None:
    await shop.apply()
    await shop.post(
        identify(at(), email="ann@example.com", country="NO"),
        event("Product Added", at(), product_id="lamp", price=49.9, currency="EUR"),
        event("Order Completed", at(), order_id="o1", total=49.9, currency="EUR"),
    )
    updates = await shop.updates("ann", 5)
    assert [u.event.name for u in updates if u.event] == [
        "",
        "Product Added",
        "Cart Updated",
        "Order Completed",
        "Cart Emptied",
    ]
    assert [u.customer.stage for u in updates] == ["attract", "convert", "convert", "retain", "retain"]

    page = (await shop.get("/v1/customers/ann")).json()
    assert (page["stage"], page["address"], page["segments"]) == ("retain", "ann@example.com", ["new-customers"])
    assert page["traits"] == {"email": "ann@example.com", "country": "NO"}
    assert page["cart"] is None
    rows = page["timeline"]["rows"]
    ordered = next(row for row in rows if row.get("name") == "Order Completed")
    assert ordered["changed"] == {"stage": "retain", "stage_before": "convert", "entered": ["new-customers"]}
    assert ordered["properties"]["order_id"] == "o1"
    assert {row["kind"] for row in rows} == {"event", "derived"}
    assert len(rows) == 5


async def test_timeline_is_read_page_by_page_without_gap_or_repetition(shop: Shop) -> None:
    await shop.post(*(event("Page Viewed", at(minutes=-(n % 3)), id=f"e{n}") for n in range(25)))
    await shop.updates("ann", 25)
    seen: list[str] = []
    place = ""
    while True:
        page = (await shop.get(f"/v1/customers/ann?limit=4{place}")).json()["timeline"]
        seen += [row["id"] for row in page["rows"]]
        if page["next"] is None:
            break
        place = f"&before={page['next']}"
    assert len(seen) == 25
    assert set(seen) == {f"e{n}" for n in range(25)}


async def test_nobody_reads_without_a_read_key_and_errors_say_what_to_do(shop: Shop) -> None:
    await shop.post(event("Page Viewed", at()))
    await shop.updates("ann", 1)
    for response, status, code in [
        (await shop.get("/v1/customers/ann", None), 401, "unauthorized"),
        (await shop.get("/v1/customers/ann", "another-key"), 403, "forbidden"),
        (await shop.get("/v1/customers/nobody"), 404, "not_found"),
        (await shop.get("/v1/customers/a%00b"), 404, "not_found"),
        (await shop.get("/v1/customers/ann?before=zzz"), 400, "invalid"),
        (await shop.get("/v1/customers/ann?before=kwGkYWJjZA"), 400, "invalid"),
        (await shop.get("/v1/customers/ann?limit=0"), 400, "invalid"),
        (await shop.get("/v1/customers/ann?limit=many"), 400, "invalid"),
    ]:
        assert response.status_code == status, response.text
        assert response.json()["code"] == code
        assert response.json()["message"]
    assert (await shop.get("/v1/customers/ann")).status_code == 200


async def test_customer_key_may_hold_slashes_and_any_letters(shop: Shop) -> None:
    await shop.post(event("Page Viewed", at(), key="a/b/ø?"))
    await shop.updates("a/b/ø?", 1)
    assert (await shop.get("/v1/customers/a/b/%C3%B8%3F")).json()["key"] == "a/b/ø?"


def moved_by_time() -> float:
    return REGISTRY.get_sample_value("rapport_segmenter_changes_total", {"cause": "time"}) or 0.0


async def test_time_alone_moves_a_customer_and_brings_a_birthday(shop: Shop) -> None:
    await shop.apply()
    await shop.post(identify(at(), birthday="1990-03-10"), event("Product Added", at(), product_id="lamp"))
    await shop.updates("ann", 3)
    counted = moved_by_time()
    shop.clock.set(at(31))
    updates = await shop.updates("ann", 4)
    assert moved_by_time() == counted + 1
    assert (updates[-1].cause, updates[-1].as_of) == ("time", at(30))
    assert (updates[-1].stage_before, updates[-1].customer.stage) == ("convert", "attract")
    (birthday,) = [record for record in await shop.told("ann") if isinstance(record, DateReached)]
    assert birthday.occasion == "2026"
    # The shop's brand lives in Oslo, an hour ahead of UTC in March.
    assert birthday.as_of == datetime.fromisoformat("2026-03-10T09:00:00+01:00")


async def test_what_is_repeated_refused_or_contradictory_is_accounted_for(shop: Shop) -> None:
    await shop.post(
        event("Page Viewed", at(), id="e1"),
        event("Page Viewed", at(), id="e1"),
        event("Page Viewed", at(), id="e2", page="a"),
        event("Page Viewed", at(), id="e2", page="b"),
        Refused(source="shop", received_at=at(), code="bad_time", message="no time.", body=b"{}"),
        event("Last", at(), id="e3"),
    )
    await shop.updates("ann", 3)

    async def both_filed() -> bool:
        return await shop.fetch("SELECT code FROM processing.dead_letters ORDER BY code") == [
            ("bad_time",),
            ("conflicting_duplicate",),
        ]

    await until(both_filed)
    async with shop.database.connect() as connection:
        assert await store.events_counted(connection) == (3, 1)
        assert await store.not_in_history(connection, ["e1", "e2", "e3", "e4"]) == ["e4"]
        assert await store.customers_by_stage(connection) == {"": 1}


async def test_applying_a_playbook_sweeps_everybody_in(shop: Shop) -> None:
    """More customers than a chunk has, none of whom does anything after the playbook is applied."""
    people = [f"c{number}" for number in range(450)]
    await shop.post(*(event("Order Completed", at(), key=key, total=600) for key in people))
    await shop.apply()

    async def all_swept() -> bool:
        return await shop.fetch("SELECT sum(swept)::int FROM segmenter.sweeps WHERE finished") == [(450,)]

    await until(all_swept)
    async with shop.database.connect() as connection:
        assert await store.customers_by_stage(connection) == {"retain": 450}
    assert await shop.fetch("SELECT partition FROM segmenter.sweeps WHERE NOT finished") == []
    (event_came, swept) = await shop.updates("c7", 2)
    assert event_came.customer.stage == ""
    assert (swept.cause, swept.customer.stage, "vip" in swept.customer.segments) == ("definition", "retain", True)

    await shop.apply(stages='stages:\n  loyal: count("Order Completed") >= 1\n  attract: true\n')
    swept = (await shop.updates("c7", 3))[-1]
    assert (swept.cause, swept.stage_before, swept.customer.stage) == ("definition", "retain", "loyal")


async def test_what_a_playbook_would_change_is_what_it_changes(shop: Shop) -> None:
    """Some conditions need counts that nobody has kept so far: they come from history, now and in earnest."""
    dice = random.Random(7)
    people = [f"c{number}" for number in range(60)]
    await shop.apply()
    posted = 0
    for key in people:
        orders = [dice.randrange(1, 400) for _ in range(dice.randrange(4))]
        days = dice.uniform(0, 60)
        posted += 1 + len(orders)
        await shop.post(
            event("Product Viewed", at(-days), key=key, category=dice.choice(["lamps", "rugs"])),
            *(event("Order Completed", at(-days), key=key, total=total, currency="EUR") for total in orders),
        )
    shipped = dict(read_folder(SHIPPED))
    edited = {
        "stages": 'stages:\n  delight: sum("Order Completed", "total") >= 400\n  attract: true\n',
        "segments": """
            segments:
              vip: {title: Best, when: 'sum("Order Completed", "total", within=365d) >= 300'}
              lamps: {title: Lamps, when: 'count("Product Viewed", where=event.category == "lamps", within=30d) >= 1'}
              both: {title: Both, when: 'in_segment("vip") and in_segment("lamps")'}
            """,
    }
    wanted = load({**shipped, **{f"{name}.yaml": text.encode() for name, text in edited.items()}})

    async def all_counted() -> bool:
        return await shop.fetch("SELECT sum(processed)::int FROM segmenter.counters") == [(posted,)]

    await until(all_counted)
    async with shop.database.connect() as connection:
        roads = {one.partition: one.as_of for one in await partitions.standings(connection, "segmenter") if one.as_of}
        expected = await forecast(connection, roads, wanted)
    await shop.apply(**edited)

    async def all_swept() -> bool:
        sweeps = await shop.fetch("SELECT DISTINCT definition, finished FROM segmenter.sweeps")
        return sweeps == [(compile_rules(wanted).definition.hash, True)]

    await until(all_swept)
    entering: Counter[str] = Counter()
    leaving: Counter[str] = Counter()
    stages: Counter[tuple[str, str]] = Counter()
    for key in people:
        for record in await shop.told(key):
            if isinstance(record, CustomerUpdated) and record.cause == "definition":
                entering.update(record.entered)
                leaving.update(record.left)
                if record.stage_before:
                    stages[record.stage_before, record.customer.stage] += 1
    assert (expected.entering, expected.leaving, expected.stages) == (entering, leaving, stages)
    assert min(entering["lamps"], entering["both"], entering["vip"], len(leaving), len(stages)) > 0
    assert expected.looked_at == 60


async def test_a_backfill_invites_each_member_once_whoever_owns_them(shop: Shop) -> None:
    journey = """
        journey: regulars
        title: For regulars
        trigger: {stage: retain}
        defaults: {topic: newsletter}
        steps: [{email: cart-old-friend}]
        """
    await shop.apply(**{"journeys/regulars": dedent(journey)})
    regulars = [f"c{number}" for number in range(30)]
    await shop.post(*(event("Order Completed", at(), key=key, total=60) for key in regulars))
    await shop.post(*(event("Page Viewed", at(), key=f"d{number}") for number in range(20)))

    async def ask(per_hour: float, when: datetime) -> None:
        backfill = Backfill(journey="regulars", occasion="one", per_hour=per_hour, received_at=when, v=2)
        for partition in range(PARTITIONS):
            await shop.log.append(EVENTS, partition, [Entry("", msgspec.json.encode(backfill))])

    async def invited() -> list[str]:
        told = [record for key in regulars for record in await shop.told(key)]
        return [record.customer.key for record in told if isinstance(record, Invited)]

    await ask(5, at())
    shop.clock.set(at(hours=1))

    async def ten() -> bool:
        return len(await invited()) >= 10

    await until(ten)
    await ask(0, at(hours=1))
    shop.clock.set(at(hours=9))
    await shop.service.stop()
    assert len(await invited()) == 10
    shop.service = shop.build()
    await shop.service.start()
    await ask(1000, at(hours=9))
    shop.clock.set(at(hours=10))

    async def all_of_them() -> bool:
        return await shop.fetch("SELECT sum(invited)::int FROM segmenter.backfills WHERE finished") == [(30,)]

    await until(all_of_them)
    assert sorted(await invited()) == sorted(regulars)
    async with shop.database.connect() as connection:
        seen = await store.last_backfill(connection, "regulars")
    assert seen is not None
    assert (seen.looked_at, seen.invited, seen.finished) == (50, 30, PARTITIONS)


async def test_owner_that_begins_anew_goes_on_where_the_last_one_stopped(shop: Shop) -> None:
    await shop.apply()
    await shop.post(event("Product Added", at(), id="e1", product_id="lamp"))
    await shop.updates("ann", 2)
    await shop.service.stop()
    shop.service = shop.build()
    await shop.service.start()
    await shop.post(event("Product Added", at(), id="e1", product_id="lamp"), event("Page Viewed", at(), id="e2"))
    updates = await shop.updates("ann", 3)
    assert updates[-1].customer.stage == "convert"
    assert updates[-1].customer.last_seen == at()
