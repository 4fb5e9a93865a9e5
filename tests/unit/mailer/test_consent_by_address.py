from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mailer_cases import NOON, said, topic

from services.mailer.consent import merge, normalise, refusal

SECOND = timedelta(seconds=1)
decisions = st.builds(
    said,
    st.booleans(),
    st.sampled_from(["cart-reminders", "newsletter", "*"]),
    st.integers(0, 3).map(lambda seconds: NOON + seconds * SECOND),
)


@pytest.mark.parametrize(
    ("given_as", "kept_as"),
    [
        (" Anna@Example.ORG ", "anna@example.org"),
        ("anna+lamps@example.org", "anna+lamps@example.org"),
        ("anna@münchen.example", "anna@xn--mnchen-3ya.example"),
        ("jürgen@example.org", "jürgen@example.org"),
        ("anna", None),
        ("anna@", None),
        ("anna@localhost", None),
        ("a..b@example.org", None),
        ("anna@example.org, berit@example.org", None),
        ("anna@example.org\r\nBcc: all@example.org", None),
        ("Anna <anna@example.org>", None),
        ("anna@" + "x" * 250 + ".org", None),
        ("", None),
        (None, None),
    ],
)
def test_an_address_has_one_form_and_no_room_for_tricks(given_as: str | None, kept_as: str | None) -> None:
    assert normalise(given_as) == kept_as


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert once is None or normalise(once) == once


def test_the_latest_decision_wins_and_no_wins_a_tie() -> None:
    yes, no = said(True), said(False)
    assert merge({}, [yes, no])["cart-reminders"] == no
    assert merge({}, [no, yes])["cart-reminders"] == no
    later_yes = said(True, at=NOON + SECOND)
    assert merge({}, [later_yes, no])["cart-reminders"] == later_yes


@given(st.lists(decisions, max_size=6), st.randoms())
def test_the_order_in_which_decisions_arrive_does_not_matter(some: list, random) -> None:  # type: ignore[no-untyped-def, type-arg]
    shuffled = list(some)
    random.shuffle(shuffled)
    assert merge({}, some) == merge({}, shuffled)
    half = len(some) // 2
    assert merge(merge({}, some[:half]), some[half:]) == merge({}, some)


def test_a_no_to_everything_covers_each_promotional_topic_until_a_later_yes() -> None:
    everything = said(False, "*")
    assert refusal(topic(), {"*": everything}) == "unsubscribed"
    yes = said(True, at=NOON + SECOND)
    assert refusal(topic(), {"*": everything, "cart-reminders": yes}) is None
    earlier = said(True, at=NOON - SECOND)
    assert refusal(topic(), {"*": everything, "cart-reminders": earlier}) == "unsubscribed"


def test_a_no_to_everything_promotional_leaves_service_mail_alone() -> None:
    assert refusal(topic("service"), {"*": said(False, "*")}) is None
    assert refusal(topic("service"), {"cart-reminders": said(False)}) == "unsubscribed"
