"""Drafts, pauses, edits and removals, while customers are inside."""

from __future__ import annotations

from datetime import timedelta

import pytest
from journeys_road import Shop, at, email, journey, on, playbook, replayed

from shared.contracts.customers import Activation, Tick
from shared.language.playbook import EventMatch, Journey, Playbook, Wait, WaitFor

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def reminder(**changes: object) -> Journey:
    return journey(Wait("wait-1h", "mail", HOUR, None, None), email("mail"), **{**on("Cart Updated"), **changes})


def paused_for_a_while() -> list[Playbook]:
    return [
        playbook(reminder(), name="live"),
        playbook(reminder(status="paused"), name="paused"),
        playbook(reminder(), name="live-again"),
    ]


def test_draft_counts_and_sends_nothing() -> None:
    story = Shop(playbook(reminder(status="draft")))
    story.posts("Cart Updated", when="0m")
    story.ticks(when="2h")
    assert [message.draft for message in story.requested()] == [True]
    assert story.ended() == ["completed"]


def published(**changes: object) -> Shop:
    return Shop(
        playbook(reminder(status="draft", **changes), name="draft"), playbook(reminder(**changes), name="published")
    )


def test_publishing_takes_in_new_entrants_only() -> None:
    story = published()
    story.posts("Cart Updated", when="0m")
    story.activate("published", when="30m")
    story.ticks(when="2h")
    assert [message.draft for message in story.requested()] == [True]


@pytest.mark.parametrize("after", ["40m", "5h"])
def test_who_was_in_the_draft_may_enter_what_is_published(after: str) -> None:
    story = published(again="never")
    story.posts("Cart Updated", when="0m")
    story.activate("published", when="30m")
    story.posts("Cart Updated", when=after)
    story.ticks(when="9h")
    assert [message.due for message in story.requested() if not message.draft] == [at(after) + HOUR]


def test_journey_that_becomes_a_draft_sends_nothing_more() -> None:
    story = Shop(playbook(reminder(), name="live"), playbook(reminder(status="draft"), name="draft"))
    story.posts("Cart Updated", when="0m")
    story.activate("draft", when="30m")
    story.ticks(when="2h")
    assert [message.draft for message in story.requested()] == [True]


def test_paused_journey_takes_nobody_in() -> None:
    story = Shop(playbook(reminder(status="paused")))
    story.posts("Cart Updated", when="0m")
    assert story.enrollments() == []


def test_what_falls_due_in_a_pause_waits_for_its_end() -> None:
    story = Shop(*paused_for_a_while())
    story.posts("Cart Updated", when="0m")
    story.activate("paused", when="30m")
    story.ticks(when="3h")
    assert (story.sent(), story.enrollments()[0].status) == ([], "parked")
    story.activate("live-again", when="5h")
    story.road.sweep()
    story.ticks(when="5h")
    assert story.sent() == [("mail", at("5h"))]


def test_record_that_comes_before_the_sweep_finds_the_same() -> None:
    story = Shop(*paused_for_a_while())
    story.posts("Cart Updated", when="0m")
    story.activate("paused", when="30m")
    story.activate("live-again", when="5h")
    story.is_now(traits={"name": "Anna"})
    story.posts("Product Viewed", when="6h")
    [message] = story.requested()
    assert (message.due, message.data["traits"]) == (at("5h"), {})


def test_what_is_not_due_yet_does_not_mind_a_pause() -> None:
    story = Shop(*paused_for_a_while())
    story.posts("Cart Updated", when="0m")
    story.activate("paused", when="10m")
    story.activate("live-again", when="20m")
    story.ticks(when="1h")
    assert story.sent() == [("mail", at("1h"))]


def test_goal_is_armed_in_a_pause() -> None:
    goal = journey(Wait("wait-1h", "mail", HOUR, None, None), email("mail"))
    story = Shop(playbook(goal, name="live"), playbook(journey(*goal.steps.values(), status="paused"), name="paused"))
    story.posts("Cart Updated", {"cart_id": "c1"}, when="0m")
    story.activate("paused", when="10m")
    story.posts("Order Completed", {"cart_id": "c1"}, when="3h")
    assert story.ended() == ["goal"]


