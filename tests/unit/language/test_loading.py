"""What becomes of a playbook that passes: a warning stops nothing, steps become a graph, what was left out is there."""

from __future__ import annotations

from datetime import time, timedelta
from decimal import Decimal

import pytest
from sample_playbook import CART, RAPPORT, STAGES, journey, sample

from shared.language import PlaybookInvalid, load
from shared.language.playbook import (
    DateTrigger,
    Email,
    EventTrigger,
    Exit,
    If,
    QuietHours,
    SegmentTrigger,
    StageTrigger,
    Wait,
    WaitFor,
)


def test_a_refused_playbook_says_everything() -> None:
    with pytest.raises(PlaybookInvalid) as refused:
        load(sample(topics_yaml=None))
    assert str(refused.value) == (
        'journeys/cart.yaml:7:10: topics.yaml has no topic "cart-reminders". Add it there, or use none yet.'
    )


def test_a_warning_keeps_nothing_from_loading() -> None:
    assert load(sample(journeys__cart_yaml=CART.replace("Cart Updated", "Cart Updates"))).journeys["cart"]


def test_the_brand_and_topics_come_with_what_was_left_out() -> None:
    rapport = RAPPORT + (
        "quiet_hours: 21:30-08:00\n"
        "rates: {SEK: 0.087}\n"
        "caps: {email: [{limit: 1, within: 1d}, {limit: 3, within: 1w}]}\n"
    )
    playbook = load(sample(rapport_yaml=rapport))
    brand = playbook.brand
    assert brand.quiet_hours == QuietHours(time(21, 30), time(8))
    assert brand.rates == {"SEK": Decimal("0.087")}
    assert [(cap.limit, cap.window) for cap in brand.caps] == [(1, timedelta(days=1)), (3, timedelta(days=7))]
    assert (brand.carts, brand.reply_to) == ("derived", None)
    assert {name: topic.default for name, topic in playbook.topics.items()} == {
        "cart-reminders": "opt_in",
        "receipts": "opt_out",
    }
    assert [stage.name for stage in playbook.stages] == ["convert", "attract"]
    assert playbook.segments["vip"].title == "Best customers"


def test_steps_become_a_graph_that_ends_with_none() -> None:
    text = journey(
        """
        - wait: 1h
        - email: cart-reminder
          with: {orders: count("Order Completed")}
        - id: came-back
          wait_for: {clicked: cart-reminder}
          timeout: 23h
          then:
            - exit: came back
          on_timeout:
        - if: in_segment("vip")
          then:
            - wait: {for: 2d, until: "10:00", on: [tue, sun]}
            - {id: second, email: cart-reminder, topic: receipts, priority: 9, expires: 1d, with: {orders: 1}}
        - wait_for: {event: Order Completed, where: event.cart_id == key}
          timeout: 10d
        """,
        head="goal: {event: Order Completed, within: 7d, value: event.total}\nexit_on:\n  - event: Cart Emptied",
        trigger="event: Cart Updated\nkey: event.cart_id\nif: event.total > 5",
    )
    playbook = load(sample(journeys__cart_yaml=text))
    found = playbook.journeys["cart"]
    assert found.first == "wait-1h"
    steps = found.steps
    assert list(steps) == [
        "wait-1h", "cart-reminder", "came-back", "exit-1", "if-1", "wait-2d", "second", "wait-for-order-completed",
    ]  # fmt: skip
    assert steps["wait-1h"] == Wait("wait-1h", "cart-reminder", timedelta(hours=1), None, None)
    mail = steps["cart-reminder"]
    assert isinstance(mail, Email)
    assert (mail.next, mail.topic, mail.priority, mail.expires) == (
        "came-back", "cart-reminders", 50, timedelta(hours=72),
    )  # fmt: skip
    assert list(mail.with_) == ["orders"]
    assert steps["came-back"] == WaitFor("came-back", "exit-1", "if-1", None, "cart-reminder", timedelta(hours=23))
    assert steps["exit-1"] == Exit("exit-1", "came back")
    branch = steps["if-1"]
    assert isinstance(branch, If)
    assert (branch.then, branch.otherwise) == ("wait-2d", "wait-for-order-completed")
    assert steps["wait-2d"] == Wait("wait-2d", "second", timedelta(days=2), time(10), frozenset({1, 6}))
    second = steps["second"]
    assert isinstance(second, Email)
    assert (second.next, second.topic, second.priority) == ("wait-for-order-completed", "receipts", 9)
    last = steps["wait-for-order-completed"]
    assert isinstance(last, WaitFor)
    assert last.match is not None
    assert (last.match.event, last.matched, last.timed_out) == ("Order Completed", None, None)
    assert isinstance(found.trigger, EventTrigger)
    assert found.condition is not None
    assert found.goal is not None
    assert found.goal.value is not None
    assert [match.event for match in found.exit_on] == ["Cart Emptied"]
    counted = {aggregate.event for aggregate in playbook.aggregates.values()}
    assert counted == {"Product Added", "Order Completed"}
    assert len(playbook.journey_aggregates) == 1


def test_the_other_triggers() -> None:
    def trigger(text: str) -> object:
        return (
            load(sample(journeys__cart_yaml=journey("- email: cart-reminder", trigger=text))).journeys["cart"].trigger
        )

    assert trigger("stage: convert") == StageTrigger("convert")
    assert trigger("segment: vip") == SegmentTrigger("vip", "entered")
    assert trigger("{segment: vip, change: left}") == SegmentTrigger("vip", "left")
    assert trigger('date: traits.birthday\nevery: year\nat: "09:00"\nbefore: 1w') == (
        DateTrigger(("birthday",), "year", time(9), 7)
    )


def test_a_journeys_version_follows_what_it_does_and_not_what_it_is_called() -> None:
    def version(text: str) -> str:
        return load(sample(journeys__cart_yaml=text)).journeys["cart"].version

    same = version(CART)
    assert version(CART.replace("journey: cart", "journey: cart\ntitle: Cart\nstatus: draft\nmode: single")) == same
    assert version("# why\n" + CART.replace("1h", "60m").replace("- wait", "- id: wait-1h\n    wait")) != same
    assert version(CART.replace("1h", "2h")) != same
    assert version(CART.replace("20", "30")) != same


def test_a_stage_may_look_like_a_yaml_boolean() -> None:
    assert load(sample(stages_yaml=STAGES)).stages[-1].when.source == "true"
