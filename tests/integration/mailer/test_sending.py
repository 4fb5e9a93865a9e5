"""From a request on the road to its outcome: every way that a message can take."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from conftest_mailer import NOON, PARTITIONS, PostOffice
from patience import until
from structlog.testing import capture_logs

from services.mailer import page_store, store
from services.mailer.transport import Deferred, Rejected, Unknown
from shared.contracts.messages import ConsentChanged
from shared.contracts.streams import MESSAGES, partition_of
from shared.language.playbook import Cap
from shared.log.port import Entry

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
EVENING = datetime(2026, 3, 2, 21, 30, tzinfo=UTC)  # 22:30 in Oslo
MORNING = datetime(2026, 3, 3, 7, 0, tzinfo=UTC)  # 08:00 in Oslo


def stamp(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


async def until_held_for(post_office: PostOffice, id: str, reason: str) -> store.Listed:
    async def held() -> store.Listed | None:
        message = (await post_office.messages())[id]
        return message if (message.status, message.reason) == ("held", reason) else None

    found: store.Listed = await until(held)
    return found


async def test_a_message_that_is_due_is_handed_over_once_and_reported(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.ask("m1")
    await post_office.open()
    sent = (await post_office.settled(m1="sent"))["m1"]
    assert (sent.address, sent.detail, sent.attempts) == ("anna@example.org", "250 ok", 1)
    assert await post_office.told("m1") == [("Email Sent", "", stamp(NOON))]
    async with post_office.database.connect() as connection:
        found = await page_store.sent_message(connection, "m1")
    assert found is not None
    assert found.links == ("https://x.example/",)


async def test_the_same_request_again_is_no_second_mail(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.ask("m1", "m1")
    await post_office.open()
    await post_office.settled(m1="sent")
    await post_office.ask("m1")
    await post_office.read_up()
    assert post_office.postbox.ids == ["m1"]


async def test_a_mail_at_night_waits_for_the_morning_and_stands_for_it(post_office: PostOffice) -> None:
    post_office.clock.set(EVENING)
    await post_office.activate()
    await post_office.ask("m1")
    await post_office.open()
    held = (await post_office.settled(m1="held"))["m1"]
    assert (held.reason, held.due) == ("quiet_hours", MORNING)
    # The next tick comes a little late, as ticks do; the mail still stands for eight o'clock.
    await post_office.pass_time(MORNING - EVENING + timedelta(seconds=20))
    sent = (await post_office.settled(m1="sent"))["m1"]
    assert sent.held == [f"{stamp(EVENING)} quiet_hours until {stamp(MORNING)} @{post_office.shelf.playbook.hash[:12]}"]
    assert await post_office.told("m1") == [("Email Sent", "", stamp(MORNING))]


async def test_a_mail_that_was_due_before_an_outage_is_not_sent_in_the_night_after_it(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.ask("m1")
    post_office.clock.set(EVENING)
    await post_office.open()
    assert (await post_office.settled(m1="held"))["m1"].due == MORNING


async def test_a_hold_that_outlives_the_message_is_skipped_for_its_reason(post_office: PostOffice) -> None:
    post_office.clock.set(EVENING)
    await post_office.activate()
    await post_office.ask("m1", expires=2 * HOUR)
    await post_office.open()
    await post_office.settled(m1="held")
    await post_office.pass_time(2 * HOUR)
    await post_office.settled(m1="skipped")
    assert await post_office.told("m1") == [("Email Skipped", "quiet_hours", stamp(EVENING + 2 * HOUR))]
    assert post_office.postbox.mails == []


async def test_a_message_that_is_cancelled_while_it_is_held_is_skipped_at_once(post_office: PostOffice) -> None:
    post_office.clock.set(EVENING)
    await post_office.activate()
    await post_office.ask("m1")
    await post_office.open()
    await post_office.settled(m1="held")
    await post_office.cancel("m1", "goal")
    await post_office.settled(m1="skipped")
    assert await post_office.told("m1") == [("Email Skipped", "goal", stamp(EVENING))]
    await post_office.pass_time(DAY)
    await post_office.read_up()
    assert post_office.postbox.mails == []


async def test_request_and_cancellation_in_one_backlog_send_nothing(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.ask("m1")
    await post_office.cancel("m1", "goal")
    await post_office.open()
    await post_office.settled(m1="skipped")
    assert post_office.postbox.mails == []


async def test_a_cancellation_comes_too_late_for_what_is_in_hand_unless_it_fails(post_office: PostOffice) -> None:
    await post_office.activate()
    post_office.postbox.open.clear()
    post_office.postbox.answers["berit@example.org"].append(Deferred("451 later", "greylisted"))
    await post_office.ask("m1")
    await post_office.ask("m2", customer="berit")
    await post_office.open()
    await post_office.settled(m1="sending", m2="sending")
    await post_office.cancel("m1", "goal")
    await post_office.cancel("m2", "goal", customer="berit")

    async def both_noted() -> bool:
        async with post_office.database.connect() as connection:
            return len(await store.cancelled_of(connection, ["m1", "m2"])) == 2

    await until(both_noted)
    post_office.postbox.open.set()
    await post_office.settled(m1="sent", m2="skipped")
    assert (await post_office.told("m2"))[0][:2] == ("Email Skipped", "goal")


async def test_what_is_not_due_yet_waits_for_its_time(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.ask("m1", due=NOON + HOUR)
    await post_office.open()
    assert (await post_office.settled(m1="held"))["m1"].reason == "not_due"
    await post_office.pass_time(HOUR)
    await post_office.settled(m1="sent")
    assert await post_office.told("m1") == [("Email Sent", "", stamp(NOON + HOUR))]


async def test_a_cap_holds_the_second_mail_and_lets_the_more_important_one_go_first(post_office: PostOffice) -> None:
    post_office.caps(Cap(1, DAY))
    await post_office.activate()
    await post_office.ask("m1")
    await post_office.open()
    await post_office.settled(m1="sent")
    await post_office.pass_time(HOUR)
    await post_office.ask("m2", priority=40)
    await post_office.ask("m3", priority=60)
    held = await post_office.settled(m2="held", m3="held")
    assert {(held[id].reason, held[id].due) for id in ("m2", "m3")} == {("cap", NOON + DAY)}
    await post_office.pass_time(23 * HOUR)
    after = await post_office.settled(m3="sent", m2="held")
    assert after["m2"].due == NOON + 2 * DAY


async def test_two_mails_of_one_moment_do_not_slip_through_one_cap(post_office: PostOffice) -> None:
    post_office.caps(Cap(1, DAY))
    await post_office.activate()
    await post_office.ask("m1", "m2", "m3")
    await post_office.open()
    await post_office.read_up()
    assert len(post_office.postbox.mails) == 1


async def test_receipts_ignore_the_cap_and_do_not_use_it_up(post_office: PostOffice) -> None:
    post_office.caps(Cap(1, DAY))
    await post_office.activate()
    await post_office.ask("r1", "r2", topic="receipts")
    await post_office.ask("m1")
    await post_office.open()
    await post_office.settled(r1="sent", r2="sent", m1="sent")


async def test_what_a_server_defers_is_tried_again_and_does_not_count_meanwhile(post_office: PostOffice) -> None:
    post_office.caps(Cap(1, DAY))
    await post_office.activate()
    post_office.postbox.answers["anna@example.org"].append(Deferred("451 4.7.1 later", "greylisted"))
    await post_office.ask("m1")
    await post_office.open()
    held = (await post_office.settled(m1="held"))["m1"]
    assert (held.reason, held.detail) == ("greylisted", "451 4.7.1 later")
    assert NOON + timedelta(seconds=45) <= held.due <= NOON + timedelta(seconds=75)
    await post_office.ask("m2")
    await post_office.settled(m2="sent")
    await post_office.pass_time(timedelta(minutes=2))

    async def held_anew() -> bool:
        return (await post_office.messages())["m1"].reason == "cap"

    await until(held_anew)
    assert len(post_office.postbox.mails) == 2


async def test_retries_end_with_the_message(post_office: PostOffice) -> None:
    await post_office.activate()
    post_office.postbox.answers["anna@example.org"].extend([Deferred("451 later", "greylisted")] * 9)
    await post_office.ask("m1", expires=timedelta(minutes=5))
    await post_office.open()
    for attempt in range(1, 9):

        async def tried(attempt: int = attempt) -> store.Listed | None:
            message = (await post_office.messages()).get("m1")
            tried = message is not None and message.attempts == attempt and message.status in ("held", "failed")
            return message if tried else None

        message = await until(tried)
        if message.status == "failed":
            break
        await post_office.pass_time(message.due - post_office.clock.now())
    failed = (await post_office.settled(m1="failed"))["m1"]
    assert (failed.reason, failed.detail) == ("retries_ran_out", "451 later")
    assert (await post_office.told("m1")) == [("Email Failed", "retries_ran_out", stamp(NOON + timedelta(minutes=5)))]


async def test_an_address_that_does_not_exist_is_never_written_to_again(post_office: PostOffice) -> None:
    await post_office.activate()
    post_office.postbox.answers["anna@example.org"].append(Rejected("550 5.1.1 no such user", True))
    await post_office.ask("m1")
    await post_office.open()
    assert (await post_office.settled(m1="failed"))["m1"].reason == "no_such_address"
    await post_office.ask("m2")
    await post_office.ask("m3", topic="receipts")
    await post_office.settled(m2="skipped", m3="skipped")
    assert (await post_office.told("m2"))[0][:2] == ("Email Skipped", "suppressed")


async def test_a_refusal_of_one_mail_says_nothing_about_the_address(post_office: PostOffice) -> None:
    await post_office.activate()
    post_office.postbox.answers["anna@example.org"].append(Rejected("554 5.7.1 no", False))
    await post_office.ask("m1")
    await post_office.open()
    await post_office.settled(m1="failed")
    await post_office.ask("m2")
    await post_office.settled(m2="sent")


async def test_a_lost_answer_is_unknown_and_not_sent_again(post_office: PostOffice) -> None:
    await post_office.activate()
    post_office.postbox.answers["anna@example.org"].append(Unknown("connection_lost"))
    await post_office.ask("m1")
    with capture_logs() as logged:
        await post_office.open()
        await post_office.settled(m1="unknown")
        await post_office.pass_time(DAY)
        await post_office.read_up()
    told = [(line["count"], line["messages"], line["reasons"]) for line in logged if line["event"] == "mails unknown"]
    assert told == [(1, ["m1"], ["connection_lost"])]
    assert post_office.postbox.ids == ["m1"]
    assert (await post_office.told("m1"))[0][:2] == ("Email Unknown", "connection_lost")


async def test_a_template_that_fails_fails_its_message_and_no_other(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.ask("m1", message="broken")
    await post_office.ask("m2")
    await post_office.open()
    failed = (await post_office.settled(m1="failed", m2="sent"))["m1"]
    assert (failed.reason, failed.detail) == ("rendering", "messages/broken/body.html:3: no such filter.")


async def test_customer_without_an_address_is_skipped(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.ask("m1", address=None)
    await post_office.ask("m2", customer="berit", address="not an address")
    await post_office.open()
    await post_office.settled(m1="skipped", m2="skipped")
    assert (await post_office.told("m1"))[0][:2] == ("Email Skipped", "no_address")
    assert (await post_office.told("m2"))[0][:2] == ("Email Skipped", "invalid_address")


async def test_a_draft_sends_nothing(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.ask("m1", draft=True)
    await post_office.open()
    assert (await post_office.settled(m1="skipped"))["m1"].reason == "draft"


async def test_without_a_playbook_everything_is_held_until_there_is_one(post_office: PostOffice) -> None:
    await post_office.ask("m1")
    await post_office.ask("m2", customer="berit", expires=HOUR)
    await post_office.open()
    assert (await post_office.settled(m1="held", m2="held"))["m1"].reason == "no_playbook"
    await post_office.pass_time(HOUR)
    assert (await post_office.settled(m2="skipped", m1="held"))["m2"].reason == "no_playbook"
    await post_office.activate()
    await post_office.settled(m1="sent")
    assert await post_office.told("m1") == [("Email Sent", "", stamp(NOON + HOUR))]


async def test_what_a_paused_journey_asked_for_waits_until_it_goes_on(post_office: PostOffice) -> None:
    await post_office.pause("abandoned-cart")
    await post_office.ask("m1")
    await post_office.ask("m2", customer="berit", journey="birthday")
    await post_office.open()
    held = (await post_office.settled(m1="held", m2="sent"))["m1"]
    assert (held.reason, held.due) == ("paused", NOON + 72 * HOUR)
    # Another playbook with the journey still paused says nothing new of it.
    await post_office.pause("abandoned-cart", "birthday")
    await post_office.pass_time(DAY)
    await post_office.read_up()
    await post_office.activate()
    sent = (await post_office.settled(m1="sent"))["m1"]
    assert sent.held == [
        f"{stamp(NOON)} paused until {stamp(NOON + 72 * HOUR)} (journey) @{'paused: abandoned-cart'[:12]}"
    ]
    assert await post_office.told("m1") == [("Email Sent", "", stamp(NOON + DAY))]


async def test_a_pause_reaches_what_the_night_was_holding(post_office: PostOffice) -> None:
    post_office.clock.set(EVENING)
    await post_office.activate()
    await post_office.ask("m1")
    await post_office.open()
    await post_office.settled(m1="held")
    await post_office.pause("abandoned-cart")
    await post_office.pass_time(MORNING - EVENING)
    held = await until_held_for(post_office, "m1", "paused")
    assert held.due == EVENING + 72 * HOUR
    assert post_office.postbox.mails == []


async def test_what_a_journey_that_goes_on_at_night_has_held_waits_for_the_morning(post_office: PostOffice) -> None:
    await post_office.pause("abandoned-cart")
    await post_office.ask("m1")
    await post_office.open()
    await post_office.settled(m1="held")
    post_office.clock.set(EVENING)
    await post_office.activate()
    assert (await until_held_for(post_office, "m1", "quiet_hours")).due == MORNING


async def test_a_pause_that_outlives_the_message_ends_it(post_office: PostOffice) -> None:
    await post_office.pause("abandoned-cart")
    await post_office.ask("m1", expires=2 * HOUR)
    await post_office.open()
    await post_office.settled(m1="held")
    await post_office.pass_time(2 * HOUR)
    await post_office.settled(m1="skipped")
    assert await post_office.told("m1") == [("Email Skipped", "paused", stamp(NOON + 2 * HOUR))]


async def test_what_a_pause_of_promotion_holds_goes_when_it_is_over_or_lifted(post_office: PostOffice) -> None:
    await post_office.activate()
    for customer in ("anna", "berit"):
        await post_office.pause_promotion(2 * DAY, customer)
        await post_office.pause_promotion(DAY, customer)  # shortens nothing
    await post_office.ask("m1", "r1", topic="receipts")
    await post_office.ask("m2")
    await post_office.ask("m3", customer="berit")
    await post_office.open()
    held = await post_office.settled(m1="sent", r1="sent", m2="held", m3="held")
    assert (held["m2"].reason, held["m2"].due) == ("paused", NOON + 2 * DAY)
    await post_office.pass_time(DAY)
    await post_office.pause_promotion(timedelta(0), "berit")
    await post_office.settled(m3="sent", m2="held")
    assert await post_office.told("m3") == [("Email Sent", "", stamp(NOON + DAY))]
    await post_office.pass_time(DAY)
    await post_office.settled(m2="sent")
    assert await post_office.told("m2") == [("Email Sent", "", stamp(NOON + 2 * DAY))]


async def test_pause_and_end_of_the_pause_in_one_backlog_hold_nothing(post_office: PostOffice) -> None:
    await post_office.open()
    await post_office.pause("abandoned-cart")
    await post_office.ask("m1")
    await post_office.settled(m1="held")
    await post_office.close()
    await post_office.activate()
    await post_office.pause("birthday")
    await post_office.open()
    await post_office.settled(m1="sent")


async def test_consent_by_topic_comes_down_the_road(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.hear(False)
    await post_office.hear(True, "newsletter", customer="berit")
    await post_office.ask("m1")
    await post_office.ask("m2", topic="newsletter")
    await post_office.ask("m3", topic="newsletter", customer="berit")
    await post_office.open()
    after = await post_office.settled(m1="skipped", m2="skipped", m3="sent")
    assert (after["m1"].reason, after["m2"].reason) == ("unsubscribed", "not_subscribed")


async def test_customer_who_unsubscribes_while_a_mail_is_held_gets_nothing(post_office: PostOffice) -> None:
    post_office.clock.set(EVENING)
    await post_office.activate()
    await post_office.ask("m1")
    await post_office.open()
    await post_office.settled(m1="held")
    await post_office.hear(False, "*")
    await post_office.pass_time(MORNING - EVENING)
    assert (await post_office.settled(m1="skipped"))["m1"].reason == "unsubscribed"


async def test_a_held_mail_goes_to_the_new_address_and_what_was_decided_goes_along(post_office: PostOffice) -> None:
    post_office.clock.set(EVENING)
    await post_office.activate()
    await post_office.hear(False)
    await post_office.ask("m1", topic="receipts", due=MORNING)
    await post_office.ask("m2", due=MORNING)
    await post_office.open()
    await post_office.settled(m1="held", m2="held")
    moved = ConsentChanged(as_of=post_office.clock.now(), customer="anna", address="Anna@New.example")
    await post_office.record(moved)
    await post_office.pass_time(MORNING - EVENING)
    after = await post_office.settled(m1="sent", m2="skipped")
    assert [mail.recipient for mail in post_office.postbox.mails] == ["Anna@New.example"]
    assert after["m1"].address == "anna@new.example"
    assert after["m2"].reason == "unsubscribed"


async def test_what_was_decided_before_there_was_an_address_holds_for_the_first_one(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.hear(False, address=None)
    await post_office.ask("m1")
    await post_office.open()
    assert (await post_office.settled(m1="skipped"))["m1"].reason == "unsubscribed"


async def test_two_customers_with_one_address_share_its_consent(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.hear(False, customer="anna")
    await post_office.open()
    # The two are on different lanes, which keep no order between them.
    await post_office.read_up()
    await post_office.ask("m1", customer="anna-at-work", address="ANNA@example.org")
    assert (await post_office.settled(m1="skipped"))["m1"].reason == "unsubscribed"


async def test_counts_by_journey_say_how_messages_ended(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.ask("m1", "m2")
    await post_office.ask("m3", draft=True)
    await post_office.open()
    await post_office.read_up()
    async with post_office.database.connect() as connection:
        assert await page_store.counts(connection) == {"abandoned-cart": {"sent": 2, "skipped": 1}}


async def test_a_record_of_a_newer_release_is_waited_for_and_garbage_is_set_aside(post_office: PostOffice) -> None:
    await post_office.activate()
    worker = await post_office.open()
    partition = partition_of("anna", PARTITIONS)
    await post_office.log.append(MESSAGES, partition, [Entry("anna", b'{"kind":"requested","v":1}')])
    await post_office.ask("m1")
    await post_office.settled(m1="sent")
    async with post_office.database.connect() as connection:
        assert await connection.fetchval("SELECT code FROM processing.dead_letters") == "poison"
    await post_office.log.append(MESSAGES, partition, [Entry("anna", b'{"kind":"foretold","v":9}')])

    async def given_up() -> bool:
        return partition not in worker.owned

    await until(given_up)
    async with post_office.database.connect() as connection:
        assert await connection.fetchval("SELECT count(*) FROM processing.dead_letters") == 1
