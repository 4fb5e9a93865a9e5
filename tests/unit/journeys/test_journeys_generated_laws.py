"""Any journey that loads, whatever its steps: nobody is lost in it, no mail goes out twice, and every path ends."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from journeys_road import Shop, playbook, replayed
from test_journeys_laws import state

from shared.language import PlaybookInvalid, load
from shared.language.playbook import Journey

DAY = timedelta(days=1)
CONDITIONS = st.sampled_from(["trigger.total >= 50", 'key == "c1"', "traits.age > 30", "vars.seen == 1"])
WAITS = st.sampled_from(
    [
        "1h",
        "2d",
        {"until": "10:00"},
        {"for": "1d", "until": "18:30", "on": ["tue", "sat"]},
        {"on": ["sun"]},
        {"between": ["1h", "3d"]},
        {"until": "traits.renewal", "at": "09:00"},
    ]
)
PLAIN = st.one_of(
    WAITS.map(lambda wait: {"wait": wait}),
    st.just({"email": "hello"}),
    st.just({"set": {"vars.seen": 1}}),
    st.just({"emit": "Interest Shown"}),
    st.sampled_from(["3d", "0d"]).map(lambda time: {"pause": time}),
)


def branching(inner: st.SearchStrategy[list[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.builds(lambda a, b, c: {"if": a, "then": b, "else": c}, CONDITIONS, inner, inner),
        st.builds(
            lambda a, b, c, d: {"choose": [{"if": a, "then": b}, {"if": "traits.age > 50", "then": c}, {"else": d}]},
            CONDITIONS, inner, inner, inner,
        ),
        st.builds(
            lambda a, b, by: {
                "split": {"a": {"share": "30%", "then": a}, "b": {"share": "70%", "then": b}}, "by": by
            },
            inner, inner, st.sampled_from(["enrollment", "customer"]),
        ),
        st.builds(
            lambda a, b, time: {
                "wait_for": {"event": "Product Viewed"}, "timeout": time, "then": a, "on_timeout": b
            },
            inner, inner, st.sampled_from(["30m", "3d"]),
        ),
    )  # fmt: skip


def lists(step: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[list[Any]]:
    ends = st.sampled_from([[], [], [{"exit": "enough"}]])
    return st.builds(lambda steps, end: [*steps, *end], st.lists(step, max_size=3), ends)


INNER = st.recursive(lists(PLAIN), lambda inner: lists(st.one_of(PLAIN, branching(inner))), max_leaves=4)
STEPS = st.lists(st.one_of(PLAIN, branching(INNER)), min_size=2, max_size=5)


def named(steps: list[Any], names: Any) -> list[Any]:
    """The steps with a name for each that needs one."""
    found = []
    for step in steps:
        copy = {
            key: named(value, names) if key in ("then", "else", "on_timeout") else value for key, value in step.items()
        }
        if "choose" in copy:
            copy["choose"] = [
                {key: named(value, names) if key in ("then", "else") else value for key, value in way.items()}
                for way in copy["choose"]
            ]
        if "split" in copy:
            copy["split"] = {arm: {**one, "then": named(one["then"], names)} for arm, one in copy["split"].items()}
        if not {"if", "choose", "set", "exit"} & set(copy):
            copy["id"] = f"s{next(names)}"
        found.append(copy)
    return found


def journey_of(steps: list[Any], mode: str) -> Journey:
    """The journey, once it is proven. Discards what the checker refuses, such as a step that nobody reaches."""
    file = {
        "journey": "cart",
        "trigger": {"event": "Cart Updated", "key": "event.cart_id"},
        "mode": mode,
        "again": "1d",
        "goal": {"event": "Order Completed", "where": "event.cart_id == key", "within": "7d"},
        "defaults": {"topic": "cart-reminders"},
        "steps": named([{"set": {"vars.seen": 2}}, *steps], iter(range(1000))),
    }
    files = {
        "rapport.yaml": {"name": "Lamps", "sender": "shop@lamps.example", "postal_address": "Oslo", "carts": "sent"},
        "stages.yaml": {"stages": {"attract": True}},
        "topics.yaml": {"topics": {"cart-reminders": {"title": "Reminders", "kind": "promotional"}}},
        "journeys/cart.yaml": file,
    }
    texts = {name: json.dumps(data).encode() for name, data in files.items()}
    texts["messages/hello/subject.txt"] = b"Hello"
    texts["messages/hello/body.html"] = b"<p>Hello</p><a href='{{ unsubscribe_url }}'>Stop</a>"
    try:
        return load(texts).journeys["cart"]
    except PlaybookInvalid as refused:
        assume(all("nobody gets here" not in problem.message for problem in refused.problems))
        raise


EVENTS = st.tuples(
    st.sampled_from([0, 600, 7200, 100_000]),
    st.sampled_from(["Cart Updated", "Cart Updated", "Product Viewed", "Order Completed"]),
    st.sampled_from(["c1", "c2"]),
    st.sampled_from([10, 90]),
)


@settings(max_examples=40, deadline=None)
@given(STEPS, st.sampled_from(["single", "restart"]), st.lists(EVENTS, min_size=1, max_size=8), st.booleans())
def test_nobody_is_lost_no_mail_repeats_and_every_path_ends(
    steps: list[Any], mode: str, events: list[tuple[int, str, str, int]], skips: bool
) -> None:
    journey = journey_of(steps, mode)
    shop = Shop(playbook(journey), mailer="skips" if skips else "sends")
    shop.is_now("anna", traits={"age": 34, "renewal": "2026-03-05"})
    moment = timedelta()
    for pause, name, cart, total in events:
        moment += timedelta(seconds=pause)
        shop.posts(name, {"cart_id": cart, "total": total}, when=moment)
    for _ in range(8):
        moment += 5 * DAY
        shop.ticks(when=moment)

    enrollments = shop.enrollments()
    assert {one.entry.key for one in enrollments} == {cart for _, name, cart, _ in events if name == "Cart Updated"}
    assert {one.status for one in enrollments} <= {"ended"}
    assert all(one.reason for one in enrollments)
    messages = shop.requested()
    assert len({message.id for message in messages}) == len(messages)
    if mode == "single":
        assert set(Counter((message.enrollment, message.step) for message in messages).values()) <= {1}
    assert {message.step for message in messages} <= set(journey.steps)
    assert state(replayed(shop.road, shop.log, [len(shop.log)])) == state(shop.road)
