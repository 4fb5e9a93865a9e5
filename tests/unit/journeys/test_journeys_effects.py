"""What steps keep and report: no more than a shop could have sent."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from journeys_road import NOON, Shop, email, journey, on, playbook, says
from msgspec.structs import replace

from shared.contracts.messages import MessageRequested, PromotionPaused
from shared.language.playbook import Emit, Pause, Set, Task, Wait, Webhook

SQUARED = says("coalesce(vars.n, 9999999999) * coalesce(vars.n, 9999999999)")


def test_a_number_that_grows_from_step_to_step_does_not_grow_for_ever() -> None:
    steps = [Set(f"set-{number}", f"set-{number + 1}", {"n": SQUARED}, {}) for number in range(40)]
    story = Shop(playbook(journey(*steps, Set("set-40", "hello", {"n": SQUARED}, {}), email("hello"), **on("Start"))))
    story.posts("Start", when="0m")
    assert [message for message, _ in story.sent()] == ["hello"]


def test_integers_beyond_64_bits_are_neither_kept_nor_reported() -> None:
    large, list_of_it = says("9999999999 * 9999999999"), says("[1, 9999999999 * 9999999999]")
    steps = (Set("set-1", "emit-1", {}, {"n": large}), Emit("emit-1", None, "Grown", {"n": large, "all": list_of_it}))
    story = Shop(playbook(journey(*steps, **on("Start"))))
    story.posts("Start", when="0m")
    told, grown = story.road.events
    assert msgspec.json.decode(told.traits) == {"n": None}
    assert msgspec.json.decode(grown.properties) == {"n": None, "all": [1, None]}


def test_a_pause_is_told_to_the_mailer_before_the_mail_that_follows_it() -> None:
    steps = (Pause("pause-1", "hello", timedelta(days=30)), email("hello"))
    story = Shop(playbook(journey(*steps, **on("Complained"))))
    story.posts("Complained", when="0m")
    paused, asked = [one for one in story.road.messages if isinstance(one, PromotionPaused | MessageRequested)]
    assert isinstance(asked, MessageRequested)
    assert paused == PromotionPaused(as_of=NOON, customer="anna", at=NOON, until=NOON + timedelta(days=30), v=2)


def test_a_draft_pauses_nothing() -> None:
    steps = (Pause("pause-1", "hello", timedelta(days=30)), email("hello"))
    story = Shop(playbook(journey(*steps, **on("Complained"), status="draft")))
    story.posts("Complained", when="0m")
    assert not [one for one in story.road.messages if isinstance(one, PromotionPaused)]


def test_a_task_is_kept_and_told_of_as_an_event() -> None:
    call = Task("call", "hello", says('"Call " + key'), None, timedelta(days=2))
    cart = journey(call, email("hello"))
    story = Shop(playbook(cart))
    story.posts("Cart Updated", {"cart_id": "c1"}, when="0m")
    (opened,) = story.road.tasks
    assert (opened.title, opened.key, opened.customer) == ("Call c1", "c1", "anna")
    assert (opened.opened_at, opened.due) == (NOON, NOON + timedelta(days=2))
    (told,) = story.road.events
    assert (told.name, msgspec.json.decode(told.properties)["task_id"]) == ("Task Opened", opened.id)
    assert story.sent() == [("hello", NOON)]


def test_a_title_that_comes_to_nothing_is_the_step() -> None:
    call = Task("call", None, says("traits.none"), None, None)
    story = Shop(playbook(journey(call, **on("Complained"))))
    story.posts("Complained", when="0m")
    assert [(task.title, task.due) for task in story.road.tasks] == [("call", None)]


def test_a_draft_opens_no_task() -> None:
    story = Shop(playbook(journey(Task("call", None, says('"Call"'), None, None), **on("Complained", status="draft"))))
    story.posts("Complained", when="0m")
    assert (story.road.tasks, story.road.events) == ([], [])


def test_a_webhook_is_asked_for_and_the_journey_goes_on_with_its_outcome() -> None:
    tell = Webhook("tell", "hello", "https://shop.example/hooks", "cart.tell", timedelta(days=1), {"n": says("key")})
    story = Shop(playbook(journey(tell, email("hello"))), mailer="holds")
    story.posts("Cart Updated", {"cart_id": "c1"}, when="0m")
    (call,) = story.requested()
    assert (call.channel, call.step, call.topic, call.v) == ("webhook", "tell", "", 2)
    assert call.data == {"url": tell.url, "type": "cart.tell", "key": "c1", "with": {"n": "c1"}}
    assert call.expires == NOON + timedelta(days=1)
    story.outcome(call, "Webhook Failed", when="1h")
    _, mail = story.requested()
    assert (mail.message, mail.channel, mail.v) == ("hello", "email", 1)


def test_a_webhook_is_no_message_to_the_customer_so_a_restart_begins_anew() -> None:
    tell = Webhook("tell", "wait", "https://shop.example/hooks", "cart.tell", timedelta(days=1), {})
    story = Shop(playbook(journey(tell, Wait("wait", None, timedelta(days=2), None, None))), mailer="holds")
    story.posts("Cart Updated", {"cart_id": "c1"}, when="0m")
    story.outcome(story.requested()[0], "Webhook Sent", when="1m")
    story.posts("Cart Updated", {"cart_id": "c1"}, when="1h")
    assert [call.step for call in story.requested()] == ["tell", "tell"]


def test_a_text_message_is_asked_for_with_the_traits_and_stops_a_restart_once_it_went_out() -> None:
    first = replace(email("hello", "wait"), channel="sms")
    story = Shop(playbook(journey(first, Wait("wait", None, timedelta(days=2), None, None))), mailer="holds")
    story.posts("Cart Updated", {"cart_id": "c1"}, when="0m")
    (text,) = story.requested()
    assert (text.channel, text.v, text.topic) == ("sms", 2, "cart-reminders")
    assert "traits" in text.data
    story.outcome(text, "SMS Sent", when="1m")
    story.posts("Cart Updated", {"cart_id": "c1"}, when="1h")
    assert [one.step for one in story.requested()] == ["hello"]
