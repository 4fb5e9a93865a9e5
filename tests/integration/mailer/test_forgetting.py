"""What becomes of messages that were over long ago: they go, but for what somebody may still ask of them."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from conftest_mailer import PostOffice

from services.mailer import page_store
from services.mailer.transport import Unknown

DAY = timedelta(days=1)


async def known(post_office: PostOffice, *ids: str) -> set[str]:
    """Those of `ids` that are kept."""
    return set(ids) & (await post_office.messages()).keys()


async def something_comes(post_office: PostOffice, after: timedelta, id: str) -> None:
    await post_office.pass_time(after)
    await post_office.ask(id)
    await post_office.settled(**{id: "sent"})


async def test_what_did_not_go_out_is_forgotten_after_ninety_days(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.ask("m1", draft=True)
    await post_office.ask("m2", address=None, customer="berit")
    await post_office.open()
    await post_office.settled(m1="skipped", m2="skipped")
    await something_comes(post_office, 89 * DAY, "m3")
    assert await known(post_office, "m1") == {"m1"}
    await something_comes(post_office, 5 * DAY, "m4")
    assert await known(post_office, "m1", "m3", "m4") == {"m3", "m4"}


async def test_what_went_out_or_may_have_is_kept_for_its_links_but_not_what_it_was_made_of(
    post_office: PostOffice,
) -> None:
    await post_office.activate()
    post_office.postbox.answers["berit@example.org"].append(Unknown("connection_lost"))
    seen = {"traits": {"first_name": "Anna"}}
    await post_office.record(msgspec.structs.replace(post_office.request("m1"), data=seen))
    await post_office.ask("m2", customer="berit")
    await post_office.open()
    await post_office.settled(m1="sent", m2="unknown")
    await something_comes(post_office, 700 * DAY, "m3")
    assert await known(post_office, "m1", "m2") == {"m1", "m2"}
    async with post_office.database.connect() as connection:
        sent = await page_store.sent_message(connection, "m1")
    assert sent is not None
    assert (sent.links, sent.address, sent.request.data) == (("https://x.example/",), "anna@example.org", {})
    await something_comes(post_office, 40 * DAY, "m4")
    assert await known(post_office, "m1", "m3") == {"m3"}


async def test_what_was_forgotten_and_is_asked_for_again_does_not_go_out(post_office: PostOffice) -> None:
    await post_office.activate()
    asked = post_office.request("m1")
    await post_office.record(asked)
    await post_office.open()
    await post_office.settled(m1="sent")
    await something_comes(post_office, 740 * DAY, "m2")
    assert await known(post_office, "m1") == set()
    await post_office.record(asked)
    assert (await post_office.settled(m1="skipped"))["m1"].reason == "expired"
    assert post_office.postbox.ids == ["m1", "m2"]


async def test_what_is_held_or_has_not_expired_is_not_forgotten(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.ask("m1", expires=300 * DAY, draft=True)
    await post_office.pause("birthday")
    await post_office.ask("m2", expires=300 * DAY, journey="birthday")
    await post_office.open()
    await post_office.settled(m1="skipped", m2="held")
    await something_comes(post_office, 200 * DAY, "m3")
    assert await known(post_office, "m1", "m2") == {"m1", "m2"}


async def test_a_few_go_at_a_time_and_more_than_come(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.record(*(post_office.request(f"m{number}", draft=True) for number in range(20)))
    await post_office.open()
    await post_office.read_up()
    await post_office.pass_time(100 * DAY)
    await post_office.ask("new-1")
    await post_office.settled(**{"new-1": "sent"})
    assert len(await post_office.messages()) == 20 - 2 + 1
    for number in range(2, 11):
        await post_office.ask(f"new-{number}")
        await post_office.settled(**{f"new-{number}": "sent"})
    assert {id.split("-")[0] for id in await post_office.messages()} == {"new"}
