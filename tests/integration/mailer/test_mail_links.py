"""What happens to a person who follows a link of a mail: they arrive, nothing is undone by looking, and no is no."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest
import pytest_asyncio
from fakes.memory_log import MemoryLog
from mailer_playbook import request
from patience import PATIENCE, until

from services.mailer import page_store, store
from services.mailer.api import create
from services.mailer.consent import Decision
from services.mailer.doors import Doors
from services.mailer.links import Links
from services.mailer.store import Change, Message
from services.segmenter import fingerprints
from shared.clock import ManualClock
from shared.contracts.events import Event
from shared.contracts.streams import EVENTS, partition_of
from shared.database.clauses import execute
from shared.database.engine import Database
from shared.language import load, read_folder
from shared.processing.playbooks import PlaybookShelf, activate

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 3, 2, 12, 0, 10, tzinfo=UTC)
READER = {"User-Agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 Version/17.4"}
APPLE = {"User-Agent": "Mozilla/5.0"}
SCANNER = {"User-Agent": "Barracuda Sentinel (EE)"}
DELIVERED = NOW - timedelta(minutes=1)
ANNA = "anna@example.org"
TARGETS = (
    "https://lamps.example/?a=1&b=2",
    "https://blåbær.example/lampe/ø?q=å#ø",
    "https://[ø/å?b",
    "https://e\u2100.example/",  # a character that stands for "a/c"
)
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@dataclass
class Town:
    """A mailer's face with one mail sent to Anna, a clock that stands still, and a log that can go away."""

    database: Database
    log: MemoryLog
    clock: ManualClock
    links: Links
    doors: Doors
    http: httpx.AsyncClient
    message: str

    def events(self) -> list[Event]:
        records = self.log.records(EVENTS, partition_of("anna", self.log.partitions))
        events = [msgspec.json.decode(record.value, type=Event) for record in records if record.key]
        assert all(record.key == "anna" for record in records if record.key)
        return events

    async def consent(self) -> dict[str, bool]:
        async with self.database.connect() as connection:
            decisions = (await store.consent_of(connection, [ANNA]))[ANNA]
        return {topic: decision.subscribed for topic, decision in decisions.items()}

    async def say(self, *decisions: Decision) -> None:
        async with self.database.connect() as connection:
            await store.decide_consent(connection, ANNA, decisions)

    async def get(self, url: str) -> httpx.Response:
        return await self.http.get(url)

    async def reported(self, count: int) -> None:
        """A click in a mail of several links is reported when it is known that no other is followed at once."""

        async def told() -> bool:
            return len(self.events()) >= count

        await until(told)

    async def wait_for_the_log(self, count: int) -> None:
        async def waiting() -> bool:
            return self.log.waiting == count

        await until(waiting)

    async def choose(self, choice: str) -> httpx.Response:
        return await self.http.post(self.links.unsubscribe(self.message), data={"choice": choice})


@pytest_asyncio.fixture
async def town(database: Database) -> AsyncIterator[Town]:
    log, clock, shelf = MemoryLog(), ManualClock(NOW), PlaybookShelf()
    clock.speed = 50.0
    links = Links(b"k" * 32, "http://mail.example/mailer")
    asked = request()
    async with database.connect() as connection:
        await activate(log, connection, load(read_folder(ROOT / "playbook")), NOW)
        message = Message(asked.id, asked.customer, "requested", asked.due, request=asked)
        await execute(connection, [store.new_messages([(partition_of("anna", 12), message)])])
        in_hand = Change(asked.id, "sending", asked.due, address=ANNA, links=TARGETS)
        await execute(connection, store.changed("email", [in_hand]))
        sent = Change(asked.id, "sent", asked.due, ended_at=DELIVERED)
        await execute(connection, store.changed("email", [sent]))
    doors = Doors(log, database, clock, links, shelf, click_seconds=PATIENCE)

    async def ready() -> list[str]:
        return []

    app = create(doors, database, shelf, ready, inbox=False)
    # As behind a prefix: the root path is the mailer's place on a shared port.
    transport = httpx.ASGITransport(app, root_path="/mailer")
    async with httpx.AsyncClient(transport=transport, base_url="http://mail.example/mailer", headers=READER) as http:
        yield Town(database, log, clock, links, doors, http, asked.id)
    await doors.stop()


