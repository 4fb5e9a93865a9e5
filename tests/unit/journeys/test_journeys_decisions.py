"""What is remembered of each decision, so that whoever asks why can be told."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import get_args

from journeys_road import Shop, at, email, journey, on, playbook, says

from services.journeys.decisions import STANDS
from services.journeys.enrollment import Status
from shared.language.playbook import Arm, EventMatch, EventTrigger, Exit, Goal, If, Split, Wait, WaitFor

HOUR = timedelta(hours=1)
CART = {"cart_id": "c1", "total": 50}


def test_each_step_and_each_way_that_was_taken() -> None:
    steps = (
        Wait("wait-1h", "tone", HOUR, None, None),
        Split("tone", {"warm": Arm(Decimal(1), "reminder")}, "enrollment"),
        email("reminder", "came-back"),
        WaitFor("came-back", "exit-1", "if-1", None, "reminder", 23 * HOUR),
        If("if-1", says('in_segment("vip")'), "vip", "last"),
        email("vip"),
        email("last"),
        Exit("exit-1", "came back"),
    )
    shop = Shop(playbook(journey(*steps, goal=None)))
    shop.posts("Cart Updated", CART, when="0m")
    shop.ticks(when="3d")
    assert shop.decided() == [
        "0m entered",
        "0m waits wait-1h until 1h",
        "1h passed tone: warm",
        "1h asked reminder",
        "1h listens came-back until 1d",
        "1d passed came-back: timeout",
        "1d passed if-1: else",
        "1d asked last",
        "1d left last: completed",
    ]
    assert {decision.playbook for decision in shop.road.decided["anna"]} == {"playbook"}


def test_an_answer_is_the_other_way() -> None:
    steps = (email("reminder", "came-back"), WaitFor("came-back", "x", None, None, "reminder", HOUR), Exit("x", "back"))
    shop = Shop(playbook(journey(*steps, goal=None)))
    shop.posts("Cart Updated", CART, when="0m")
    shop.clicks(shop.requested()[0], when="30m")
    assert shop.decided()[-2:] == ["30m passed came-back: matched", "30m left x: back"]


def test_a_goal_after_the_end_is_told() -> None:
    shop = Shop(playbook(journey(email("reminder"))))
    shop.posts("Cart Updated", CART, when="0m")
    shop.posts("Order Completed", CART, when="1d")
    assert shop.decided()[-2:] == ["0m left reminder: completed", "1d goal"]


def test_the_worth_of_an_order_is_told_of_the_one_that_has_it() -> None:
    goal = Goal(EventMatch("Order Completed", None), timedelta(days=7), says("event.total"))
    shop = Shop(playbook(journey(email("reminder"), goal=goal)))
    shop.posts("Cart Updated", CART, when="0m")
    shop.posts("Order Completed", {"total": 79.9}, when="1d")
    decided = shop.road.decided["anna"][-1]
    assert [(one.what, one.word) for one in decided.decisions] == [("attributed", "79.90 EUR")]


def test_who_may_not_enter_is_told_why_and_until_when() -> None:
    cart = journey(email("reminder"), goal=None, again=timedelta(days=14))
    shop = Shop(playbook(cart))
    shop.posts("Cart Updated", CART, when="0m")
    shop.posts("Cart Updated", CART, when="1d")
    shop.posts("Cart Updated", {"total": 3}, when="2d")
    assert shop.decided()[-2:] == ["1d declined: again until 2w", "2d declined: no_key"]
    assert shop.road.decided["anna"][-2].key == "c1"


def test_who_is_elsewhere_is_told_where() -> None:
    cart = journey(Wait("wait-1h", None, HOUR, None, None), goal=None)
    news = journey(email("news"), name="news", unless_in=frozenset({"cart", "other"}), **on("Signed Up"))
    shop = Shop(playbook(cart, news))
    shop.posts("Cart Updated", CART, when="0m")
    shop.posts("Signed Up", when="5m")
    assert shop.decided()[-1] == "5m declined cart: elsewhere"


def test_a_condition_that_does_not_hold_is_told_and_an_event_that_does_not_fit_is_not() -> None:
    vips = journey(email("vip"), name="vips", **on("Signed Up", condition=says('in_segment("vip")')))
    lamps_only = EventTrigger("Product Viewed", says('event.category == "lamps"'), None)
    lamps = journey(email("lamp"), name="lamps", **{**on("Product Viewed"), "trigger": lamps_only})
    shop = Shop(playbook(vips, lamps))
    shop.posts("Signed Up", when="0m")
    shop.posts("Product Viewed", {"category": "rugs"}, when="1m")
    shop.posts("Signed Up", when="2m", occurred=at(timedelta(days=-2)))
    assert shop.decided() == ["0m declined: condition"]


def test_who_is_held_out_is_told_so() -> None:
    shop = Shop(playbook(journey(email("reminder"), holdout=Decimal(1))))
    shop.posts("Cart Updated", CART, when="0m")
    shop.ticks(when="8d")
    assert shop.decided() == ["0m entered", "0m held_out until 1w", "1w left: held_out"]


def test_a_change_of_the_cart_begins_the_hour_anew() -> None:
    shop = Shop(playbook(journey(Wait("wait-1h", "reminder", HOUR, None, None), email("reminder"))))
    shop.posts("Cart Updated", CART, when="0m")
    shop.posts("Product Viewed", when="10m")
    shop.posts("Cart Updated", CART, when="30m")
    assert shop.decided()[2:] == ["30m restarted", "30m waits wait-1h until 90m"]


def test_there_is_a_word_for_wherever_an_enrollment_can_stand() -> None:
    assert STANDS.keys() == set(get_args(Status)) - {"watching", "ended"}
