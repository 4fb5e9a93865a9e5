"""What always holds, whatever customers, shops and mailers do, and however it is cut into batches."""

from __future__ import annotations

from collections import Counter
from datetime import time, timedelta
from typing import Any
from uuid import UUID, uuid5

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from journeys_road import NOON, Road, Shop, email, journey, on, playbook, replayed, says

from services.journeys.enrollment import Involvement, effect_id
from services.journeys.noted import tally
from services.journeys.store import MAILED
from shared.contracts.customers import Activation, CustomerUpdated
from shared.contracts.events import MAILER_SOURCE
from shared.contracts.messages import MessageCancelled, MessageRequested
from shared.language.playbook import EventMatch, Exit, Goal, If, Journey, Playbook, SegmentTrigger, Wait, WaitFor

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def cart(status: str = "live", version: str = "v1", **changes: Any) -> Journey:
    return journey(
        Wait("wait", "first", 2 * HOUR if version == "v1" else 3 * HOUR, None, None),
        email("first", "back"),
        WaitFor("back", "came-back", "ask", None, "first", 5 * HOUR),
        Exit("came-back", "came back"),
        If("ask", says('in_segment("vip")'), "morning", "second"),
        Wait("morning", "second", None, time(10, 0), None),
        email("second", topic="service"),
        status=status,
        version=version,
        again=timedelta(hours=9),
        goal=Goal(EventMatch("Order Completed", says("event.cart_id == key")), timedelta(days=7), says("10")),
        **changes,
    )


def welcome() -> Journey:
    return journey(
        WaitFor("looks", "welcome", "welcome", EventMatch("Product Viewed", None), None, 4 * HOUR),
        email("welcome", topic="newsletter"),
        name="welcome",
        **on("Signed Up", again="never"),
    )


def best() -> Journey:
    return journey(
        email("best", "wait"),
        Wait("wait", None, HOUR, None, None),
        name="best",
        **{**on(""), "trigger": SegmentTrigger("vip", "entered"), "again": "always", "mode": "restart"},
    )


PLAYBOOKS: tuple[Playbook, ...] = (
    playbook(cart(), welcome(), best(), name="a"),
    playbook(cart("paused"), welcome(), name="b"),
    playbook(cart(version="v2"), welcome(), best(), name="c"),
    playbook(cart("draft", version="v2"), best(), name="d"),
)

CUSTOMERS = st.sampled_from(["anna", "bert"])
CARTS = st.sampled_from(["c1", "c2"]).map(lambda cart_id: {"cart_id": cart_id})
PAUSES = st.sampled_from([0, 0, 1, 700, 3600, 7200, 30_000, 90_000])
NAMES = ["Cart Updated", "Cart Updated", "Cart Emptied", "Order Completed", "Product Viewed", "Signed Up"]
ENDS = ["Email Sent", "Email Sent", "Email Skipped", "Email Unknown"]
SOME = st.sets(st.sampled_from(["cart", "welcome"]), max_size=1)
"""Journeys that somebody pauses by hand, or whose insiders are to move."""
ACTIONS = st.one_of(
    st.tuples(st.just("posts"), CUSTOMERS, st.sampled_from(NAMES), CARTS, st.booleans()),
    st.tuples(st.just("answers"), st.sampled_from(ENDS), st.integers(0, 5)),
    st.tuples(st.just("clicks"), st.integers(0, 5)),
    st.tuples(st.just("vip"), CUSTOMERS, st.booleans()),
    st.tuples(st.just("moves"), CUSTOMERS, st.sampled_from(["Asia/Tokyo", "America/New_York", "nowhere"])),
    st.tuples(st.just("no"), CUSTOMERS, st.sampled_from(["cart-reminders", "*", "newsletter"])),
    st.tuples(st.just("activates"), st.sampled_from("abcd"), SOME, SOME),
    st.tuples(st.just("ticks")),
)
STORIES = st.lists(st.tuples(PAUSES, ACTIONS), max_size=40)


def played(actions: list[tuple[int, tuple[Any, ...]]]) -> Shop:
    shop = Shop(*PLAYBOOKS, mailer="holds")
    answered: set[str] = set()
    moment = NOON
    for pause, action in actions:
        moment += timedelta(seconds=pause)
        open_messages = [message for message in shop.requested() if message.id not in answered]
        match action:
            case "posts", customer, name, properties, historical:
                old = historical and customer == "bert"
                shop.posts(name, properties, when=moment, customer=customer, historical=old)
            case "answers", name, number if open_messages:
                message = open_messages[number % len(open_messages)]
                answered.add(message.id)
                shop.outcome(message, name, when=moment, decided_for=max(message.due, moment - HOUR))
            case "clicks", number if shop.requested():
                shop.clicks(shop.requested()[number % len(shop.requested())], when=moment)
            case "vip", customer, yes:
                moment += timedelta(microseconds=1)  # time alone changes nobody twice in one instant
                was = bool(shop.customer(customer).segments)
                shop.is_now(customer, segments=("vip",) if yes else ())
                changed = {"entered": ("vip",)} if yes and not was else {"left": ("vip",)} if was and not yes else {}
                shop.changes(when=moment, customer=customer, **changed)
            case "moves", customer, timezone:
                shop.is_now(customer, timezone=timezone)
                shop.posts("Profile Edited", when=moment, customer=customer)
            case "no", customer, topic:
                shop.says_no(topic, when=moment, customer=customer)
            case "activates", name, paused, moves:
                shop.activate(name, when=moment, paused=sorted(paused), moves=sorted(moves))
            case "ticks":
                shop.ticks(when=moment)
    return shop


