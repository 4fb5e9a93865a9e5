"""Waiting: elapsed time, times of day in the customer's own time, and the nights when clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from journeys_road import Shop, at, email, journey, on, playbook

from shared.language.playbook import EventMatch, Wait, WaitFor

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def mails_after(wait: Wait) -> Shop:
    return Shop(playbook(journey(wait, email("hello"), **on("Signed Up"))))


def test_until_ten_in_the_customers_own_morning() -> None:
    story = mails_after(Wait("morning", "hello", None, time(10, 0), None))
    story.is_now(timezone="America/New_York")
    story.posts("Signed Up", when="0m")
    assert story.enrollments()[0].due == datetime(2026, 3, 2, 15, 0, tzinfo=UTC)


def test_without_a_timezone_the_brands_counts() -> None:
    story = mails_after(Wait("morning", "hello", None, time(10, 0), None))
    story.posts("Signed Up", when="0m")
    assert story.enrollments()[0].due == datetime(2026, 3, 3, 9, 0, tzinfo=UTC)


def test_two_days_and_then_a_tuesday_morning() -> None:
    story = mails_after(Wait("tuesday", "hello", 2 * DAY, time(10, 0), frozenset({1})))
    story.posts("Signed Up", when="0m")
    story.ticks(when="30d")
    assert story.sent() == [("hello", datetime(2026, 3, 10, 9, 0, tzinfo=UTC))]


def test_exactly_now_goes_on_at_once() -> None:
    story = mails_after(Wait("one", "hello", None, time(13, 0), None))
    story.posts("Signed Up", when="0m")
    assert story.sent() == [("hello", at("0m"))]


def test_a_day_is_24_hours_also_when_clocks_change() -> None:
    story = mails_after(Wait("wait-1d", "hello", DAY, None, None))
    saturday = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)
    story.posts("Signed Up", when=saturday)
    assert story.enrollments()[0].due == saturday + DAY


def test_night_without_half_past_two() -> None:
    story = mails_after(Wait("night", "hello", None, time(2, 30), None))
    story.posts("Signed Up", when=datetime(2026, 3, 28, 12, 0, tzinfo=UTC))
    story.ticks(when=datetime(2026, 3, 29, 12, 0, tzinfo=UTC))
    assert story.sent() == [("hello", datetime(2026, 3, 29, 1, 0, tzinfo=UTC))]


def test_night_with_half_past_two_twice() -> None:
    story = mails_after(Wait("night", "hello", None, time(2, 30), None))
    story.posts("Signed Up", when=datetime(2026, 10, 24, 12, 0, tzinfo=UTC))
    story.ticks(when=datetime(2026, 10, 25, 12, 0, tzinfo=UTC))
    assert story.sent() == [("hello", datetime(2026, 10, 25, 0, 30, tzinfo=UTC))]


def test_customer_who_moves_is_waited_for_in_the_new_timezone() -> None:
    story = mails_after(Wait("morning", "hello", None, time(10, 0), None))
    story.posts("Signed Up", when="0m")
    story.is_now(timezone="Asia/Tokyo")
    story.posts("Profile Edited", when="1h")
    # It is 22:00 in Tokyo; ten o'clock there is 01:00 UTC.
    assert story.enrollments()[0].due == datetime(2026, 3, 3, 1, 0, tzinfo=UTC)


def test_customer_who_moves_past_the_hour_is_not_woken_at_night() -> None:
    story = mails_after(Wait("morning", "hello", None, time(10, 0), None))
    story.posts("Signed Up", when="0m")
    # 08:30 in Oslo is 16:30 in Tokyo, where ten o'clock has passed since the wait began: tomorrow's is the next.
    story.is_now(timezone="Asia/Tokyo")
    story.posts("Profile Edited", when=datetime(2026, 3, 3, 7, 30, tzinfo=UTC))
    assert story.enrollments()[0].due == datetime(2026, 3, 4, 1, 0, tzinfo=UTC)


def test_elapsed_wait_does_not_mind_who_moves() -> None:
    story = mails_after(Wait("wait-1d", "hello", DAY, None, None))
    story.posts("Signed Up", when="0m")
    story.is_now(timezone="Asia/Tokyo")
    story.posts("Profile Edited", when="1h")
    assert story.enrollments()[0].due == at("24h")


def test_timeout_at_the_very_instant_wins() -> None:
    waits = journey(
        WaitFor("answer", "thanks", "sorry", EventMatch("Answered", None), None, HOUR),
        email("thanks"),
        email("sorry"),
        **on("Asked"),
    )
    story = Shop(playbook(waits))
    story.posts("Asked", when="0m")
    story.posts("Answered", when="1h")
    assert story.sent() == [("sorry", at("1h"))]


def test_answer_is_left_behind_for_later_steps() -> None:
    waits = journey(
        WaitFor("answer", "thanks", None, EventMatch("Answered", None), None, HOUR),
        email("thanks", score="steps.answer.event.score + 1", price="1.5 * 2", when="now"),
        **on("Asked"),
    )
    story = Shop(playbook(waits))
    story.posts("Asked", when="0m")
    story.posts("Answered", {"score": 9}, when="10m")
    [message] = story.requested()
    assert message.data["with"] == {"score": 10, "price": 3, "when": "2026-03-02T12:10:00Z"}
