"""What an order is worth, and to which journey: the one clicked last, else the one that sent last, once, or none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from itertools import combinations
from typing import Any

import pytest
from journeys_road import Shop, at, email, journey, on, playbook, says
from msgspec.structs import replace

from services.journeys.store import MAILED
from shared.contracts.messages import MessageRequested
from shared.language.playbook import EventMatch, Exit, Goal, Journey, Playbook, Wait

DAY, WEEK = timedelta(days=1), timedelta(days=7)
ORDER = Goal(EventMatch("Order Completed", None), WEEK, says("event.total"))


def bringing(name: str, after: str = "0m", goal: Goal = ORDER, **changes: Any) -> Journey:
    """A journey of one mail, so long after the start."""
    hello = email(f"hello-{name}", topic="orders")
    if after == "0m":
        return journey(hello, name=name, **on("Signed Up", goal=goal, topic=None, **changes))
    wait = Wait("wait", hello.id, at(after) - at("0m"), None, None)
    return journey(wait, hello, name=name, **on("Signed Up", goal=goal, topic=None, **changes))


def shop(*journeys: Journey, rates: Mapping[str, Decimal] | None = None, mailer: str = "sends") -> Shop:
    book = playbook(*journeys)
    story = Shop(replace(book, brand=replace(book.brand, rates=rates or {})), mailer=mailer)
    story.posts("Signed Up", when="0m")
    return story


def orders(story: Shop, when: str, total: Any = 80, **properties: Any) -> None:
    story.posts("Order Completed", {"total": total, **properties}, when=when)


def attributed(story: Shop) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for one in story.enrollments():
        if one.attributed is not None:
            found[one.journey] = found.get(one.journey, Decimal(0)) + one.attributed
    # The sums that reports show are those of the enrollments.
    assert found == {journey: value for (journey, _), (_, value) in story.road.attributed.items()}
    return found


def mail_of(story: Shop, name: str) -> MessageRequested:
    return next(message for message in story.requested() if message.journey == name)


def test_an_order_goes_to_the_journey_that_sent_last() -> None:
    story = shop(bringing("first"), bringing("second", "1d"))
    orders(story, "2d")
    assert attributed(story) == {"second": 80}
    assert all(one.goal_at == at("2d") for one in story.enrollments())
    assert story.road.attributed["second", "EUR"] == (1, 80)


def test_an_order_goes_to_the_journey_that_was_clicked_even_if_another_sent_later() -> None:
    story = shop(bringing("first"), bringing("second", "1d"))
    story.clicks(mail_of(story, "first"), when="2h")
    orders(story, "2d")
    assert attributed(story) == {"first": 80}


def test_a_click_counts_also_after_the_journey_was_left() -> None:
    story = shop(bringing("first"), bringing("second", "1d"), bringing("third", "2d"))
    story.ticks(when="49h")
    story.clicks(mail_of(story, "second"), when="50h")
    story.clicks(mail_of(story, "first"), when="51h")
    orders(story, "3d")
    assert attributed(story) == {"first": 80}


def test_nothing_is_attributed_where_nothing_was_sent() -> None:
    story = shop(bringing("late", "2d"), bringing("skipped"), mailer="skips")
    orders(story, "1d")
    assert [one.goal_at for one in story.enrollments()] == [at("1d"), at("1d")]
    assert attributed(story) == {}


def test_a_mail_that_may_have_gone_out_counts_as_sent() -> None:
    story = shop(bringing("hopeful"), mailer="holds")
    story.outcome(mail_of(story, "hopeful"), "Email Unknown", when="1h")
    orders(story, "1d")
    assert attributed(story) == {"hopeful": 80}


def test_a_mail_that_went_out_after_all_counts_for_who_had_left() -> None:
    leaves = bringing("leaves", exit_on=(EventMatch("Cart Emptied", None),))
    story = shop(leaves, mailer="holds")
    story.posts("Cart Emptied", when="1h")
    story.outcome(mail_of(story, "leaves"), "Email Sent", when="2h", decided_for=at("0m"))
    orders(story, "1d")
    assert attributed(story) == {"leaves": 80}


def test_an_open_makes_no_difference_to_whom_an_order_goes() -> None:
    story = shop(bringing("first"), bringing("second", "1d"))
    mail = mail_of(story, "first")
    opened = {"message_id": mail.id, "enrollment": mail.enrollment, "machine": False}
    story.posts("Email Opened", opened, when="25h", source="rapport/mailer")
    orders(story, "2d")
    assert attributed(story) == {"second": 80}


def test_the_window_is_each_journeys_own() -> None:
    short = Goal(EventMatch("Order Completed", None), timedelta(days=1), says("event.total"))
    story = shop(bringing("long"), bringing("short", "1h", short))
    story.clicks(mail_of(story, "long"), when="30m")
    orders(story, "2d")
    assert attributed(story) == {"long": 80}


def test_who_was_held_out_is_not_mixed_in() -> None:
    story = shop(bringing("compared", holdout=Decimal(1)), bringing("earlier"))
    orders(story, "1d")
    assert attributed(story) == {"earlier": 80}
    assert [one.attributed for one in story.enrollments("anna") if one.reason == "held_out"] == [None]


def test_a_journey_without_a_value_takes_nothing_from_others() -> None:
    worthless = Goal(EventMatch("Order Completed", None), WEEK, None)
    story = shop(bringing("worth"), bringing("worthless", "1d", worthless))
    story.ticks(when="1d")
    story.clicks(mail_of(story, "worthless"), when="25h")
    orders(story, "2d")
    assert attributed(story) == {"worth": 80}


def test_an_order_that_is_sent_twice_is_attributed_once() -> None:
    keyed = {"mode": "single", "again": "always"}
    story = shop(bringing("each", **keyed))
    orders(story, "1d", order_id="o1")
    story.posts("Signed Up", when="2d")
    # The shop says it again, under another id; and 90 days later nobody remembers.
    orders(story, "3d", order_id="o1")
    assert attributed(story) == {"each": 80}
    story.posts("Signed Up", when="4d")
    orders(story, "5d", total=20, order_id="o2")
    assert attributed(story) == {"each": 100}
    story.ticks(when="100d")
    assert story.road.rows == {}
    assert story.road.timers == {}


def test_of_two_carts_that_one_order_closes_one_has_its_value() -> None:
    cart = journey(
        email("come-back", topic="orders"),
        goal=Goal(EventMatch("Order Completed", None), WEEK, says("event.total")),
        exit_on=(),
        topic=None,
    )
    story = Shop(playbook(cart))
    story.posts("Cart Updated", {"cart_id": "a"}, when="0m")
    story.posts("Cart Updated", {"cart_id": "b"}, when="1h")
    orders(story, "2h", order_id="o1")
    assert [(one.entry.key, one.attributed) for one in story.enrollments()] == [("a", None), ("b", 80)]


AGAIN = {**on("Signed Up"), "topic": None, "mode": "restart", "again": "always"}


def quiet_later(goal: Goal) -> Shop:
    """A journey that mails at once, and an hour later another version of it that waits."""
    steps = (email("hello", "wait", topic="orders"), Wait("wait", None, WEEK, None, None))
    mails = journey(*steps, name="j", **{**AGAIN, "goal": goal})
    story = Shop(playbook(mails), playbook(replace(mails, version="v2", first="wait"), name="quiet"))
    story.posts("Signed Up", when="0m")
    story.activate("quiet", when="1h")
    return story


def test_what_was_sent_before_the_journey_began_again_is_not_forgotten() -> None:
    story = quiet_later(ORDER)
    # They come back, and it begins anew, and has sent nothing since.
    story.posts("Signed Up", when="2h")
    orders(story, "3h")
    assert [(one.reason, one.attributed) for one in story.enrollments()] == [("restarted", None), ("goal", 80)]


def test_what_was_sent_longer_ago_than_the_window_is() -> None:
    story = quiet_later(Goal(EventMatch("Order Completed", None), 2 * DAY, says("event.total")))
    story.posts("Signed Up", when="36h")
    orders(story, "2d")
    assert [one.reason for one in story.enrollments()] == ["restarted", "goal"]
    assert attributed(story) == {}


@pytest.mark.parametrize(
    ("value", "properties", "worth"),
    [
        ("event.total", {"currency": "NOK"}, Decimal(8)),
        ("event.total", {"currency": "nok"}, Decimal(8)),
        ("event.total", {"currency": "EUR"}, Decimal(80)),
        ("event.total", {"currency": "kroner"}, Decimal(80)),
        # No rate: what cannot be added is not added.
        ("event.total", {"currency": "SEK"}, None),
        # The marketer's own figure is in the brand's currency, whatever the customer paid in.
        ("25", {"currency": "NOK"}, Decimal(25)),
        ("event.total * 0.5", {}, Decimal(40)),
        ("event.totl", {}, None),
        ("event.name", {"name": "lamp"}, None),
        ("0 - event.total", {}, None),
        ("event.total", {"total": 1e300}, None),
        ("event.total", {"total": 0.1 + 0.2}, Decimal("0.3")),
        ("event.total / 3", {"total": 1}, Decimal("0.333333333")),
    ],
)
def test_a_value_is_money_in_the_brands_currency(
    value: str, properties: Mapping[str, Any], worth: Decimal | None
) -> None:
    goal = Goal(EventMatch("Order Completed", None), WEEK, says(value))
    story = shop(bringing("worth", goal=goal), rates={"NOK": Decimal("0.1")})
    orders(story, "1d", **properties)
    assert attributed(story) == ({} if worth is None else {"worth": worth})
    assert all(one.goal_at is not None for one in story.enrollments())


def test_each_mail_that_went_out_is_counted_for_its_journey_once() -> None:
    story = shop(bringing("first"), bringing("second", "1d"))
    orders(story, "1h")
    story.ticks(when="3d")
    mailed = {tally.journey: count for tally, count in story.road.tallies.items() if tally.status == MAILED}
    assert mailed == {"first": 1}


def test_a_mail_is_counted_also_when_nobody_is_inside_any_more() -> None:
    story = shop(bringing("first", goal=replace(ORDER, within=None)), mailer="holds")
    orders(story, "1h")
    mail = mail_of(story, "first")
    sent = {"message_id": mail.id, "enrollment": mail.enrollment, "journey": "first"}
    record = story.event("Email Sent", sent, when="2h", source="rapport/mailer")
    assert not story.road.saves_nothing([record])
    story.road.drive([record])
    assert [count for tally, count in story.road.tallies.items() if tally.status == MAILED] == [1]


def test_however_the_road_is_cut_the_same_journey_has_the_order() -> None:
    """Of clicks and sends, what is last on the road is last, whatever the batches."""
    book: Playbook = playbook(bringing("a"), bringing("b"), bringing("c", "1h"))
    whole = Shop(book)
    whole.posts("Signed Up", when="0m")
    whole.clicks(mail_of(whole, "b"), when="30m")
    whole.clicks(mail_of(whole, "a"), when="30m")
    orders(whole, "2h", order_id="o1")
    expected = attributed(whole)
    # At one and the same instant: the one that began later.
    assert expected == {"b": 80}
    for cut in combinations(range(1, len(whole.log)), 2):
        again = Shop(book)
        records, again.log = list(whole.log[1:]), []
        for start, end in zip((0, *cut), (*cut, len(records)), strict=True):
            if records[start:end]:
                again.road.drive(records[start:end])
        assert attributed(again) == expected


def test_a_journey_that_has_left_by_exit_has_the_order_as_well() -> None:
    enough = journey(
        email("hello", "enough", topic="orders"), Exit("enough", "enough"), name="j", **on("Signed Up", goal=ORDER)
    )
    story = shop(enough)
    orders(story, "2d", total=30)
    assert attributed(story) == {"j": 30}
    assert [one.reason for one in story.enrollments()] == ["enough"]