def state(road: Road) -> dict[str, Any]:
    return {
        "stories": {key: msgspec.msgpack.decode(row.story, type=Involvement) for key, row in road.rows.items()},
        "snapshots": {key: row.snapshot for key, row in road.rows.items()},
        "enrollments": road.enrollments,
        "tallies": +road.tallies,
        "timers": road.timers,
        "messages": road.messages,
        "decided": road.decided,
        "memo": road.memo,
        "as_of": road.as_of,
    }


@settings(max_examples=200, deadline=None)
@given(STORIES, st.lists(st.integers(1, 12), max_size=20))
def test_batches_make_no_difference(actions: list[Any], sizes: list[int]) -> None:
    shop = played(actions)
    assert state(replayed(shop.road, shop.log, sizes)) == state(shop.road)


@settings(max_examples=200, deadline=None)
@given(STORIES)
def test_one_message_for_one_cause(actions: list[Any]) -> None:
    shop = played(actions)
    ids = [message.id for message in shop.requested()]
    assert len(ids) == len(set(ids))
    for customer in ("anna", "bert"):
        inside = Counter((one.journey, one.entry.key) for one in shop.enrollments(customer) if one.inside)
        assert set(inside.values()) <= {1}
    # A step's message is asked for again only where the one before has certainly not gone out.
    gone = outcomes(shop)
    last: dict[tuple[str, str], MessageRequested] = {}
    for message in shop.requested():
        before = last.get((message.enrollment, message.step))
        assert before is None or gone.get(before.id) == "Email Skipped"
        last[message.enrollment, message.step] = message


def outcomes(shop: Shop) -> dict[str, str]:
    events = [record.event for record in shop.log if isinstance(record, CustomerUpdated) and record.event is not None]
    return {
        msgspec.json.decode(event.properties)["message_id"]: event.name
        for event in events
        if event.source == MAILER_SOURCE and event.name != "Email Link Clicked"
    }


def mailed(shop: Shop) -> Counter[str]:
    """How many messages of each journey have gone out."""
    events = [record.event for record in shop.log if isinstance(record, CustomerUpdated) and record.event is not None]
    sent = [event for event in events if event.source == MAILER_SOURCE and event.name == "Email Sent"]
    return Counter(msgspec.json.decode(event.properties)["journey"] for event in sent)


@settings(max_examples=200, deadline=None)
@given(STORIES)
def test_every_enrollment_has_ended_or_waits_for_something(actions: list[Any]) -> None:
    shop = played(actions)
    answered = outcomes(shop)
    cancelled = {message.id for message in shop.road.messages if isinstance(message, MessageCancelled)}
    paused = any(one.playbook == "b" or one.paused for one in shop.log if isinstance(one, Activation))
    for customer, one in shop.road.enrollments.values():
        timer = shop.road.timers.get(("wake", customer))
        match one.status:
            case "waiting" | "listening" | "watching":
                assert one.due is not None
                assert timer is not None
                assert timer <= one.due
            case "sending":
                assert one.message not in answered
                assert one.pending is not None or one.message not in cancelled
            case "parked":
                # Held by the pause in "b" or by one by hand, or not swept yet since it ended.
                assert paused
            case "ended":
                assert one.ended_at is not None
                assert one.reason
                assert not one.message
    told = Counter({tally.journey: n for tally, n in shop.road.tallies.items() if tally.status == MAILED})
    assert told == mailed(shop)
    counted = Counter({tally: n for tally, n in shop.road.tallies.items() if tally.status != MAILED})
    assert +counted == Counter(tally(one) for _, one in shop.road.enrollments.values())
    worth = [one.attributed for _, one in shop.road.enrollments.values() if one.attributed is not None]
    assert sum(worth) == sum(value for _, value in shop.road.attributed.values())
    assert all(one.sent_at is not None for _, one in shop.road.enrollments.values() if one.attributed is not None)


@settings(max_examples=100, deadline=None)
@given(STORIES)
def test_all_come_to_an_end_once_everything_is_answered(actions: list[Any]) -> None:
    shop = played(actions)
    shop.activate("a", when=shop.road.as_of - NOON)
    for _ in range(12):
        shop.road.sweep()
        for message in shop.requested():
            if message.id not in outcomes(shop):
                shop.outcome(message, "Email Sent")
        shop.ticks(when=shop.road.as_of + 2 * DAY)
    assert {one.status for _, one in shop.road.enrollments.values()} <= {"ended"}
    # What is left is who may never be welcomed again, and who was in a journey that was removed and came back.
    for row in shop.road.rows.values():
        story = msgspec.msgpack.decode(row.story, type=Involvement)
        assert story.enrollments == ()
        assert {left.journey for left in story.left} <= {"welcome", "best"}


@settings(max_examples=200, deadline=None)
@given(STORIES)
def test_nothing_is_asked_for_once_an_enrollment_has_left(actions: list[Any]) -> None:
    shop = played(actions)
    road = Road(*PLAYBOOKS)
    for record in shop.log:
        left = {one.id for _, one in road.enrollments.values() if not one.inside}
        before = len(road.values)
        road.drive([record])
        asked = [message for message in road.messages[before:] if isinstance(message, MessageRequested)]
        assert not left & {message.enrollment for message in asked}


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_an_id_is_the_name_of_its_cause(enrollment: str, step: str) -> None:
    namespace = UUID("a0a1c1a7-5a5f-5d9e-9f25-1d4ad7a1d0c3")
    assert effect_id(enrollment, step, 2) == str(uuid5(namespace, f"{enrollment}\n{step}\n2"))