# Clicks.


async def test_a_click_leads_to_its_target_and_is_reported_once(town: Town) -> None:
    link = town.links.click(town.message, 0)
    for _ in range(2):
        answer = await town.get(link)
        assert answer.status_code == 302
        assert answer.headers["location"] == TARGETS[0]
        assert answer.headers["referrer-policy"] == "no-referrer"
    await town.reported(2)
    one, other = town.events()
    assert one.id == other.id  # the segmenter takes it once
    assert (one.name, one.source, one.hops) == ("Email Link Clicked", "rapport/mailer", 1)
    properties = msgspec.json.decode(one.properties)
    assert properties["message_id"] == town.message
    assert properties["link"] == TARGETS[0]
    town.clock.advance(timedelta(minutes=1))
    await town.get(link)
    await town.reported(3)
    assert town.events()[2].id != one.id


async def test_a_target_outside_ascii_can_be_followed(town: Town) -> None:
    answer = await town.get(town.links.click(town.message, 1))
    assert answer.headers["location"] == "https://xn--blbr-roah.example/lampe/%C3%B8?q=%C3%A5#%C3%B8"


@pytest.mark.parametrize(("number", "location"), [(2, "https://[%C3%B8/%C3%A5?b"), (3, "https://e%E2%84%80.example/")])
async def test_a_target_that_is_no_address_is_left_to_the_browser(town: Town, number: int, location: str) -> None:
    answer = await town.get(town.links.click(town.message, number))
    assert (answer.status_code, answer.headers["location"]) == (302, location)


async def test_a_machine_that_looks_at_a_link_clicks_nothing(town: Town) -> None:
    answer = await town.http.head(town.links.click(town.message, 0))
    assert answer.status_code == 302
    assert town.events() == []


@pytest.mark.parametrize("forge", ["last", "other_secret", "unsubscribe", "beyond", "unknown", "nonsense"])
async def test_a_link_that_is_not_ours_leads_nowhere(town: Town, forge: str) -> None:
    link = town.links.click(town.message, 0)
    forged = {
        "last": link[:-1] + ("A" if link[-1] != "A" else "B"),
        "other_secret": Links(b"x" * 32, "http://mail.example/mailer").click(town.message, 0),
        "unsubscribe": town.links.unsubscribe(town.message).replace("/u/", "/c/"),
        "beyond": town.links.click(town.message, len(TARGETS)),
        "unknown": town.links.click("00000000-52f3-5c1e-8a53-0d6f7f4f2b6e", 0),
        "nonsense": "http://mail.example/mailer/c/%F0%9F%92%A1..",
    }[forge]
    answer = await town.get(forged)
    assert answer.status_code == 404
    assert "leads nowhere" in answer.text
    assert town.events() == []


async def test_nobody_waits_for_a_log_that_is_slow_and_the_click_is_not_lost(town: Town) -> None:
    town.doors._click_seconds = 0.05
    town.log.hold()
    answer = await town.http.get(town.links.click(town.message, 0), headers=SCANNER)
    assert answer.status_code == 302
    assert town.events() == []
    town.log.resume()
    await town.reported(1)


async def test_a_click_is_reported_when_the_log_is_back(town: Town) -> None:
    town.doors._click_seconds = 0.05
    town.log.away = "gone"
    assert (await town.http.get(town.links.click(town.message, 0), headers=SCANNER)).status_code == 302
    town.log.away = None
    await town.reported(1)


