"""The tests of journeys are checked like the journeys: every name in them exists, and every slip has its place."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from shared.language import SHIPPED, PlaybookInvalid, check, load, load_with_tests, read_folder
from shared.language.checks.tests import instant_of

SHOP = {name: content for name, content in read_folder(SHIPPED).items() if not name.endswith(".test.yaml")}
FILE = "journeys/abandoned-cart.test.yaml"


def said(tests: str, file: str = FILE) -> list[str]:
    return [str(problem) for problem in check({**SHOP, file: tests.encode()})]


def one(lines: str) -> str:
    return f"tests:\n  - name: a story\n{lines}"


def test_what_is_right_is_loaded() -> None:
    text = one("    given:\n      - {at: 1h, event: Product Viewed}\n    expect: {sent: []}\n")
    loaded = load_with_tests({**SHOP, FILE: text.encode()})
    [tested] = loaded.tests
    assert (tested.journey, [test.name for test in tested.tests]) == ("abandoned-cart", ["a story"])
    assert tested.place(0, "given", 0, "event").line == 4
    assert str(loaded.places.step("abandoned-cart", "cart-reminder")) == "journeys/abandoned-cart.yaml:25"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (
            "    expect: {sent: [cart-remindr]}\n",
            '3:21: this journey never sends "cart-remindr". Did you mean "cart-reminder"?',
        ),
        (
            "    expect: {sent: [{message: birthday, at: 1h}]}\n",
            '3:31: this journey never sends "birthday". It sends cart-last-call, cart-old-friend or cart-reminder.',
        ),
        (
            "    given:\n      - {at: 1h, event: Order Completd}\n    expect: {sent: []}\n",
            '4:25: no file under events/ describes "Order Completd". Did you mean "Order Completed"?',
        ),
        (
            "    given:\n      - {at: 2h, event: Product Viewed}\n      - {at: 1h, event: Product Viewed}\n"
            "    expect: {sent: []}\n",
            "5:14: this is earlier than what stands above it. Put them in order of time.",
        ),
        (
            "    given:\n      - {at: 1h, clicked: came-back}\n    expect: {sent: []}\n",
            '4:27: no step "came-back" of this journey sends a mail. '
            "This journey sends cart-reminder, cart-old-friend or cart-last-call.",
        ),
        (
            "    given:\n      - {at: 1h, evnt: Product Viewed}\n    expect: {sent: []}\n",
            '4:18: unknown given field "evnt". Did you mean "event"?',
        ),
        (
            "    given:\n      - {at: soon, event: Product Viewed}\n    expect: {sent: []}\n",
            '4:14: "soon" is no duration. Write a whole number and one of m, h, d, w: 30m, 1h, 2d, 1w. '
            "Or write a time such as 2026-03-02T20:30:00+01:00.",
        ),
        (
            "    start: 2026-03-02T20:30:00\n    expect: {sent: []}\n",
            '3:12: "2026-03-02T20:30:00" does not say in which timezone it is. Write it as 2026-03-02T20:30:00+01:00.',
        ),
        (
            "    customer: {consent: {cart-reminder: true}}\n    expect: {sent: []}\n",
            '3:41: topics.yaml has no topic "cart-reminder". Did you mean "cart-reminders"?',
        ),
        ("    outcomes: {cart-reminder: lost}\n    expect: {sent: []}\n", '3:31: "lost" is not known here. '),
        (
            "    arms: {tone: warm}\n    expect: {sent: []}\n",
            '3:18: this journey has no split "tone". ',
        ),
        ("    expect: {segments: [vips]}\n", '3:25: segments.yaml has no segment "vips". Did you mean "vip"?'),
        ("    expect: {sends: []}\n", '3:14: unknown field "sends". '),
        ("", '2:5: this mapping has no "expect". Add "expect".'),
    ],
)
def test_slips_in_a_test(lines: str, problem: str) -> None:
    found = said(one(lines))
    assert len(found) == 1, found
    assert found[0].startswith(f"{FILE}:{problem}")


def test_a_date_that_is_none_begins_nothing() -> None:
    tests = one(
        "    customer: {traits: {birthday: 1990-02-29}}\n"
        "    given: [{at: 1d, traits: {birthday: tomorrow}}, {at: 2d, traits: {birthday: 1992-02-29}}]\n"
        "    expect: {sent: []}\n"
    )
    assert said(tests, "journeys/birthday.test.yaml") == [
        'journeys/birthday.test.yaml:3:35: warning: "1990-02-29" is no date, so this journey does not begin by it. '
        "Write it as 1990-12-31.",
        'journeys/birthday.test.yaml:4:41: warning: "tomorrow" is no date, so this journey does not begin by it. '
        "Write it as 1990-12-31.",
    ]


def test_two_tests_need_two_names_and_a_file_needs_its_journey() -> None:
    twice = one("    expect: {sent: []}\n") + "  - name: a story\n    expect: {sent: []}\n"
    assert said(twice) == [f"{FILE}:4:11: another test of this file has the same name. Say in what they differ."]
    [nobody] = said(one("    expect: {sent: []}\n"), "journeys/abandoned.test.yaml")
    assert nobody.startswith('journeys/abandoned.test.yaml:1:1: there is no journey "abandoned" to be tested. Did you')


def test_a_slip_in_a_test_keeps_no_playbook_from_running() -> None:
    files = {**SHOP, FILE: b"tests: nonsense"}
    assert load(files).journeys
    with pytest.raises(PlaybookInvalid):
        load_with_tests(files)


def test_moments_are_told_from_the_start_or_as_they_are() -> None:
    start = datetime.fromisoformat("2026-03-02T12:00:00+00:00")
    assert instant_of(timedelta(hours=2), start) == start + timedelta(hours=2)
    assert (
        instant_of(datetime.fromisoformat("2026-03-03T08:00:00+01:00"), start).isoformat()
        == "2026-03-03T07:00:00+00:00"
    )
