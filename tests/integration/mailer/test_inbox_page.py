"""The local inbox: what was sent can be read, what was not says why, and a mail shown on the page can do nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest_asyncio
from fakes.memory_log import MemoryLog
from lxml import html as markup
from mailer_playbook import playbook, request
from patience import PATIENCE

from services.mailer import store
from services.mailer.api import PAGE, create
from services.mailer.doors import Doors
from services.mailer.inbox import InboxTransport
from services.mailer.links import Links
from services.mailer.mime import compose
from services.mailer.rendering import Renderer
from services.mailer.store import Change, Message
from services.mailer.transport import Accepted, Deferred, Mail, Unknown
from shared.clock import ManualClock
from shared.database.clauses import execute
from shared.database.engine import Database
from shared.processing.playbooks import PlaybookShelf

NOW = datetime(2026, 3, 2, 12, 0, 10, tzinfo=UTC)
LINKS = Links(b"k" * 32, "http://mail.example/mailer")
WITHIN = 1000.0


@dataclass
class Reader:
    """Somebody at the inbox's page, behind a prefix."""

    database: Database
    transport: InboxTransport
    http: httpx.AsyncClient

    async def deliver(self, *mails: Mail) -> list[Any]:
        by = asyncio.get_running_loop().time() + WITHIN
        return await asyncio.gather(*(self.transport.deliver(mail, by) for mail in mails))

    async def page(self, path: str) -> markup.HtmlElement:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        assert "script" not in answer.headers["content-security-policy"]
        return markup.fromstring(answer.text)


def mail(number: int = 1, address: str = "anna@example.org", **files: str) -> Mail:
    asked = request(id=f"{number:08}-52f3-5c1e-8a53-0d6f7f4f2b6e", address=address, trigger={"n": number})
    return compose(Renderer(playbook(**({"subject": "Lamp {{ trigger.n }} <b> & more"} | files)), LINKS), asked, NOW)


@pytest_asyncio.fixture
async def reader(database: Database) -> AsyncIterator[Reader]:
    clock, shelf = ManualClock(NOW), PlaybookShelf()

    async def ready() -> list[str]:
        return []

    app = create(Doors(MemoryLog(), database, clock, LINKS, shelf), database, shelf, ready, inbox=True)
    transport = InboxTransport(database, clock)
    await transport.start()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app, root_path="/mailer"), base_url="http://mail.example/mailer/"
    ) as http:
        yield Reader(database, transport, http)
    await transport.close()


async def test_a_mail_that_was_sent_can_be_read_in_every_way(reader: Reader) -> None:
    sent = mail(html="<p>Hei <a href='{{ urls.shop }}'>butikken</a> ø</p>", text="Hei i tekst ø\n")
    assert await reader.deliver(sent) == [Accepted("kept in the inbox")]
    inbox = await reader.page("inbox")
    (row,) = inbox.xpath("//a[@class='row']")
    assert "Lamp 1 <b> & more" in row.text_content()
    opened = urljoin("http://mail.example/mailer/inbox", row.get("href"))
    page = await reader.page(opened)
    (frame,) = page.xpath("//iframe")
    assert "allow-scripts" not in frame.get("sandbox")
    assert "allow-same-origin" not in frame.get("sandbox")
    shown = await reader.http.get(urljoin(opened, frame.get("src")))
    assert "Hei" in shown.text
    assert shown.headers["content-security-policy"].startswith("sandbox allow-popups")
    assert '<base target="_blank">' in shown.text
    assert "Hei i tekst ø" in (await reader.page(opened + "?view=text")).text_content()
    assert "List-Unsubscribe=One-Click" in (await reader.page(opened + "?view=headers")).text_content()
    (source,) = page.xpath("//a[@download]/@href")
    kept = await reader.http.get(urljoin(opened, source))
    assert kept.content == sent.data
    assert message_from_bytes(kept.content, policy=policy.default)["To"] == "anna@example.org"


async def test_every_link_of_the_pages_stays_under_the_prefix(reader: Reader) -> None:
    await reader.deliver(mail())
    for at in (
        "http://mail.example/mailer/inbox",
        "http://mail.example/mailer/inbox/1",
        "http://mail.example/mailer/inbox/decisions",
    ):
        for link in (await reader.page(at)).xpath("//body//@href | //@src | //@action"):
            assert urljoin(at, link).startswith("http://mail.example/mailer/inbox"), link
            assert (await reader.http.get(urljoin(at, link))).status_code == 200