async def test_who_follows_several_links_at_once_is_a_machine(town: Town) -> None:
    town.clock.speed = 0.001
    for number in (0, 1):
        assert (await town.get(town.links.click(town.message, number))).status_code == 302
    await town.doors.stop()
    assert len(town.events()) == 2
    town.clock.advance(timedelta(seconds=30))
    await town.get(town.links.click(town.message, 0))
    await town.reported(3)
    told = [msgspec.json.decode(event.properties) for event in town.events()]
    assert [one["reason"] for one in told] == ["several_links", "several_links", ""]
    # Within the minute of the machine's, and no repetition of it.
    assert len({event.id for event in town.events()}) == 3


async def test_a_mailer_that_ends_reports_at_once_the_click_that_waits_for_others(town: Town) -> None:
    town.clock.speed = 0.001
    await town.get(town.links.click(town.message, 0))
    assert town.events() == []
    await town.doors.stop()
    (click,) = town.events()
    assert msgspec.json.decode(click.properties)["machine"] is False


async def test_a_scanner_that_says_so_is_a_machine_and_proves_no_delivery(town: Town) -> None:
    async with town.database.connect() as connection:
        unknown = Change(town.message, "unknown", NOW, "interrupted", ended_at=DELIVERED)
        await execute(connection, store.changed("email", [unknown]))
    await town.http.get(town.links.click(town.message, 0), headers=SCANNER)
    (only,) = town.events()
    told = msgspec.json.decode(only.properties)
    assert (only.name, told["machine"], told["reason"]) == ("Email Link Clicked", True, "scanner")


# Opens.


