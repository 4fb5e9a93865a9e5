"""The mailer as it is built: a request on the road becomes a mail that can be read, and its links work."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage

import httpx
import msgspec
import pytest
import pytest_asyncio
from conftest_mailer import PARTITIONS
from patience import until

from services.mailer import main, page_store, store
from services.mailer.settings import MailerSettings
from shared.clock import ManualClock
from shared.contracts import streams
from shared.contracts.customers import Activation, ConsentDecision
from shared.contracts.messages import ConsentChanged, MessageRequested
from shared.contracts.streams import partition_of
from shared.database.engine import Database
from shared.errors import RapportError
from shared.language import SHIPPED, load, read_folder
from shared.log import postgres
from shared.log.port import Entry
from shared.processing import playbooks
from shared.processing.installation import open_installation
from shared.runtime import Runtime

MORNING = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
PUBLIC = "http://mail.example/mailer"


class Shop:
    def __init__(self, database: Database, log: postgres.PostgresLog, service: main.Mailer) -> None:
        self.database, self.log, self.service = database, log, service
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://mail.example")

    async def asks_for(self, id: str) -> None:
        request = MessageRequested(
            as_of=MORNING,
            id=id,
            customer="anna",
            address="anna@example.org",
            message="cart-reminder",
            topic="cart-reminders",
            journey="abandoned-cart",
            enrollment="e1",
            step="cart-reminder",
            due=MORNING,
            expires=MORNING + timedelta(hours=72),
            data={
                "customer": {"key": "anna", "stage": "convert", "segments": []},
                "traits": {"first_name": "Anna"},
                "trigger": {
                    "cart_id": "c1",
                    "total": 99.5,
                    "currency": "EUR",
                    "products": [{"name": "Lamp", "price": 99.5, "quantity": 1}],
                },
                "key": "c1",
                "with": {},
            },
        )
        await self.log.append(
            streams.MESSAGES, partition_of("anna", PARTITIONS), [Entry("anna", msgspec.json.encode(request))]
        )

    async def ended(self, id: str) -> store.Listed:
        async def found() -> store.Listed | None:
            async with self.database.connect() as connection:
                listed = await page_store.listed(connection, id)
            return listed if listed is not None and listed.ended_at is not None else None

        listed: store.Listed = await until(found)
        return listed


@pytest_asyncio.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    log = postgres.PostgresLog(database, PARTITIONS)
    await log.start()
    async with database.connect() as connection:
        installation = await open_installation(connection, PARTITIONS, 1.0)
        clock = ManualClock(MORNING)
        playbook = load(read_folder(SHIPPED))
        await playbooks.activate(log, connection, playbook, MORNING)
    # What segmenter and journeys would pass on.
    yes = ConsentDecision(topic="cart-reminders", subscribed=True, decided_at=MORNING, source="checkout")
    for record in (
        Activation(as_of=MORNING, playbook=playbook.hash),
        ConsentChanged(as_of=MORNING, customer="anna", address="anna@example.org", decisions=(yes,)),
    ):
        entry = Entry("anna", msgspec.json.encode(record))
        await log.append(streams.MESSAGES, partition_of("anna", PARTITIONS), [entry])
    settings = MailerSettings(mailer_public_url=PUBLIC, heartbeat_seconds=0.1)
    service = main.build(Runtime(log, clock, database, installation), settings)
    await service.start()
    shop = Shop(database, log, service)
    yield shop
    await shop.http.aclose()
    await service.stop()
    await log.close()


async def test_a_mail_of_the_shipped_playbook_is_kept_and_its_unsubscribe_link_is_obeyed(shop: Shop) -> None:
    assert await shop.service.ready() == []
    await shop.asks_for("5b1c0f6e-52f3-5c1e-8a53-0d6f7f4f2b6e")
    sent = await shop.ended("5b1c0f6e-52f3-5c1e-8a53-0d6f7f4f2b6e")
    assert sent.status == "sent", sent
    async with shop.database.connect() as connection:
        kept = (await page_store.inbox(connection, limit=10))[0]
        whole = await page_store.inbox_mail(connection, kept.number)
    assert whole is not None
    mail = message_from_bytes(whole.data, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    assert mail["To"] == "anna@example.org"

    link = re.fullmatch(r"<(.*)>", mail["List-Unsubscribe"])
    assert link is not None
    path = urllib.parse.urlsplit(link[1]).path.removeprefix("/mailer")
    assert (await shop.http.get(path)).status_code == 200
    answer = await shop.http.post(path, content="List-Unsubscribe=One-Click")
    assert answer.status_code == 200
    await shop.asks_for("6b1c0f6e-52f3-5c1e-8a53-0d6f7f4f2b6e")
    skipped = await shop.ended("6b1c0f6e-52f3-5c1e-8a53-0d6f7f4f2b6e")
    assert (skipped.status, skipped.reason) == ("skipped", "unsubscribed")


async def test_a_click_leads_to_the_target_that_was_kept(shop: Shop) -> None:
    await shop.asks_for("5b1c0f6e-52f3-5c1e-8a53-0d6f7f4f2b6e")
    await shop.ended("5b1c0f6e-52f3-5c1e-8a53-0d6f7f4f2b6e")
    async with shop.database.connect() as connection:
        message = await page_store.sent_message(connection, "5b1c0f6e-52f3-5c1e-8a53-0d6f7f4f2b6e")
        kept = (await page_store.inbox(connection, limit=10))[0]
        whole = await page_store.inbox_mail(connection, kept.number)
    assert message is not None
    assert whole is not None
    mail = message_from_bytes(whole.data, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    body = mail.get_body(("html",))
    assert body is not None
    path = re.search(PUBLIC + r"(/c/[\w-]+)", body.get_content())
    assert path is not None
    answer = await shop.http.get(path[1])
    assert answer.status_code == 302
    assert answer.headers["Location"] in message.links


def test_without_a_database_it_says_so(database: Database) -> None:
    log = postgres.PostgresLog(database, PARTITIONS)
    with pytest.raises(RapportError, match="DATABASE_URL"):
        main.build(Runtime(log, ManualClock(MORNING)), MailerSettings())
