"""The shipped playbook at work: what customers do reaches `rapport up` by HTTP, and the right mail arrives by SMTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import httpx
import pytest
import pytest_asyncio
from house import (
    HOUR_A_SECOND,
    READER,
    WRITE_KEY,
    House,
    a_house,
    added,
    first_order,
    identify,
    links,
    message_of,
    ordered,
    text_of,
)
from patience import until
from rudderstack.analytics.client import Client as RudderStack
from segment.analytics.client import Client as Segment

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """One town for all tests of this file; an hour passes in a second. The stories that take a day begin here."""
    async with a_house(speed=HOUR_A_SECOND) as house:
        await house.start()
        await house.post(identify("ann"), added("ann", "cart-ann"), added("ann", "cart-ann", "Bulb", 25.0))
        await house.post(identify("old"), ordered("old", "order-old"), added("old", "cart-old"))
        yield house


async def test_an_order_is_thanked_for_and_another_one_in_other_words(house: House) -> None:
    await house.post(identify("bob"), added("bob", "cart-bob"), ordered("bob", "order-bob-1", "cart-bob"))
    (thanks,) = await house.mailed("bob")
    assert message_of(thanks) == "thank-you-first"
    assert "order-bob-1" in text_of(thanks)
    assert thanks["Subject"].startswith("Thank you, Bob")
    await house.post(ordered("bob", "order-bob-2"))
    _, again = await house.mailed("bob", 2)
    assert message_of(again) == "thank-you-again"
    customer = await house.customer("bob")
    assert customer is not None
    assert customer["stage"] == "retain"
    (reminders,) = await house.enrollments("bob", "abandoned-cart")
    assert reminders["reason"] == "goal"


class Birthdays(NamedTuple):
    """Of `ear` and `lat`, on the same day, with hours between their mornings."""

    day: date
    early: ZoneInfo
    late: ZoneInfo


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def birthdays(house: House) -> Birthdays:
    """It is in the afternoon before."""
    now = await the_time(house)
    early, late = two_afternoons(now)
    day = now.astimezone(early).date() + timedelta(days=1)
    for user, zone in (("ear", early), ("lat", late)):
        await house.post(identify(user, birthday=day.replace(year=1992).isoformat(), timezone=zone.key))
    return Birthdays(day, early, late)


async def test_a_birthday_is_wished_at_nine_in_the_morning_where_the_customer_lives(
    house: House, birthdays: Birthdays
) -> None:
    day, early, late = birthdays
    for user, zone in (("ear", early), ("lat", late)):
        (mail,) = await house.mailed(user)
        assert message_of(mail) == "birthday"
        sent = await house.happened(user, "Email Sent")
        decided_for = datetime.fromisoformat(sent["properties"]["decided_for"]).astimezone(zone)
        assert (decided_for.date(), decided_for.hour, decided_for.minute) == (day, 9, 0)
        assert mail["Date"].datetime >= decided_for
    assert await the_time(house) > datetime.combine(day, datetime.min.time(), late) + timedelta(hours=9)


async def the_time(house: House) -> datetime:
    """What time it is in the house: when it received what was posted just now."""
    (asked,) = await house.post({"type": "track", "userId": "clock", "event": "Asked"})

    async def received() -> str | None:
        rows = await house.timeline("clock", "Asked")
        return next((row["received_at"] for row in rows if row["id"] == asked), None)

    return datetime.fromisoformat(await until(received, what="the clock")).astimezone(UTC)


def two_afternoons(now: datetime) -> tuple[ZoneInfo, ZoneInfo]:
    """Two zones on the same date, where it is between two and three o'clock, and two hours earlier."""
    here = [(zone, now.astimezone(zone)) for zone in (ZoneInfo(f"Etc/GMT{offset:+d}") for offset in range(-14, 13))]
    return next(
        (early, late)
        for early, local in here
        for late, later in here
        if local.hour == 14 and (later.date(), later.hour) == (local.date(), local.hour - 2)
    )