def test_answer_in_a_pause_is_not_forgotten() -> None:
    steps = (WaitFor("answer", "thanks", None, EventMatch("Answered", None), None, DAY), email("thanks"))
    story = Shop(
        playbook(journey(*steps, **on("Asked")), name="live"),
        playbook(journey(*steps, **on("Asked"), status="paused"), name="paused"),
        playbook(journey(*steps, **on("Asked")), name="live-again"),
    )
    story.posts("Asked", when="0m")
    story.activate("paused", when="1h")
    story.posts("Answered", when="2h")
    story.activate("live-again", when="3d")
    story.road.sweep()
    story.ticks(when="3d")
    assert story.sent() == [("thanks", at("3d"))]


def test_edit_lets_those_inside_finish_what_they_began() -> None:
    edited = journey(Wait("wait-1h", "other", HOUR, None, None), email("other"), version="v2", **on("Cart Updated"))
    story = Shop(playbook(reminder(), name="old"), playbook(edited, name="new"))
    story.posts("Cart Updated", when="0m")
    story.activate("new", when="30m")
    story.posts("Cart Updated", when="40m", customer="bert")
    story.ticks(when="3h")
    assert sorted(story.sent()) == [("mail", at("1h")), ("other", at("100m"))]


def test_new_wording_reaches_those_inside() -> None:
    # A playbook whose journey has the same structure is the same version: nothing old needs to be kept for it.
    story = Shop(playbook(reminder(), name="old"), playbook(reminder(title="Nicer"), name="new"))
    story.posts("Cart Updated", when="0m")
    story.activate("new", when="30m")
    del story.road.playbooks["old"]
    story.ticks(when="2h")
    assert story.sent() == [("mail", at("1h"))]


def test_removed_journey_sends_nothing_more() -> None:
    story = Shop(playbook(reminder(), name="with"), playbook(name="without"))
    story.posts("Cart Updated", when="0m")
    story.activate("without", when="30m")
    del story.road.playbooks["with"]
    story.ticks(when="2h")
    assert (story.sent(), story.ended()) == ([], ["removed"])


def test_removed_journey_cancels_what_is_held_when_it_is_touched() -> None:
    story = Shop(playbook(reminder(), name="with"), playbook(name="without"), mailer="holds")
    story.posts("Cart Updated", when="0m")
    story.ticks(when="1h")
    story.activate("without", when="2h")
    story.posts("Product Viewed", when="3h")
    assert story.cancelled() == [("mail", "removed")]


def test_no_playbook_no_journeys() -> None:
    story = Shop(playbook(reminder()))
    before = story.posts("Cart Updated", when="0m")
    fresh = replayed(story.road, [before], [1])
    assert (fresh.rows, fresh.enrollments) == ({}, {})


def test_activation_goes_on_to_the_mailer() -> None:
    story = Shop(playbook(reminder()))
    assert story.road.messages == [Activation(as_of=at(-HOUR), playbook="playbook")]


@pytest.mark.parametrize(("pause", "ticks"), [(0.4, 1), (1.0, 2), (5.0, 2)])
def test_mailer_is_told_the_time_where_it_hears_nothing_else(pause: float, ticks: int) -> None:
    story = Shop(playbook(reminder()))
    story.posts("Product Viewed", when="0m")
    story.posts("Product Viewed", when=timedelta(seconds=pause))
    said = [message for message in story.road.messages if isinstance(message, Tick)]
    assert len(said) == ticks


def test_sweep_does_not_lose_what_else_the_customer_waits_for() -> None:
    other = journey(Wait("wait-1d", "hello", DAY, None, None), email("hello"), name="other", **on("Signed Up"))
    versions = {"a": reminder(), "b": reminder(status="paused"), "c": reminder()}
    story = Shop(*(playbook(one, other, name=name) for name, one in versions.items()), mailer="holds")
    story.posts("Cart Updated", when="0m")
    story.posts("Signed Up", when="0m")
    story.activate("b", when="10m")
    story.ticks(when="3h")
    story.activate("c", when="5h")
    story.road.sweep()
    story.ticks(when="5h")
    story.ticks(when="2d")
    assert story.sent() == [("mail", at("5h")), ("hello", at("24h"))]
