"""The abandoned cart, as a shop runs it: an hour, a reminder, a day, another path for those who come back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from journeys_road import Shop as _Shop
from journeys_road import at, email, journey, playbook, says

from shared.language.playbook import EventMatch, Exit, If, Journey, Wait, WaitFor

HOUR = timedelta(hours=1)
CART = {"cart_id": "c1", "total": 50}


def abandoned_cart(**changes: object) -> Journey:
    return journey(
        Wait("wait-1h", "cart-reminder", HOUR, None, None),
        email("cart-reminder", "came-back"),
        WaitFor("came-back", "back", "vip", None, "cart-reminder", 23 * HOUR),
        Exit("back", "came back"),
        If("vip", says('in_segment("vip")'), "cart-vip", "cart-last-call"),
        email("cart-vip"),
        email("cart-last-call"),
        **changes,
    )


def shop(mailer: str = "sends", **changes: object) -> _Shop:
    return _Shop(playbook(abandoned_cart(**changes)), mailer=mailer)


def test_quiet_customer_gets_both_mails() -> None:
    story = shop()
    story.posts("Cart Updated", CART, when="0m")
    story.ticks(when="3d")
    assert story.sent() == [("cart-reminder", at("1h")), ("cart-last-call", at("24h"))]
    assert story.ended() == ["completed"]


def test_buying_within_the_hour_sends_nothing() -> None:
    story = shop()
    story.posts("Cart Updated", CART, when="0m")
    story.posts("Order Completed", CART, when="30m")
    story.ticks(when="3d")
    assert story.sent() == []
    assert story.ended() == ["goal"]
    assert story.enrollments()[0].goal_at == at("30m")


def test_order_of_another_cart_is_not_the_goal() -> None:
    story = shop()
    story.posts("Cart Updated", CART, when="0m")
    story.posts("Order Completed", {"cart_id": "c2"}, when="30m")
    story.ticks(when="2h")
    assert story.sent() == [("cart-reminder", at("1h"))]


def test_order_and_cart_reminder_in_one_backlog() -> None:
    # After an outage everything comes in one batch: the order of 12:30 is seen before the reminder of 13:00.
    story = shop()
    cart = story.posts("Cart Updated", CART, when="0m")
    order = story.posts("Order Completed", CART, when="30m")
    late = _Shop(playbook(abandoned_cart()))
    late.road.drive([cart, order])
    late.ticks(when="5h")
    assert late.sent() == []
    assert late.ended() == ["goal"]


def test_reminder_that_fell_due_before_the_order_is_asked_for_first() -> None:
    story = shop(mailer="holds")
    cart = story.posts("Cart Updated", CART, when="0m")
    order = story.posts("Order Completed", CART, when="90m")
    late = _Shop(playbook(abandoned_cart()), mailer="holds")
    late.road.drive([cart, order])
    assert late.sent() == [("cart-reminder", at("1h"))]
    assert late.cancelled() == [("cart-reminder", "goal")]


def test_goal_cancels_a_message_that_is_held() -> None:
    story = shop(mailer="holds")
    story.posts("Cart Updated", CART, when="0m")
    story.ticks(when="2h")
    story.posts("Order Completed", CART, when="3h")
    assert story.cancelled() == [("cart-reminder", "goal")]
    assert story.ended() == ["goal"]


def test_emptied_cart_cancels_a_message_that_is_held() -> None:
    story = shop(mailer="holds")
    story.posts("Cart Updated", CART, when="0m")
    story.ticks(when="2h")
    story.posts("Cart Emptied", CART, when="3h")
    assert story.cancelled() == [("cart-reminder", "exit_on")]
    assert story.ended() == ["exit_on"]


def test_wait_after_a_held_message_counts_from_its_release() -> None:
    story = shop(mailer="holds")
    story.posts("Cart Updated", CART, when="0m")
    story.ticks(when="1h")
    [reminder] = story.requested()
    # Held until 19:00, and reported four hours late: the last call is still due 23 hours after the release.
    story.outcome(reminder, when="11h", decided_for=at("7h"))
    story.ticks(when="29h")
    assert len(story.requested()) == 1
    story.ticks(when="30h")
    assert story.sent()[1] == ("cart-last-call", at("30h"))


def test_outcome_that_comes_later_than_the_next_wait_catches_up_at_once() -> None:
    story = shop(mailer="holds")
    story.posts("Cart Updated", CART, when="0m")
    story.ticks(when="1h")
    story.outcome(story.requested()[0], when="5d", decided_for=at("1h"))
    story.ticks(when="5d")
    assert story.sent()[1] == ("cart-last-call", at("24h"))


def test_skipped_message_goes_on_with_the_journey() -> None:
    story = shop(mailer="skips")
    story.posts("Cart Updated", CART, when="0m")
    story.ticks(when="3d")
    assert story.sent() == [("cart-reminder", at("1h")), ("cart-last-call", at("24h"))]


def test_who_clicks_has_come_back() -> None:
    story = shop()
    story.posts("Cart Updated", CART, when="0m")
    story.ticks(when="2h")
    story.clicks(story.requested()[0], when="3h")
    story.ticks(when="3d")
    assert story.sent() == [("cart-reminder", at("1h"))]
    assert story.ended() == ["came back"]


def test_click_that_overtakes_the_outcome_counts() -> None:
    story = shop(mailer="holds")
    story.posts("Cart Updated", CART, when="0m")
    story.ticks(when="2h")
    story.clicks(story.requested()[0], when="3h")
    story.outcome(story.requested()[0], when="4h")
    assert story.ended() == ["came back"]


def test_click_in_somebody_elses_message_means_nothing() -> None:
    story = shop()
    story.posts("Cart Updated", CART, when="0m")
    story.posts("Cart Updated", {"cart_id": "b1"}, when="0m", customer="bert")
    story.ticks(when="2h")
    [bert] = [message for message in story.requested() if message.customer == "bert"]
    foreign = {"message_id": bert.id, "enrollment": bert.enrollment}
    story.posts("Email Link Clicked", foreign, when="3h", source="rapport/mailer")
    assert story.ended() == [""]


def test_shop_that_reports_its_own_mails_moves_nothing() -> None:
    story = shop(mailer="holds")
    story.posts("Cart Updated", CART, when="0m")
    story.ticks(when="1h")
    [reminder] = story.requested()
    story.posts("Email Sent", {"message_id": reminder.id}, when="2h", source="shop")
    assert story.enrollments()[0].status == "sending"


def test_best_customers_get_another_mail() -> None:
    story = shop()
    story.posts("Cart Updated", CART, when="0m")
    story.is_now(segments=("vip",))
    story.posts("Product Viewed", when="2h")
    story.ticks(when="3d")
    assert [message for message, _ in story.sent()] == ["cart-reminder", "cart-vip"]


def test_each_cart_is_an_enrollment_of_its_own() -> None:
    story = shop()
    story.posts("Cart Updated", CART, when="0m")
    story.posts("Cart Updated", {"cart_id": "c2", "total": 9}, when="10m")
    story.posts("Order Completed", CART, when="20m")
    story.ticks(when="2h")
    assert story.sent() == [("cart-reminder", at("70m"))]
    assert story.requested()[0].data["trigger"] == {"cart_id": "c2", "total": 9}
    assert story.requested()[0].data["key"] == "c2"


def test_cart_without_an_id_enters_nothing() -> None:
    story = shop()
    story.posts("Cart Updated", {"total": 50}, when="0m")
    assert story.enrollments() == []


def test_goal_after_the_last_step_is_still_noted() -> None:
    story = shop()
    story.posts("Cart Updated", CART, when="0m")
    story.ticks(when="3d")
    assert story.ended() == ["completed"]
    story.posts("Order Completed", CART, when="6d")
    [one] = story.enrollments()
    assert (one.status, one.reason, one.goal_at) == ("ended", "completed", at("6d"))


def test_goal_after_its_window_is_none() -> None:
    story = shop()
    story.posts("Cart Updated", CART, when="0m")
    story.ticks(when="3d")
    story.posts("Order Completed", CART, when="8d")
    [one] = story.enrollments()
    assert (one.status, one.goal_at) == ("ended", None)


def test_nothing_is_kept_of_a_customer_when_it_no_longer_matters() -> None:
    story = shop()
    story.posts("Cart Updated", CART, when="0m")
    story.ticks(when="3d")
    assert "anna" in story.road.rows
    story.ticks(when="14d")
    assert story.road.rows == {}
    assert story.road.timers == {}


def test_what_the_mail_shows_is_fixed_when_its_step_runs() -> None:
    story = shop(mailer="holds")
    story.is_now(traits={"name": "Anna"}, stage="convert", timezone="Asia/Tokyo")
    story.posts("Cart Updated", CART, when="0m")
    story.ticks(when="1h")
    [reminder] = story.requested()
    assert reminder.data["traits"] == {"name": "Anna"}
    assert reminder.data["trigger"] == CART
    assert reminder.data["customer"]["stage"] == "convert"
    assert (reminder.address, reminder.locale, reminder.timezone) == ("anna@example.com", "en", "Asia/Tokyo")
    assert reminder.expires == at("1h") + timedelta(hours=72)


def test_timer_sees_the_customer_as_last_heard_of() -> None:
    story = shop()
    story.posts("Cart Updated", CART, when="0m")
    story.is_now(address="new@example.com")
    story.posts("Product Viewed", when="30m")
    story.ticks(when="1h")
    assert story.requested()[0].address == "new@example.com"


@pytest.mark.parametrize("name", ["Email Failed", "Email Unknown", "Email Skipped"])
def test_every_outcome_ends_the_step(name: str) -> None:
    story = shop(mailer="holds")
    story.posts("Cart Updated", CART, when="0m")
    story.ticks(when="1h")
    story.outcome(story.requested()[0], name, when="1h")
    assert story.enrollments()[0].status == "listening"


def test_event_that_enters_does_not_answer_its_own_first_wait() -> None:
    waits = journey(
        WaitFor("again", "thanks", None, EventMatch("Cart Updated", None), None, HOUR),
        email("thanks"),
        mode="single",
    )
    story = _Shop(playbook(waits))
    story.posts("Cart Updated", CART, when="0m")
    assert story.sent() == []
    story.posts("Cart Updated", CART, when="10m")
    assert story.sent() == [("thanks", at("10m"))]


def test_imported_order_from_before_the_cart_is_not_the_goal() -> None:
    story = shop()
    story.posts("Cart Updated", CART, when="0m")
    story.posts("Order Completed", CART, when="10m", historical=True, occurred=at("0m") - HOUR)
    assert story.ended() == [""]
    story.posts("Order Completed", CART, when="20m", historical=True, occurred=at("5m"))
    assert story.ended() == ["goal"]


def test_goal_counts_from_entry_also_for_those_inside() -> None:
    slow = journey(Wait("wait-9d", "mail", 9 * 24 * HOUR, None, None), email("mail"))
    story = _Shop(playbook(slow))
    story.posts("Cart Updated", CART, when="0m")
    story.posts("Order Completed", CART, when="8d")
    assert story.ended() == [""]
