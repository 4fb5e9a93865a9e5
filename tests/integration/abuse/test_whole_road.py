"""What is answered with 200 is read by every service down the road, whatever it says."""

from __future__ import annotations

import asyncio
from email import message_from_bytes
from http.client import HTTPConnection, HTTPMessage
from urllib.parse import urlsplit

import nasty
from conftest_abuse import Siege
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import PATIENCE

from services.ingest.refusals import REASONS
from services.mailer.links import Links

EXPECTED = {"conflicting_duplicate", *REASONS}
HEADERS = [
    "Date",
    "From",
    "To",
    "Subject",
    "Message-ID",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "Feedback-ID",
    "Auto-Submitted",
    "Content-Language",
    "MIME-Version",
    "Content-Type",
]


async def fallen(siege: Siege) -> list[tuple[str, str, str, bytes]]:
    """Dead letters of what was accepted and should not have ended there."""
    await siege.settled()
    return [letter for letter in await siege.letters() if letter[1] not in EXPECTED]


async def test_every_value_in_every_place_is_taken_by_every_service(siege: Siege) -> None:
    calls = list(nasty.everything_everywhere())
    accepted = 0
    for start in range(0, len(calls), 50):
        answer = await siege.post(calls[start : start + 50])
        assert answer.status_code == 200, answer.text
        accepted += answer.json()["accepted"]
    assert accepted > len(calls) * 0.8
    assert await fallen(siege) == []
    async with siege.house.database.connect() as connection:
        ended = await connection.fetch("SELECT status, reason FROM mailer.messages")
        mails = await connection.fetch("SELECT recipient, data FROM mailer.inbox")
    # A template that fails on its data is told to the marketer; nothing else may go wrong with a mail.
    statuses = {status for status, _ in ended}
    assert statuses == {"sent", "skipped", "failed"}
    assert {reason for status, reason in ended if status == "failed"} == {"rendering"}
    assert len(mails) > 100
    for recipient, data in mails:
        mail = message_from_bytes(data)
        assert set(mail.keys()) <= set(HEADERS)
        assert len(mail.keys()) == len(set(mail.keys()))
        assert mail["To"] == f"<{recipient}>"
        assert not mail.defects
    await every_link_leads_somewhere(siege)


async def every_link_leads_somewhere(siege: Siege) -> None:
    """Where it says, in one header, whatever a shop wrote into it."""
    links = Links(siege.house.runtime.installation.secret, f"{siege.house.address}/mailer")
    async with siege.house.database.connect() as connection:
        rows = await connection.fetch(
            "SELECT DISTINCT ON (target) id, number - 1 AS number, target"
            " FROM mailer.messages, unnest(links) WITH ORDINALITY AS link (target, number)"
        )
    assert len(rows) > 4
    for row in rows:
        status, headers = await asyncio.to_thread(_followed, links.click(row["id"], row["number"]))
        assert status == 302, row["target"]
        assert headers["location"].startswith(row["target"].partition("://")[0] + "://")
        assert "set-cookie" not in headers


def _followed(link: str) -> tuple[int, HTTPMessage]:
    """The answer's status and headers; httpx will not hand out an answer that leads to what is no address."""
    parts = urlsplit(link)
    connection = HTTPConnection(parts.netloc, timeout=PATIENCE)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        return answer.status, answer.headers
    finally:
        connection.close()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(calls=st.lists(nasty.calls, min_size=1, max_size=20))
async def test_no_accepted_event_is_poison(siege: Siege, calls: list[object]) -> None:
    answer = await siege.post(calls)
    assert answer.status_code in (200, 400, 413), answer.text
    assert await fallen(siege) == []