async def test_the_inbox_is_turned_page_by_page_and_searched(reader: Reader) -> None:
    await reader.deliver(*(mail(n, "bo@example.org" if n == 7 else "anna@example.org") for n in range(1, PAGE + 11)))
    first = await reader.page("inbox")
    assert len(first.xpath("//a[@class='row']")) == PAGE
    assert f"Lamp {PAGE + 10} " in first.xpath("//a[@class='row']")[0].text_content()
    (older,) = first.xpath("//a[text()='Older']/@href")
    second = await reader.page(older)
    assert len(second.xpath("//a[@class='row']")) == 10
    assert not second.xpath("//a[text()='Older']")
    found = await reader.page("inbox?recipient=BO@")
    assert [row.text_content().split()[1] for row in found.xpath("//a[@class='row']")] == ["7"]
    assert "No mail fits" in (await reader.page("inbox?journey=none")).text_content()


async def test_what_was_not_sent_says_why(reader: Reader) -> None:
    async with reader.database.connect() as connection:
        for n, (status, reason, detail) in enumerate(
            [
                ("held", "quiet_hours", ""),
                ("skipped", "unsubscribed", ""),
                ("failed", "rejected", "550 5.7.1 <script>no</script>"),
                ("sent", "", "250 ok"),
            ]
        ):
            asked = request(id=f"m{n}")
            row = Message(asked.id, f"anna{n}", "requested", asked.due, request=asked)
            await execute(connection, [store.new_messages([(0, row)])])
            held = "2026-03-02T12:00:00Z quiet_hours until 2026-03-03T07:00:00Z" if status == "held" else None
            change = Change(asked.id, status, NOW + timedelta(hours=8), reason, detail, held, attempts=n)
            await execute(connection, store.changed("email", [change]))
    page = await reader.page("inbox/decisions")
    text = " ".join(page.text_content().split())
    assert "quiet hours where the customer is" in text
    assert "quiet_hours until 2026-03-03T07:00:00Z" in text
    assert "unsubscribed from this topic" in text
    assert "550 5.7.1 <script>no</script>" in text
    assert not page.xpath("//script")
    held = await reader.page("inbox/decisions?status=held&customer=anna0")
    assert len(held.xpath("//li[@class='item']")) == 1
    assert len((await reader.page("inbox/decisions?status=skipped&customer=anna0")).xpath("//li[@class='item']")) == 0


async def test_strange_questions_get_plain_answers(reader: Reader) -> None:
    for path in ("inbox/999", "inbox/999/html", "inbox/999/source", "inbox/99999999999999999999"):
        assert (await reader.http.get(path)).status_code == 404
    assert (await reader.http.get("inbox/words")).status_code == 400
    assert (await reader.http.get("inbox?before=99999999999999999999")).status_code == 400
    for path in (
        "inbox?recipient=%00%FF",
        "inbox/decisions?status=nothing&customer=%00",
        "inbox/decisions?before=2026-03-02T00:00:00",
    ):
        assert (await reader.http.get(path)).status_code == 200


async def test_a_hand_over_that_is_late_or_without_a_database_keeps_nothing(reader: Reader, database_url: str) -> None:
    assert await reader.transport.deliver(mail(), asyncio.get_running_loop().time() - 1) == Deferred("", "abandoned")
    away = Database("postgresql://nobody@127.0.0.1:1/none")
    receipt = await InboxTransport(away, ManualClock(NOW)).deliver(mail(), asyncio.get_running_loop().time() + WITHIN)
    assert isinstance(receipt, Deferred)
    assert receipt.reason == "connection"
    await away.close()
    assert "No mail yet" in (await reader.page("inbox")).text_content()


async def test_a_connection_that_ends_in_the_middle_leaves_it_unknown(reader: Reader) -> None:
    async with reader.database.transaction() as other:
        await other.execute("LOCK TABLE mailer.inbox")
        delivering = asyncio.create_task(reader.deliver(mail()))
        waits = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'mailer.inbox'::regclass"
        async with asyncio.timeout(PATIENCE):
            while (pid := await other.fetchval(waits)) is None:
                await asyncio.sleep(0)
        await other.fetchval("SELECT pg_terminate_backend($1)", pid)
        assert await delivering == [Unknown("connection_lost")]