async def test_an_image_that_is_fetched_is_an_open_by_a_person_or_a_machine(town: Town) -> None:
    image = town.links.open(town.message)
    for headers in (READER, READER, APPLE, SCANNER):
        answer = await town.http.get(image, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/gif"
        assert "no-store" in answer.headers["cache-control"]
        assert answer.content.startswith(b"GIF89a")
    told = [(event.name, msgspec.json.decode(event.properties)) for event in town.events()]
    assert {name for name, _ in told} == {"Email Opened"}
    assert [(said["machine"], said["reason"]) for _, said in told] == [
        (False, ""), (False, ""), (True, "apple_privacy"), (True, "scanner"),
    ]  # fmt: skip
    assert {said["message_id"] for _, said in told} == {town.message}
    # Once in a minute for each kind of opener, so that a machine's never hides a person's.
    assert len({event.id for event in town.events()}) == 3


async def test_nobody_reads_a_mail_in_the_second_that_it_arrives(town: Town) -> None:
    town.clock.advance(timedelta(seconds=-60))
    await town.http.get(town.links.open(town.message), headers=READER)
    (event,) = town.events()
    assert msgspec.json.decode(event.properties)["reason"] == "at_once"


async def test_who_only_asks_for_the_image_opens_nothing(town: Town) -> None:
    answer = await town.http.head(town.links.open(town.message), headers=READER)
    assert (answer.status_code, answer.content) == (200, b"")
    assert town.events() == []


@pytest.mark.parametrize("forge", ["last", "other_secret", "click", "unknown", "nonsense"])
async def test_an_image_that_is_not_ours_is_refused_as_a_link_is(town: Town, forge: str) -> None:
    image = town.links.open(town.message)
    forged = {
        "last": image[:-1] + ("A" if image[-1] != "A" else "B"),
        "other_secret": Links(b"x" * 32, "http://mail.example/mailer").open(town.message),
        "click": town.links.click(town.message, 0).replace("/c/", "/o/"),
        "unknown": town.links.open("00000000-52f3-5c1e-8a53-0d6f7f4f2b6e"),
        "nonsense": "http://mail.example/mailer/o/%F0%9F%92%A1..",
    }[forge]
    assert (await town.http.get(forged, headers=READER)).status_code == 404
    assert (await town.get(image.replace("/o/", "/c/"))).status_code == 404
    assert (await town.get(image.replace("/o/", "/u/"))).status_code == 404
    assert town.events() == []


@pytest.mark.parametrize(("headers", "resolves"), [(READER, True), (APPLE, True), (SCANNER, False)])
async def test_an_open_in_the_mailbox_tells_that_a_mail_has_arrived(
    town: Town, headers: dict[str, str], resolves: bool
) -> None:
    async with town.database.connect() as connection:
        unknown = Change(town.message, "unknown", NOW, "interrupted", ended_at=DELIVERED)
        await execute(connection, store.changed("email", [unknown]))
    await town.http.get(town.links.open(town.message), headers=headers)
    async with town.database.connect() as connection:
        listed = await page_store.listed(connection, town.message)
    assert listed is not None
    names = [event.name for event in town.events()]
    if resolves:
        assert (listed.status, listed.reason) == ("sent", "opened")
        assert names == ["Email Sent", "Email Opened"]
    else:
        # It may have looked before the mail server said no.
        assert (listed.status, listed.reason) == ("unknown", "interrupted")
        assert names == ["Email Opened"]


async def test_whoever_tells_that_a_mail_has_arrived_tells_the_same(town: Town) -> None:
    async with town.database.connect() as connection:
        unknown = Change(town.message, "unknown", NOW, "interrupted", ended_at=DELIVERED)
        await execute(connection, store.changed("email", [unknown]))
    town.log.hold()
    opening = asyncio.create_task(town.get(town.links.open(town.message)))
    await town.wait_for_the_log(1)
    town.clock.advance(timedelta(minutes=20))  # as by the clock of another host
    await town.get(town.links.click(town.message, 0))  # before anybody has written down that it is resolved
    await town.wait_for_the_log(2)
    town.log.resume()
    await opening
    await town.reported(4)
    one, other = (event for event in town.events() if event.name == "Email Sent")
    assert one.id == other.id
    assert fingerprints.content(one) == fingerprints.content(other)  # the segmenter takes it once
    assert one.occurred_at == other.occurred_at == DELIVERED


# Unsubscribing.


async def test_a_machine_that_asks_whether_the_page_is_there_is_told_so_and_changes_nothing(town: Town) -> None:
    link = town.links.unsubscribe(town.message)
    assert [(await town.http.head(one)).status_code for one in (link, link[:-1])] == [200, 404]
    assert town.events() == []


async def test_looking_at_the_page_changes_nothing(town: Town) -> None:
    await town.say(Decision("cart-reminders", True, NOW - timedelta(days=1), "shop"))
    answer = await town.get(town.links.unsubscribe(town.message))
    assert answer.status_code == 200
    assert "Cart reminders" in answer.text
    assert "Lamp &amp; Light" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert town.events() == []
    assert await town.consent() == {"cart-reminders": True}


@pytest.mark.parametrize("encoding", ["form", "multipart", "nothing"])
async def test_one_click_unsubscribes_before_it_is_answered(town: Town, encoding: str) -> None:
    await town.say(Decision("cart-reminders", True, NOW - timedelta(days=1), "shop"))
    link = town.links.unsubscribe(town.message)
    if encoding == "form":
        answer = await town.http.post(link, data=ONE_CLICK)
    elif encoding == "multipart":
        answer = await town.http.post(link, files={"List-Unsubscribe": (None, "One-Click")})
    else:
        answer = await town.http.post(link)
    assert answer.status_code == 200
    assert await town.consent() == {"cart-reminders": False}
    (event,) = town.events()
    assert (event.name, event.hops) == ("Topic Unsubscribed", 0)
    assert msgspec.json.decode(event.properties)["topic"] == "cart-reminders"
    assert event.occurred_at == NOW


async def test_asking_twice_says_it_once(town: Town) -> None:
    for _ in range(3):
        assert (await town.choose("topic")).status_code == 200
    assert len(town.events()) == 1


async def test_a_click_sent_twice_at_the_same_time_is_one_event(town: Town) -> None:
    town.log.hold()
    answers = [asyncio.create_task(town.choose("topic")) for _ in range(2)]
    while town.log.waiting < 2:
        await asyncio.sleep(0)
    town.log.resume()
    assert [(await answer).status_code for answer in answers] == [200, 200]
    assert len({event.id for event in town.events()}) == 1


async def test_a_mistake_is_undone_and_no_is_no_again_within_the_minute(town: Town) -> None:
    await town.choose("topic")
    town.clock.advance(timedelta(seconds=5))
    undone = await town.choose("undo-topic")
    assert "Welcome back" in undone.text
    assert await town.consent() == {"cart-reminders": True}
    town.clock.advance(timedelta(seconds=5))
    await town.choose("topic")
    assert await town.consent() == {"cart-reminders": False}
    assert [event.name for event in town.events()] == ["Topic Unsubscribed", "Topic Subscribed", "Topic Unsubscribed"]
    assert len({event.id for event in town.events()}) == 3


async def test_undoing_everything_brings_back_what_was_wanted_and_no_more(town: Town) -> None:
    await town.say(
        Decision("cart-reminders", True, NOW - timedelta(days=2), "shop"),
        Decision("newsletter", False, NOW - timedelta(days=1), "shop"),
    )
    await town.choose("everything")
    assert await town.consent() == {"cart-reminders": True, "newsletter": False, "*": False}
    town.clock.advance(timedelta(seconds=5))
    await town.choose("undo-everything")
    assert await town.consent() == {"cart-reminders": True, "newsletter": False, "*": False}
    (event,) = town.events()[1:]
    assert msgspec.json.decode(event.properties)["topic"] == "cart-reminders"
    town.clock.advance(timedelta(seconds=5))
    # Said again, it is a new word: the topic that came back goes again.
    await town.choose("everything")
    assert town.events()[2].name == "Topic Unsubscribed"


async def test_nothing_is_acknowledged_while_the_log_is_away(town: Town) -> None:
    town.log.away = "gone"
    answer = await town.choose("topic")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert "Nothing has been changed" in answer.text
    assert await town.consent() == {}
    town.log.away = None
    assert (await town.choose("topic")).status_code == 200


async def test_a_forged_unsubscribe_link_changes_nothing(town: Town) -> None:
    link = town.links.unsubscribe(town.message)
    for url in (link[:-2] + "zz", town.links.click(town.message, 0).replace("/c/", "/u/")):
        assert (await town.http.post(url, data=ONE_CLICK)).status_code == 404
    assert town.events() == []


async def test_a_body_without_end_is_not_read_to_its_end(town: Town) -> None:
    answer = await town.http.post(town.links.unsubscribe(town.message), content=b"choice=" + b"x" * 1_000_000)
    assert answer.status_code == 200
    assert await town.consent() == {"cart-reminders": False}


async def test_a_click_tells_that_a_mail_of_which_it_was_not_known_has_arrived(town: Town) -> None:
    async with town.database.connect() as connection:
        unknown = Change(town.message, "unknown", NOW, "interrupted", ended_at=DELIVERED)
        await execute(connection, store.changed("email", [unknown]))
    for clicks in (1, 2):
        await town.get(town.links.click(town.message, 0))
        await town.reported(1 + clicks)
        town.clock.advance(timedelta(minutes=1))
    assert [event.name for event in town.events()] == ["Email Sent", "Email Link Clicked", "Email Link Clicked"]
    properties = msgspec.json.decode(town.events()[0].properties)
    assert (properties["message_id"], properties["reason"]) == (town.message, "used")
    async with town.database.connect() as connection:
        listed = await page_store.listed(connection, town.message)
    assert listed is not None
    assert (listed.status, listed.reason) == ("sent", "clicked")


async def test_who_only_looks_at_a_link_tells_nothing_of_its_mail(town: Town) -> None:
    async with town.database.connect() as connection:
        await execute(connection, store.changed("email", [Change(town.message, "unknown", NOW)]))
    await town.http.head(town.links.click(town.message, 0))
    await town.get(town.links.unsubscribe(town.message))
    assert town.events() == []
