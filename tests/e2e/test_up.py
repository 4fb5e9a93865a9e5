"""`rapport up`: from a posted event to a delivered mail, once, whatever dies on the way."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from house import HOUR_A_SECOND, House, MailServer, NewHouse, added, identify, links, ordered, track, until


def subjects(mails: MailServer, user: str) -> list[str]:
    return [str(mail["Subject"]) for mail in mails.to(f"{user}@example.com")]


async def some_mails(mails: MailServer, user: str, count: int) -> list[str]:
    async def arrived() -> bool:
        return len(mails.to(f"{user}@example.com")) >= count

    await until(arrived, what=f"{count} mails to {user}")
    return subjects(mails, user)


def thanks_flow(user: str) -> list[dict[str, Any]]:
    """A customer and an order: one mail is due two hours later, and no other."""
    return [identify(user), ordered(user, f"order-{user}")]


async def test_a_forgotten_cart_is_reminded_of_and_a_first_order_is_thanked_for(
    new_house: NewHouse, mails: MailServer
) -> None:
    house = await new_house(speed=HOUR_A_SECOND)
    await house.post(identify("ann"), added("ann", "cart-1"), added("ann", "cart-1", 25.0))
    await house.post(identify("bob"), added("bob", "cart-2"), ordered("bob", "order-2", "cart-2"))
    await some_mails(mails, "ann", 2)
    (thanks,) = await some_mails(mails, "bob", 1)
    assert "Thank you" in thanks
    ann = await house.customer("ann")
    bob = await house.customer("bob")
    assert ann is not None
    assert bob is not None
    assert ann["stage"] == "convert"
    assert bob["stage"] == "retain"
    body = mails.to("ann@example.com")[0].get_body(("plain",))
    assert body is not None
    assert "cart-1" in body.get_content()


async def test_a_click_ends_the_reminders_and_lands_in_the_shop(new_house: NewHouse, mails: MailServer) -> None:
    house = await new_house(speed=HOUR_A_SECOND)
    await house.post(identify("ann"), added("ann", "cart-1"))
    await some_mails(mails, "ann", 1)
    (mail,) = mails.to("ann@example.com")
    async with httpx.AsyncClient() as browser:
        click = next(link for link in links(mail) if "/c/" in link)
        answer = await browser.get(click)
    assert answer.status_code == 302
    assert answer.headers["location"].startswith("https://lamps.example/cart")

    async def exited() -> bool:
        response = await house.http.get(
            "/journeys/v1/customers/ann/enrollments", headers={"Authorization": f"Bearer {house.read_key}"}
        )
        return any(one["reason"] == "came back" for one in response.json()["enrollments"])

    await until(exited, what="the exit")
    assert len(mails.to("ann@example.com")) == 1


async def test_one_click_unsubscribes_and_nothing_of_that_topic_follows(new_house: NewHouse, mails: MailServer) -> None:
    house = await new_house(speed=HOUR_A_SECOND)
    await house.post(identify("ann"), added("ann", "cart-1"))
    await some_mails(mails, "ann", 1)
    (mail,) = mails.to("ann@example.com")
    target = mail["List-Unsubscribe"].strip("<>").split(">")[0]
    async with httpx.AsyncClient() as provider:
        page = await provider.get(target)
        assert page.status_code == 200
        assert (await house.customer("ann") or {})["consent"]["cart-reminders"] is True
        answer = await provider.post(target, data={"List-Unsubscribe": "One-Click"})
    assert answer.status_code == 200

    async def gone() -> bool:
        return (await house.customer("ann") or {})["consent"]["cart-reminders"] is False

    await until(gone, what="the decision on the profile")
    await house.post(identify("bob"), added("ann", "cart-9"), added("bob", "cart-8"))
    await some_mails(mails, "bob", 2)
    assert len(mails.to("ann@example.com")) == 1


@pytest.mark.parametrize(
    "point",
    [
        "segmenter.before_commit",
        "segmenter.after_commit",
        "journeys.before_commit",
        "journeys.after_commit",
        "mailer.before_commit",
        "mailer.after_commit",
    ],
)
async def test_killed_at_a_batch_the_mail_comes_once(new_house: NewHouse, mails: MailServer, point: str) -> None:
    house = await new_house(speed=HOUR_A_SECOND)
    await house.process.stop()
    posted = await started_and_killed(house, point)
    await house.start()
    posted += await house.post(*thanks_flow("bob"))
    await some_mails(mails, "bob", 1)
    await some_mails(mails, "ann", 1)
    assert len(mails.to("ann@example.com")) == 1
    assert len(mails.to("bob@example.com")) == 1
    await all_in_the_timeline(house, "ann", {"Order Completed"})


async def started_and_killed(house: House, point: str) -> list[str]:
    """Start with the fault armed for the third time that its point is reached, post, and see the process die there."""
    await house.process.start(RAPPORT_FAULT=f"{point}:3")
    posting = asyncio.create_task(house.post(*thanks_flow("ann")))
    assert await house.process.ended() == -signal.SIGKILL
    assert house.proof.read_text().split() == [point]
    await house.start()
    posted = await posting
    await house.process.kill()
    return posted


async def all_in_the_timeline(house: House, user: str, names: set[str]) -> None:
    customer = await house.customer(user)
    assert customer is not None
    told = [entry["event"] for entry in customer["timeline"] if entry.get("event") in names]
    assert sorted(told) == sorted(names)


@pytest.mark.parametrize(("point", "sent"), [("mailer.sending", 0), ("mailer.data_sent", 1)])
async def test_killed_in_a_hand_over_the_message_is_unknown_and_never_sent_again(
    new_house: NewHouse, mails: MailServer, point: str, sent: int
) -> None:
    house = await new_house(speed=HOUR_A_SECOND, RAPPORT_FAULT=point)
    await house.post(*thanks_flow("ann"))
    assert await house.process.ended() == -signal.SIGKILL
    assert house.proof.read_text().split() == [point]
    await house.start()

    async def unknown() -> bool:
        customer = await house.customer("ann")
        return customer is not None and any(e.get("event") == "Email Unknown" for e in customer["timeline"])

    await until(unknown, what="the outcome")
    await house.post(*thanks_flow("bob"))
    await some_mails(mails, "bob", 1)
    assert len(mails.to("ann@example.com")) <= sent


async def test_killed_at_any_time_everything_accepted_is_there_once(new_house: NewHouse, mails: MailServer) -> None:
    house = await new_house(speed=HOUR_A_SECOND)
    users = [f"user{n}" for n in range(20)]
    for n, user in enumerate(users):
        await house.post(*thanks_flow(user))
        if n % 5 == 4:
            await house.process.kill()
            await house.start()
    for user in users:
        await some_mails(mails, user, 1)
    assert [len(mails.to(f"{user}@example.com")) for user in users] == [1] * len(users)


async def test_what_is_posted_twice_counts_once(new_house: NewHouse, mails: MailServer) -> None:
    house = await new_house(speed=HOUR_A_SECOND)
    events = thanks_flow("ann")
    await house.post(*events)
    await house.post(*events)
    await house.post(*events)
    await house.post(*thanks_flow("bob"))
    await some_mails(mails, "bob", 1)
    await some_mails(mails, "ann", 1)
    customer = await house.customer("ann")
    assert customer is not None
    assert [e["event"] for e in customer["timeline"] if e.get("event") == "Order Completed"] == ["Order Completed"]
    assert len(mails.to("ann@example.com")) == 1


async def test_a_bad_playbook_is_refused_while_running_and_a_good_one_is_taken(
    new_house: NewHouse, mails: MailServer, playbook: Path
) -> None:
    house = await new_house(speed=HOUR_A_SECOND)
    subject = playbook / "messages/thank-you-first/subject.txt"
    good = subject.read_text()
    journey = playbook / "journeys/thank-you.yaml"
    text = journey.read_text()
    journey.write_text(text.replace("email: thank-you-first", "emial: thank-you-first"))

    async def told() -> bool:
        return 'Did you mean \\"email\\"?' in house.process.output

    await until(told, what="the complaint")
    await house.post(*thanks_flow("ann"))
    await some_mails(mails, "ann", 1)
    journey.write_text(text)
    subject.write_text("A thousand thanks\n")

    async def applied() -> bool:
        return "playbook applied" in house.process.output

    await until(applied, what="the new playbook")
    await house.post(*thanks_flow("bob"))
    assert await some_mails(mails, "bob", 1) == ["A thousand thanks"]
    assert good.strip() not in subjects(mails, "bob")


async def test_an_order_before_the_reminder_was_due_wins_after_an_outage(
    new_house: NewHouse, mails: MailServer
) -> None:
    """The cart is filled, Rapport dies, the order is made within the hour and posted after it: no reminder goes out."""
    house = await new_house(speed=HOUR_A_SECOND / 60)
    await house.post(identify("ann"), added("ann", "cart-1"))

    async def enrolled() -> bool:
        response = await house.http.get(
            "/journeys/v1/customers/ann/enrollments", headers={"Authorization": f"Bearer {house.read_key}"}
        )
        return response.status_code == 200 and len(response.json()["enrollments"]) == 1

    await until(enrolled, what="the enrollment")
    await house.process.kill()
    # Ingest alone keeps taking events while the rest is away; here the log gets the order before anything else runs.
    house.process.environment = {**house.process.environment, "RAPPORT_CLOCK_SPEED": str(HOUR_A_SECOND)}
    await house.start()
    await house.post(track("ann", "Order Completed", order_id="order-1", cart_id="cart-1", total=50.0))
    await house.post(identify("bob"), added("bob", "cart-2"))
    await some_mails(mails, "bob", 1)
    await some_mails(mails, "ann", 1)
    assert all("cart" not in subject.lower() and "lamps are still" not in subject for subject in subjects(mails, "ann"))


async def test_stopping_in_order_leaves_no_unknown_mail(new_house: NewHouse, mails: MailServer) -> None:
    house = await new_house(speed=HOUR_A_SECOND)
    users = [f"user{n}" for n in range(30)]
    await house.post(*[event for user in users for event in thanks_flow(user)])
    await some_mails(mails, users[0], 1)
    assert await house.process.stop() == 0
    await house.start()
    for user in users:
        await some_mails(mails, user, 1)
        customer = await house.customer(user)
        assert customer is not None
        assert not any(e.get("event") == "Email Unknown" for e in customer["timeline"])
    assert len(mails.mails) == len(users)


async def test_a_second_process_over_the_same_data_is_refused(new_house: NewHouse) -> None:
    house = await new_house()
    other = House(house.folder, house.mails, Path(house.process.arguments[6]))
    other.process.name = "other"
    await other.process.start()
    assert await other.process.ended() == 1
    assert "is in use by another Rapport" in other.process.output
    await other.close()
