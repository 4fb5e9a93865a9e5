"""Who enters, who does not, and who enters again."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from journeys_road import NOON, Shop, at, begins, email, journey, on, playbook, says

from services.journeys.enrollment import Left
from services.journeys.person import MOST_REMEMBERED, Person
from services.journeys.triggers import MOST_AT_ONCE
from shared.contracts.events import MAX_HOPS
from shared.language.playbook import DateTrigger, EventMatch, EventTrigger, SegmentTrigger, StageTrigger, Wait

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WAIT = Wait("wait-1h", "mail", HOUR, None, None)


def welcomes(**changes: object) -> Shop:
    values = {**on("Signed Up"), "again": "always", **changes}
    return Shop(playbook(journey(email("mail"), **values)))


def carts(mailer: str = "sends", **changes: object) -> Shop:
    """An hour after the last change of a cart, one mail."""
    return Shop(playbook(journey(WAIT, email("mail"), **changes)), mailer=mailer)


def update(story: Shop, when: str, total: int = 50) -> None:
    story.posts("Cart Updated", {"cart_id": "c1", "total": total}, when=when)


def test_where_filters_the_event() -> None:
    story = welcomes(trigger=EventTrigger("Signed Up", says('event.plan == "pro"'), None))
    story.posts("Signed Up", {"plan": "free"}, when="0m")
    story.posts("Signed Up", {"plan": "pro"}, when="1m")
    assert story.sent() == [("mail", at("1m"))]


def test_if_asks_once_with_the_trigger_at_hand() -> None:
    story = welcomes(condition=says('trigger.plan == "pro" and traits.country == "NO"'))
    story.posts("Signed Up", {"plan": "pro"}, when="0m")
    story.is_now(traits={"country": "NO"})
    story.posts("Signed Up", {"plan": "pro"}, when="1m")
    assert story.sent() == [("mail", at("1m"))]


def test_imported_history_enters_nothing() -> None:
    story = welcomes()
    story.posts("Signed Up", when="0m", historical=True)
    assert story.enrollments() == []


@pytest.mark.parametrize(("late", "entered"), [(DAY, 1), (DAY + timedelta(seconds=1), 0)])
def test_old_event_enters_nothing(late: timedelta, entered: int) -> None:
    story = welcomes()
    story.posts("Signed Up", when="0m", occurred=NOON - late)
    assert len(story.enrollments()) == entered


def test_edited_definition_enters_nobody() -> None:
    story = Shop(playbook(journey(email("mail"), **begins(SegmentTrigger("vip", "entered")))))
    story.is_now(segments=("vip",))
    story.changes(when="0m", cause="definition", entered=("vip",))
    assert story.enrollments() == []


def test_consequence_of_too_many_consequences_enters_nothing() -> None:
    story = welcomes()
    story.posts("Signed Up", when="0m", hops=MAX_HOPS)
    assert story.enrollments() == []
    story.posts("Signed Up", when="1m", hops=MAX_HOPS - 1)
    assert story.requested()[0].hops == MAX_HOPS - 1


def test_a_journey_of_many_mails_is_no_loop() -> None:
    mails = [email(f"mail-{n}", f"mail-{n + 1}" if n < 12 else None) for n in range(1, 13)]
    story = Shop(playbook(journey(*mails, **on("Signed Up"))))
    story.posts("Signed Up", when="0m")
    assert len(story.sent()) == 12
    assert {message.hops for message in story.requested()} == {0}


def test_page_that_is_called_like_an_event_is_none() -> None:
    story = welcomes()
    story.posts("Signed Up", when="0m", type="page")
    assert story.enrollments() == []


def test_stage_is_entered_by_what_the_customer_did() -> None:
    story = Shop(playbook(journey(email("mail"), **begins(StageTrigger("delight")))))
    story.is_now(stage="delight")
    story.posts("Order Completed", {"order_id": "o3"}, when="0m", stage_before="retain")
    assert story.requested()[0].data["trigger"] == {"order_id": "o3"}
    story.posts("Order Completed", when="1h")
    assert len(story.sent()) == 1


def test_stage_of_a_new_customer_is_entered() -> None:
    story = Shop(playbook(journey(email("mail"), **begins(StageTrigger("attract")))))
    story.is_now(stage="attract")
    story.posts("Product Viewed", when="0m", stage_before="")
    assert len(story.sent()) == 1


def test_segment_is_left_by_time_alone() -> None:
    story = Shop(playbook(journey(email("mail"), **begins(SegmentTrigger("active", "left")))))
    story.changes(when="1h", left=("active",))
    assert story.sent() == [("mail", at("1h"))]
    assert story.requested()[0].data["trigger"] == {}


def test_segment_that_imported_history_entered_begins_nothing() -> None:
    story = Shop(playbook(journey(email("mail"), **begins(SegmentTrigger("vip", "entered")))))
    story.posts("Order Completed", when="0m", historical=True, entered=("vip",))
    assert story.enrollments() == []


def test_birthday_on_29_february() -> None:
    trigger = DateTrigger(("birthday",), "year", time(9, 0), 0)
    birthday = journey(email("mail"), name="birthday", **begins(trigger), again="always")
    story = Shop(playbook(birthday))
    story.reaches("birthday", "2027", when=datetime(2027, 2, 28, 8, 0, tzinfo=UTC))
    story.reaches("birthday", "2028", when=datetime(2028, 2, 29, 8, 0, tzinfo=UTC))
    assert [due.date().isoformat() for _, due in story.sent()] == ["2027-02-28", "2028-02-29"]


def test_date_of_a_journey_that_was_edited_away_means_nothing() -> None:
    story = welcomes()
    story.reaches("birthday", "2027", when="0m")
    story.reaches("cart", "2027", when="0m")
    assert story.enrollments() == []


def test_entry_while_inside_is_ignored() -> None:
    story = carts(mode="single", again="always")
    update(story, "0m", 50)
    update(story, "30m", 90)
    story.ticks(when="2h")
    assert story.sent() == [("mail", at("1h"))]
    assert story.requested()[0].data["trigger"]["total"] == 50


def test_restart_begins_the_steps_anew() -> None:
    story = carts()
    update(story, "0m", 50)
    update(story, "30m", 90)
    story.ticks(when="2h")
    assert story.sent() == [("mail", at("90m"))]
    assert story.requested()[0].data["trigger"]["total"] == 90
    assert len(story.enrollments()) == 1


def test_restart_cancels_what_is_held_and_waits_to_know_its_end() -> None:
    story = carts(mailer="holds")
    update(story, "0m", 50)
    story.ticks(when="1h")
    update(story, "2h", 90)
    update(story, "150m", 95)
    [held] = story.requested()
    assert story.cancelled() == [("mail", "restarted")]
    # The hour counts from the last change of the cart, however late the mailer reports.
    story.outcome(held, "Email Skipped", when="170m", reason="restarted")
    story.ticks(when="4h")
    assert story.sent() == [("mail", at("1h")), ("mail", at("210m"))]
    assert story.requested()[1].data["trigger"]["total"] == 95
    assert story.requested()[1].id != held.id


def test_restart_that_comes_too_late_mails_nobody_twice() -> None:
    story = carts(mailer="holds")
    update(story, "0m", 50)
    story.ticks(when="1h")
    update(story, "2h", 90)
    # The mail server had it already: the cancellation met a message that was gone.
    story.outcome(story.requested()[0], "Email Sent", when="2h")
    story.ticks(when="5d")
    assert len(story.sent()) == 1
    assert story.ended() == ["completed"]


def test_restart_that_comes_too_late_counts_under_again() -> None:
    story = carts(mailer="holds", again="always")
    update(story, "0m", 50)
    story.ticks(when="1h")
    update(story, "2h", 90)
    story.outcome(story.requested()[0], "Email Sent", when="2h")
    story.ticks(when="3h")
    assert story.sent() == [("mail", at("1h")), ("mail", at("3h"))]
    assert story.ended() == ["restarted", ""]


def test_goal_ends_what_waits_to_restart() -> None:
    story = carts(mailer="holds")
    update(story, "0m")
    story.ticks(when="1h")
    update(story, "2h")
    story.posts("Order Completed", {"cart_id": "c1"}, when="3h")
    story.outcome(story.requested()[0], "Email Skipped", when="3h")
    story.ticks(when="5d")
    assert len(story.sent()) == 1
    assert story.ended() == ["goal"]


def two_mails(**changes: object) -> Shop:
    wait = Wait("wait-9d", "second", 9 * DAY, None, None)
    return Shop(playbook(journey(email("mail", "wait-9d"), wait, email("second"), **changes)))


def test_once_a_mail_has_gone_out_an_entry_counts_under_again() -> None:
    story = two_mails(again=timedelta(days=5))
    update(story, "0m")
    update(story, "4d")
    assert len(story.enrollments()) == 1
    update(story, "5d")
    assert story.ended() == ["restarted", ""]
    assert story.sent() == [("mail", at("0m")), ("mail", at("5d"))]


def test_again_counts_from_the_last_entry() -> None:
    story = carts(again=timedelta(days=14))
    update(story, "0m")
    story.ticks(when="2h")
    update(story, "335h")
    assert len(story.enrollments()) == 1
    update(story, "14d")
    story.ticks(when="15d")
    assert story.sent() == [("mail", at("1h")), ("mail", at("337h"))]


def test_again_counts_from_a_restart_too() -> None:
    story = carts(again=timedelta(days=14))
    update(story, "0m")
    update(story, "30m")
    story.ticks(when="2h")
    update(story, "14d")
    assert len(story.enrollments()) == 1
    update(story, "673h")
    assert len(story.enrollments()) == 2


def test_never_again() -> None:
    story = welcomes(again="never")
    story.posts("Signed Up", when="0m")
    story.posts("Signed Up", when="400d")
    assert len(story.enrollments()) == 1


def test_always_again() -> None:
    story = welcomes(again="always")
    story.posts("Signed Up", when="0m")
    story.posts("Signed Up", when="1m")
    assert len(story.sent()) == 2
    assert story.road.rows == {}


def test_again_is_by_cart() -> None:
    story = carts(again="never")
    update(story, "0m")
    story.posts("Cart Updated", {"cart_id": "c2"}, when="1d")
    story.ticks(when="2d")
    assert len(story.sent()) == 2


@pytest.mark.parametrize("cart_id", [17, 1.5, 2**70, "a\0b"])
def test_cart_ids_of_any_kind(cart_id: object) -> None:
    story = carts()
    story.posts("Cart Updated", {"cart_id": cart_id}, when="0m")
    story.posts("Order Completed", {"cart_id": cart_id}, when="10m")
    assert len(story.enrollments()) == 1


@pytest.mark.parametrize("cart_id", [None, "", True, [], {"id": 1}])
def test_cart_ids_that_are_none(cart_id: object) -> None:
    story = carts()
    story.posts("Cart Updated", {"cart_id": cart_id}, when="0m")
    assert story.enrollments() == []


def test_event_that_ends_and_enters_does_both_in_this_order() -> None:
    orders = EventTrigger("Order Completed", None, None)
    story = carts(trigger=orders, goal=None, exit_on=(EventMatch("Order Completed", None),), again="always")
    story.posts("Order Completed", when="0m")
    story.posts("Order Completed", when="10m")
    assert story.ended() == ["exit_on", ""]


def test_order_that_ends_one_journey_begins_another() -> None:
    cart = journey(WAIT, email("mail"))
    thanks = journey(email("thanks", topic="service"), name="thanks", **on("Order Completed"))
    story = Shop(playbook(cart, thanks))
    update(story, "0m")
    story.posts("Order Completed", {"cart_id": "c1"}, when="30m")
    story.ticks(when="2h")
    assert story.sent() == [("thanks", at("30m"))]
    assert story.ended() == ["goal", "completed"]


def test_restarts_ask_for_a_new_message_each_time() -> None:
    story = carts(mailer="holds")
    update(story, "0m")
    for hour in ("3h", "6h", "9h"):
        story.ticks(when=hour)
        update(story, hour)
        story.outcome(story.requested()[-1], "Email Skipped", reason="restarted")
    story.ticks(when="12h")
    assert [due for _, due in story.sent()] == [at("1h"), at("4h"), at("7h"), at("10h")]
    assert len({message.id for message in story.requested()}) == 4


def test_who_clicked_has_the_mail_whatever_is_reported_of_it() -> None:
    story = carts(mailer="holds")
    update(story, "0m")
    story.ticks(when="1h")
    story.clicks(story.requested()[0], when="2h")
    update(story, "3h")
    assert story.cancelled() == []


def test_mail_that_may_have_gone_out_counts_as_gone() -> None:
    wait = Wait("wait-1d", "second", DAY, None, None)
    story = Shop(playbook(journey(email("mail", "wait-1d"), wait, email("second"))), mailer="holds")
    update(story, "0m")
    story.outcome(story.requested()[0], "Email Unknown", when="1m")
    update(story, "1h")
    story.ticks(when="2d")
    assert story.sent() == [("mail", at("0m")), ("second", at("24h"))]


def of_cart(number: int | str) -> dict[str, object]:
    return {"cart_id": f"c{number}", "total": 50}


def test_who_invents_carts_is_in_a_hundred_at_once_and_no_more() -> None:
    story = carts(mailer="holds")
    for number in range(MOST_AT_ONCE + 5):
        story.posts("Cart Updated", of_cart(number), when=timedelta(seconds=number))
    assert len(story.enrollments()) == MOST_AT_ONCE
    story.ticks(when="2h")
    story.posts("Order Completed", of_cart(0), when="2h")
    story.posts("Cart Updated", of_cart("new"), when="3h")
    assert of_cart("new")["cart_id"] in [enrollment.entry.key for enrollment in story.enrollments()]


def test_key_that_is_a_novel_is_none() -> None:
    story = carts()
    story.posts("Cart Updated", of_cart("x" * 2_000), when="0m")
    assert story.enrollments() == []


def test_of_all_that_was_left_the_latest_is_remembered() -> None:
    person = Person("anna", None)
    for number in range(MOST_REMEMBERED + 5):
        person.remember(Left("cart", f"c{number}", NOON))
    assert len(person.left) == MOST_REMEMBERED
    assert person.last_of("cart", "c4") is None
    assert person.last_of("cart", f"c{MOST_REMEMBERED + 4}") is not None


def test_a_batch_that_let_nobody_in_is_saved_where_that_is_counted() -> None:
    """Batches of which nothing comes are left out; who was declined shows in the metrics, so something came."""
    story = Shop(playbook(journey(WAIT, **on("Signed Up"))))
    story.ticks(when="2h")
    looked = story.event("Looked Around", when="2h")
    late = story.event("Signed Up", when="2h", occurred=at("2h") - 2 * DAY)
    assert story.road.saves_nothing([looked])
    assert not story.road.saves_nothing([looked, late])


def test_who_is_invited_by_a_backfill_enters_like_anybody_else() -> None:
    vip = {**begins(SegmentTrigger("vip", "entered")), "condition": says('traits.country == "NO"'), "again": "never"}
    story = Shop(playbook(journey(WAIT, email("mail"), **vip)))
    story.invites("cart", when="0m")
    assert story.enrollments() == []
    story.is_now(traits={"country": "NO"})
    story.invites("cart", when="1m")
    story.invites("cart", when="2m")
    story.ticks(when="2h")
    story.invites("cart", when="3h")
    story.invites("gone", when="3h")
    assert [(one.entry.at, one.entry.cause) for one in story.enrollments()] == [(at("1m"), "backfill\nfirst")]
    assert story.sent() == [("mail", at("61m"))]


def test_nobody_is_invited_into_a_pause() -> None:
    story = Shop(playbook(journey(WAIT, email("mail"), status="paused", **begins(StageTrigger("retain")))))
    story.invites("cart", when="0m")
    assert story.enrollments() == []
