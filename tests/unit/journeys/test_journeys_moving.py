"""Those inside an older version of a journey are taken along to the one in force, by the id of their step."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from journeys_road import NOON, Road, Shop, at, email, journey, on, playbook
from msgspec.structs import replace
from test_journeys_laws import PLAYBOOKS, STORIES, played

from services.journeys.enrollment import Enrollment
from shared.contracts.customers import Activation, Tick
from shared.contracts.messages import MessageCancelled, MessageRequested
from shared.language.durations import parse_duration
from shared.language.playbook import Email, EventMatch, Goal, Journey, Step, Wait, WaitFor

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def wait(name: str, then: str | None, text: str) -> Wait:
    return Wait(name, then, parse_duration(text), None, None)


def answer(timeout: str, then: str | None = "thanks", otherwise: str | None = None, event: str = "Answered") -> WaitFor:
    return WaitFor("answer", then, otherwise, EventMatch(event, None), None, parse_duration(timeout))


def moved(old: list[Step], new: list[Step], *, when: str = "30m", mailer: str = "sends", sweep: bool = True) -> Shop:
    """A customer enters the old version at noon, and is to be taken along to the new one."""
    first = journey(*old, **on("Asked"))
    second = journey(*new, version="v2", **on("Asked"))
    story = Shop(playbook(first, name="old"), playbook(second, name="new"), mailer=mailer)
    story.posts("Asked", when="0m")
    story.ticks(when=when)
    story.activate("new", when=when, moves=["cart"])
    if sweep:
        story.road.sweep()
        story.ticks(when=when)
    return story


SHORT: list[Step] = [wait("first", "mail", "1h"), email("mail")]
OLD: list[Step] = [wait("first", "mail", "1h"), email("mail", "answer"), answer("1d"), email("thanks")]


@pytest.mark.parametrize("sweep", [True, False])
@pytest.mark.parametrize(
    ("new", "when", "sent"),
    [
        # What the step leads to is the new version's, and the step goes on as it was.
        ([wait("first", "other", "1h"), email("other")], "30m", [("other", "1h")]),
        # A longer and a shorter wait count from when it began.
        ([wait("first", "mail", "3h"), email("mail")], "30m", [("mail", "3h")]),
        ([wait("first", "mail", "10m"), email("mail")], "30m", [("mail", "30m")]),
        # Steps before it are not made up for.
        ([email("new", "first"), wait("first", "mail", "1h"), email("mail")], "30m", [("mail", "1h")]),
        # A step that has become another one begins anew.
        ([email("first")], "30m", [("first", "30m")]),
        # There is no such step any more: what was begun is finished.
        ([wait("another", "other", "1h"), email("other")], "30m", [("mail", "1h")]),
        # While it waits for an answer.
        ([answer("2d", None, "late"), email("late")], "2h", [("mail", "1h"), ("late", "49h")]),
        ([answer("30m", None, "late"), email("late")], "2h", [("mail", "1h"), ("late", "2h")]),
    ],
)
def test_who_waits_is_taken_along(new: list[Step], when: str, sent: list[tuple[str, str]], sweep: bool) -> None:
    story = moved(OLD, new, when=when, sweep=sweep)
    story.posts("Product Viewed", when="60h")
    story.ticks(when="61h")
    assert story.sent() == [(name, at(moment)) for name, moment in sent]


def test_an_answer_counts_by_the_version_that_the_customer_is_in_now() -> None:
    story = moved(OLD, [answer("1d", "thanks", None, "Replied"), email("thanks")], when="2h")
    story.posts("Answered", when="3h")
    story.posts("Replied", when="4h")
    assert story.sent() == [("mail", at("1h")), ("thanks", at("4h"))]


def test_a_mail_that_is_held_is_awaited_and_not_sent_twice() -> None:
    story = moved(OLD, [email("mail", "last"), email("last")], when="2h", mailer="holds")
    (held,) = story.requested()
    story.outcome(held, when="5h", decided_for=at("5h"))
    assert story.sent() == [("mail", at("1h")), ("last", at("5h"))]
    assert story.cancelled() == []


def test_whose_mail_is_no_mail_any_more_finishes_what_they_began() -> None:
    story = moved(OLD, [wait("mail", "last", "1h"), email("last")], when="2h", mailer="holds")
    (held,) = story.requested()
    story.outcome(held, when="5h", decided_for=at("5h"))
    story.ticks(when="6h")
    assert story.enrollments()[0].version == "v1"
    assert story.enrollments()[0].step == "answer"


def test_who_could_not_be_taken_along_is_not_taken_along_later() -> None:
    story = moved(OLD, [answer("9d"), email("thanks")], when="30m")
    story.ticks(when="2h")
    assert [(one.version, one.step) for one in story.enrollments()] == [("v1", "answer")]
    # Only where it is asked for again.
    story.activate("new", when="3h", moves=["cart"])
    story.road.sweep()
    story.ticks(when="3h")
    assert [(one.version, one.due) for one in story.enrollments()] == [("v2", at("1h") + 9 * DAY)]


def test_who_enters_afterwards_and_who_has_left_are_none_of_it() -> None:
    story = moved(OLD, SHORT, when="30m")
    story.posts("Asked", when="31m", customer="bert")
    story.ticks(when="2d")
    assert {one.version for one in story.enrollments()} | {one.version for one in story.enrollments("bert")} == {"v2"}
    assert story.ended() == ["completed"]


def test_held_out_customers_stay_held_out_for_as_long_as_the_new_goal_counts() -> None:
    goal = Goal(EventMatch("Bought", None), 2 * DAY, None)
    first = journey(*OLD, **{**on("Asked"), "goal": goal, "holdout": Decimal(1)})
    second = replace(first, version="v2", goal=replace(goal, within=5 * DAY), holdout=Decimal(0))
    story = Shop(playbook(first, name="old"), playbook(second, name="new"))
    story.posts("Asked", when="0m")
    story.activate("new", when="1h", moves=["cart"])
    story.road.sweep()
    story.ticks(when="1h")
    assert [(one.status, one.version, one.due) for one in story.enrollments()] == [("held_out", "v2", at("5d"))]


def test_moving_in_a_pause_moves_nothing_on() -> None:
    first, second = journey(*OLD, **on("Asked")), journey(*SHORT, version="v2", **on("Asked"))
    story = Shop(playbook(first, name="old"), playbook(second, name="new"))
    story.posts("Asked", when="0m")
    story.activate("old", when="30m", paused=["cart"])
    story.ticks(when="2h")
    assert story.enrollments()[0].status == "parked"
    story.activate("new", when="3h", paused=["cart"], moves=["cart"])
    story.road.sweep()
    story.ticks(when="3h")
    assert [(one.status, one.version) for one in story.enrollments()] == [("parked", "v2")]
    story.activate("new", when="4h")
    story.road.sweep()
    story.ticks(when="4h")
    assert story.sent() == [("mail", at("4h"))]


def test_a_pause_by_hand_holds_until_it_is_lifted_and_outlasts_other_playbooks() -> None:
    story = Shop(playbook(journey(*OLD, **on("Asked")), name="old"), playbook(journey(*OLD, **on("Asked")), name="new"))
    story.posts("Asked", when="0m")
    story.activate("old", when="30m", paused=["cart"])
    story.posts("Asked", when="40m", customer="bert")
    story.activate("new", when="50m", paused=["cart"])
    story.ticks(when="2h")
    assert (story.sent(), story.enrollments("bert")) == ([], [])
    story.activate("new", when="3h")
    story.road.sweep()
    story.ticks(when="3h")
    assert story.sent() == [("mail", at("3h"))]


@settings(max_examples=150, deadline=None)
@given(STORIES)
# A journey is removed while somebody is inside, whose other enrollment's wait is over before the sweep comes by.
@example(
    [
        (0, ("activates", "c", set(), {"cart"})),
        (0, ("activates", "a", set(), set())),
        (0, ("posts", "bert", "Cart Updated", {"cart_id": "c1"}, False)),
        (0, ("vip", "bert", True)),
        (0, ("activates", "b", set(), set())),
        (90_000, ("posts", "anna", "Cart Updated", {"cart_id": "c1"}, False)),
    ]
)
def test_it_makes_no_difference_when_the_sweep_comes_by(actions: list[Any]) -> None:
    """A move, a removal and the end of a pause count from when they were asked for: whether a record comes first, or
    the sweep."""
    shop = played(actions)
    soon, late = Road(*PLAYBOOKS), Road(*PLAYBOOKS)

    def sweep(road: Road) -> None:
        road.sweep()
        road.drive([Tick(as_of=road.as_of)])

    for record in shop.log:
        if isinstance(record, Activation) and late.memo:
            sweep(late)
        late.drive([record])
        soon.drive([record])
        if isinstance(record, Activation):
            sweep(soon)
    for road in (soon, late):
        sweep(road)
    assert become(soon) == become(late)


def become(road: Road) -> tuple[Any, ...]:
    asked = {one.id: (one.due, one.data) for one in road.messages if isinstance(one, MessageRequested)}
    cancelled = {(one.id, one.reason) for one in road.messages if isinstance(one, MessageCancelled)}
    return road.enrollments, asked, cancelled, +road.tallies, road.timers


# A marketer edits at random while customers are inside.

NAMES = ["a", "b", "c", "d"]
STEPS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(["wait", "mail", "answer"]), st.integers(1, 5)),
    min_size=1,
    max_size=4,
    unique_by=lambda step: step[0],
)
GOALS = st.sampled_from([None, "Bought", "Product Viewed"])
EDITS = st.one_of(st.none(), st.tuples(STEPS, GOALS))
"""Another version of the journey, or None: it is removed."""
MOMENTS = st.sampled_from([0, 600, 3600, 7200, 86_400])
DEEDS = st.one_of(
    st.tuples(st.just("asks"), st.sampled_from(["anna", "bert"])),
    st.tuples(st.just("does"), st.sampled_from(["anna", "bert"]), st.sampled_from(["Bought", "Answered", "Other"])),
    st.tuples(st.just("edits"), EDITS, st.booleans(), st.booleans()),
    st.tuples(st.just("answers"), st.sampled_from(["Email Sent", "Email Skipped"])),
    st.tuples(st.just("sweeps")),
)


def version_of(steps: list[tuple[str, str, int]], goal: str | None, number: int) -> Journey:
    made: list[Step] = []
    following = [name for name, _, _ in steps[1:]]
    for (name, kind, hours), then in zip(steps, [*following, None], strict=True):
        if kind == "wait":
            made.append(Wait(name, then, hours * HOUR, None, None))
        elif kind == "mail":
            made.append(email(name, then))
        else:
            made.append(WaitFor(name, None, then, EventMatch("Answered", None), None, hours * HOUR))
    aim = Goal(EventMatch(goal, None), 3 * DAY, None) if goal is not None else None
    changes = {**on("Asked"), "again": "always", "goal": aim}
    return journey(*made, version=f"v{number}", **changes)


REASONS = {"completed", "goal", "removed", "unsubscribed"}


@settings(max_examples=300, deadline=None)
@given(EDITS, st.lists(st.tuples(MOMENTS, DEEDS), max_size=30))
def test_editing_a_live_journey_loses_nobody(first: Any, deeds: list[tuple[int, tuple[Any, ...]]]) -> None:
    books = []
    for number, edit in enumerate([first, *(deed[1] for _, deed in deeds if deed[0] == "edits")]):
        journeys = [version_of(*edit, number)] if edit is not None else []
        books.append(playbook(*journeys, name=f"p{number}"))
    story = Shop(*books, mailer="holds")
    coming = iter(books[1:])
    moment, answered = NOON, set()
    entered = 0
    now, held = books[0], list[str]()

    def answer_all(name: str) -> None:
        for message in story.requested():
            if message.id not in answered:
                answered.add(message.id)
                story.outcome(message, name, when=moment)

    for pause, deed in deeds:
        moment += timedelta(seconds=pause)
        before = {one.id for _, one in story.road.enrollments.values()}
        match deed:
            case "asks", customer:
                inside = any(one.inside and one.journey in now.journeys for one in story.enrollments(customer))
                story.posts("Asked", when=moment, customer=customer)
                begun = {one.id for _, one in story.road.enrollments.values()} - before
                assert len(begun) <= 1
                assert begun or inside or held or not now.journeys
                entered += len(begun)
            case "does", customer, event:
                story.posts(event, when=moment, customer=customer)
            case "edits", _, moves, paused:
                now = next(coming)
                held = ["cart"] if paused else []
                story.activate(now.hash, when=moment, moves=["cart"] if moves else [], paused=held)
            case "answers", name:
                answer_all(name)
            case ("sweeps",):
                story.road.sweep()
        story.ticks(when=moment)

    def told(one: Enrollment) -> str:
        return f"{one.id} {one.version} {one.status} at {one.step}: {one.reason}"

    # Nobody is lost: who entered is still inside, with a place in the version they are in, or has ended with a reason.
    found = [one for _, one in story.road.enrollments.values()]
    assert len(found) == entered
    versions = {one.version: one for book in books for one in book.journeys.values()}
    for one in found:
        if one.inside:
            step = versions[one.version].steps[one.step]
            assert {"waiting": Wait, "listening": WaitFor, "sending": Email}.get(one.status, object) in (
                type(step),
                object,
            ), told(one)
        else:
            assert one.reason in REASONS, told(one)
    asked = [message.id for message in story.requested()]
    assert len(asked) == len(set(asked))

    # And all of them come to an end once the pauses are over and the mailer has answered.
    last = books[-1]
    story.activate(last.hash, when=moment)
    for _ in range(12):
        story.road.sweep()
        answer_all("Email Sent")
        moment += DAY
        story.ticks(when=moment)
    assert not [told(one) for _, one in story.road.enrollments.values() if one.inside and last.journeys]
    # Of a journey that is removed they leave when they are passed by next, at the latest when their time comes.
    for customer in ("anna", "bert"):
        story.posts("Other", when=moment, customer=customer)
    assert not [told(one) for _, one in story.road.enrollments.values() if one.inside]
    asked = [message.id for message in story.requested()]
    assert len(asked) == len(set(asked))


def test_who_is_taken_along_is_told_so() -> None:
    story = moved(SHORT, [wait("first", "mail", "3h"), email("mail")])
    assert story.decided()[-2:] == ["30m moved first", "30m waits first until 3h"]