async def test_a_click_ends_the_reminders_and_lands_in_the_shop(house: House) -> None:
    await house.post(identify("cat"), added("cat", "cart-cat"))
    (mail,) = await house.mailed("cat")
    assert message_of(mail) == "cart-reminder"
    async with httpx.AsyncClient(headers=READER) as browser:
        tracked = next(link for link in links(mail) if "/c/" in link)

        async def exited() -> bool:
            # Before the mail server's yes is written down, a click is a machine's.
            answer = await browser.get(tracked)
            assert answer.status_code == 302
            assert answer.headers["location"] == "https://lamps.example/cart?id=cart-cat"
            return [one["reason"] for one in await house.enrollments("cat", "abandoned-cart")] == ["came back"]

        await until(exited, what="the exit")
    customer = await house.customer("cat")
    assert customer is not None
    assert "readers" in customer["segments"]
    assert house.mails_of("cat") == ["cart-reminder"]


async def test_one_click_unsubscribes_and_nothing_of_that_topic_follows(house: House) -> None:
    await house.post(identify("dan"), added("dan", "cart-dan"))
    (mail,) = await house.mailed("dan")
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    target = next(part.strip(" <>") for part in mail["List-Unsubscribe"].split(",") if "http" in part)

    async def consents() -> bool:
        customer = await house.customer("dan")
        assert customer is not None
        agreed: bool = customer["consent"]["cart-reminders"]
        return agreed

    async with httpx.AsyncClient() as provider:
        scanned = await provider.get(target)
        assert scanned.status_code == 200
        assert await consents(), "a GET unsubscribes nobody"
        answer = await provider.post(target, data={"List-Unsubscribe": "One-Click"})
    assert answer.status_code == 200

    async def gone() -> bool:
        return not await consents()

    await until(gone, what="the decision on the profile")
    await house.post(added("dan", "cart-dan-2"))
    skipped = await house.happened("dan", "Email Skipped")
    assert skipped["properties"]["reason"] == "unsubscribed"
    # Another topic is another matter.
    await house.post(ordered("dan", "order-dan"))
    await house.mailed("dan", 2)
    assert house.mails_of("dan") == ["cart-reminder", "thank-you-first"]


async def test_what_is_posted_twice_counts_once(house: House) -> None:
    for _ in range(3):
        await house.post(*({**event, "messageId": f"eve-{event['type']}"} for event in first_order("eve")))
    await house.post(*first_order("fay"))
    await house.mailed("eve")
    await house.mailed("fay")
    assert house.mails_of("eve") == ["thank-you-first"]
    assert len(await house.timeline("eve", "Order Completed")) == 1


@pytest.mark.parametrize("client", [Segment, RudderStack])
async def test_a_shop_with_an_official_client_is_served(house: House, client: Any) -> None:
    user = client.__module__.partition(".")[0]
    wrong: list[object] = []
    shop = client(WRITE_KEY, host=house.address, on_error=lambda error, _: wrong.append(error), upload_interval=0.05)
    shop.identify(user, identify(user)["traits"])
    shop.track(user, "Order Completed", ordered(user, f"order-{user}")["properties"])
    (mail,) = await house.mailed(user)
    shop.shutdown()
    assert wrong == []
    assert message_of(mail) == "thank-you-first"
    assert f"order-{user}" in text_of(mail)


async def test_a_forgotten_cart_is_reminded_of_twice_and_old_friends_are_spoken_to_in_other_words(house: House) -> None:
    first, _ = await house.mailed("ann", 2)
    assert house.mails_of("ann") == ["cart-reminder", "cart-last-call"]
    assert "cart-ann" in text_of(first)
    assert all(words in text_of(first) for words in ("Lamp: €50.00", "Bulb: €25.00", "Total: €75.00"))
    await house.mailed("old", 3)
    # Where an hour is a second, the first two may leave in the same moment.
    assert sorted(house.mails_of("old")[:2]) == ["cart-reminder", "thank-you-first"]
    assert house.mails_of("old")[2:] == ["cart-old-friend"]
    customer = await house.customer("ann")
    assert customer is not None
    assert customer["stage"] == "convert"

    async def completed() -> bool:
        return [one["reason"] for one in await house.enrollments("ann", "abandoned-cart")] == ["completed"]

    await until(completed, what="the end of the journey")
    assert [row["properties"]["message"] for row in await house.timeline("ann", "Email Sent")] == [
        "cart-last-call",
        "cart-reminder",
    ]
