"""Who is held out: nothing but their goal, for as long as it counts; and what is made of it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from journeys_road import Shop, at, email, journey, on, playbook, says

from services.journeys.api import summed
from services.journeys.store import Attributed, Tally
from shared.language.playbook import EventMatch, Goal

ALL = Decimal(1)
GOAL = Goal(EventMatch("Order Completed", None), timedelta(days=7), None)


def shop(holdout: Decimal = ALL, **changes: Any) -> Shop:
    settings = {**on("Signed Up"), "goal": GOAL, "holdout": holdout, **changes}
    return Shop(playbook(journey(email("hello"), **settings)))


def test_who_is_held_out_gets_nothing_and_leaves_when_the_goal_counts_no_more() -> None:
    story = shop()
    story.posts("Signed Up", when="0m")
    assert [one.status for one in story.enrollments()] == ["held_out"]
    story.ticks(when="8d")
    assert story.sent() == []
    assert [(one.reason, one.ended_at, one.goal_at) for one in story.enrollments()] == [("held_out", at("7d"), None)]


def test_the_goal_of_who_is_held_out_is_noted_and_known_from_others() -> None:
    story = shop()
    story.posts("Signed Up", when="0m")
    story.posts("Order Completed", {"total": 50}, when="2d")
    assert [(one.reason, one.goal_at) for one in story.enrollments()] == [("held_out", at("2d"))]


def test_neither_an_exit_nor_a_lost_consent_ends_the_comparison() -> None:
    story = shop(exit_on=(EventMatch("Cart Emptied", None),))
    story.posts("Signed Up", when="0m")
    story.posts("Cart Emptied", when="1d")
    story.says_no("cart-reminders", when="2d")
    assert [one.status for one in story.enrollments()] == ["held_out"]


def test_an_entry_while_held_out_counts_as_for_the_others() -> None:
    single, again = shop(), shop(mode="restart")
    for story in (single, again):
        story.posts("Signed Up", when="0m")
        story.posts("Signed Up", when="1d")
        assert len(story.enrollments()) == 1
    assert single.enrollments()[0].due == at("7d")
    assert again.enrollments()[0].due == at("8d")


def test_the_same_customers_are_held_out_for_every_cart_and_about_as_many_as_was_said() -> None:
    keyed = journey(email("hello"), holdout=Decimal("0.2"), goal=GOAL, again=timedelta(0), exit_on=())
    held_out = 0
    for town in range(10):
        story = Shop(playbook(keyed))
        for number in range(30):
            customer = f"c{town * 30 + number}"
            for cart in ("a", "b"):
                story.posts("Cart Updated", {"cart_id": cart, "total": 50}, when="0m", customer=customer)
            statuses = {one.status == "held_out" for one in story.enrollments(customer)}
            assert len(statuses) == 1
            held_out += statuses.pop()
    assert 35 <= held_out <= 85


def test_what_the_journey_brings_is_counted_beside_those_who_were_held_out() -> None:
    def ended(reason: str, goal: bool, count: int) -> tuple[Tally, int]:
        return Tally("cart", "v1", "", "ended", reason, goal), count

    [counts] = summed(
        [
            ended("goal", True, 30),
            ended("completed", False, 70),
            ended("held_out", True, 4),
            ended("held_out", False, 16),
            (Tally("cart", "v1", "p", "held_out", "", False), 5),
            (Tally("cart", "v1", "p", "watching", "completed", False), 900),
        ],
        {"cart": 1200},
        [Attributed("cart", "EUR", 20, Decimal("1234.565000001")), Attributed("cart", "NOK", 1, Decimal(100))],
    )
    assert counts.held_out is not None
    assert (counts.entered, counts.goal) == (1025, 30)
    assert (counts.held_out.entered, counts.held_out.goal, counts.held_out.lift) == (25, 4, 0.5)
    assert (counts.sent, counts.orders, counts.attributed) == (1200, 21, {"EUR": 1234.57, "NOK": 100.0})


def test_where_nobody_is_held_out_nothing_is_said_of_it() -> None:
    [counts] = summed([(Tally("cart", "v1", "", "ended", "goal", True), 3)], {}, [])
    assert counts.held_out is None


def test_a_condition_at_the_entry_keeps_out_the_held_out_as_well() -> None:
    story = shop(condition=says("traits.country == 'NO'"))
    story.posts("Signed Up", when="0m")
    assert story.enrollments() == []
