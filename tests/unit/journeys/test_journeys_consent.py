"""A customer who says no while inside, and what the mailer is told of people."""

from __future__ import annotations

from datetime import timedelta

from journeys_road import Shop, at, email, journey, on, playbook, says

from shared.contracts.customers import ConsentDecision
from shared.language.playbook import Email, If, Journey, Wait

DAY = timedelta(days=1)


def reminders(*more: Email) -> Journey:
    mail = email("mail", more[0].id if more else None)
    return journey(Wait("wait-1d", "mail", DAY, None, None), mail, *more, **on("Cart Updated"))


def test_customer_who_unsubscribes_mid_wait_gets_nothing() -> None:
    story = Shop(playbook(reminders()))
    story.posts("Cart Updated", when="0m")
    story.says_no("cart-reminders", when="1h")
    story.ticks(when="3d")
    assert story.sent() == []
    assert story.ended() == ["unsubscribed"]


def test_what_is_held_is_cancelled() -> None:
    story = Shop(playbook(reminders()), mailer="holds")
    story.posts("Cart Updated", when="0m")
    story.ticks(when="1d")
    story.says_no("cart-reminders", when="25h")
    assert story.cancelled() == [("mail", "unsubscribed")]


def test_no_to_everything_is_a_no_to_this() -> None:
    story = Shop(playbook(reminders()))
    story.posts("Cart Updated", when="0m")
    story.says_no("*", when="1h")
    assert story.ended() == ["unsubscribed"]


def test_no_to_another_topic_changes_nothing() -> None:
    story = Shop(playbook(reminders()))
    story.posts("Cart Updated", when="0m")
    story.says_no("newsletter", when="1h")
    assert story.ended() == [""]


def test_later_step_under_another_topic_keeps_the_customer_inside() -> None:
    story = Shop(playbook(reminders(email("receipt", topic="orders"))))
    story.posts("Cart Updated", when="0m")
    story.says_no("cart-reminders", when="1h")
    assert story.ended() == [""]


def test_another_topic_that_is_declined_as_well_does_not() -> None:
    story = Shop(playbook(reminders(email("news", topic="newsletter"))))
    story.posts("Cart Updated", when="0m")
    story.says_no("*", when="1h")
    assert story.ended() == ["unsubscribed"]


def test_other_topic_on_a_path_already_passed_does_not_count() -> None:
    passed = journey(
        email("receipt", "wait-1d", topic="orders"),
        Wait("wait-1d", "mail", DAY, None, None),
        email("mail"),
        **on("Cart Updated"),
    )
    story = Shop(playbook(passed))
    story.posts("Cart Updated", when="0m")
    story.says_no("cart-reminders", when="1h")
    assert story.ended() == ["unsubscribed"]


def test_no_that_a_later_yes_has_overtaken_ends_nothing() -> None:
    story = Shop(playbook(reminders()))
    story.posts("Cart Updated", when="0m")
    late = ConsentDecision(topic="cart-reminders", subscribed=False, decided_at=at("30m"), source="shop")
    story.is_now(consent={"cart-reminders": True})
    story.posts("Topic Unsubscribed", when="1h", consent=(late,))
    assert story.ended() == [""]


def test_yes_to_one_topic_stands_beside_a_no_to_all() -> None:
    wants = If("wants", says('consented("newsletter")'), "mail", None)
    asks = journey(wants, email("mail", topic="newsletter"), **on("Signed Up", again="always"))
    story = Shop(playbook(asks))
    story.posts("Signed Up", when="0m")
    story.is_now(consent={"*": False, "newsletter": True})
    story.posts("Signed Up", when="1m")
    story.is_now(consent={"*": False})
    story.posts("Signed Up", when="2m")
    assert story.sent() == [("mail", at("1m"))]


def test_customer_without_consent_enters_all_the_same() -> None:
    # Whether it may be sent is the mailer's to decide, when it would be sent.
    story = Shop(playbook(reminders()))
    story.is_now(consent={"cart-reminders": False}, address=None)
    story.posts("Cart Updated", when="0m")
    story.ticks(when="1d")
    assert [(message.message, message.address) for message in story.requested()] == [("mail", None)]


def test_mailer_hears_of_decisions_and_of_a_new_address() -> None:
    story = Shop(playbook(reminders()))
    story.says_no("newsletter", when="0m")
    story.is_now(address="new@example.com")
    story.posts("Profile Edited", when="1h", address_before="anna@example.com")
    first, second = story.consent_told()
    assert [(one.topic, one.subscribed) for one in first.decisions] == [("newsletter", False)]
    assert (first.customer, first.address, first.as_of) == ("anna", "anna@example.com", at("0m"))
    assert (second.address, second.decisions) == ("new@example.com", ())


def test_decision_reaches_the_mailer_before_the_message_that_it_allows() -> None:
    story = Shop(playbook(journey(email("mail", topic="newsletter"), **on("Signed Up"))))
    yes = ConsentDecision(topic="newsletter", subscribed=True, decided_at=at("0m"), source="shop")
    story.posts("Signed Up", when="0m", consent=(yes,))
    kinds = [type(message).__name__ for message in story.road.messages]
    assert kinds.index("ConsentChanged") < kinds.index("MessageRequested")


def test_mail_in_hand_under_another_topic_is_not_taken_back() -> None:
    last = journey(email("receipt", topic="orders"), **on("Order Completed"))
    story = Shop(playbook(last), mailer="holds")
    story.posts("Order Completed", when="0m")
    story.says_no("cart-reminders", when="1h")
    assert (story.cancelled(), story.ended()) == ([], [""])
