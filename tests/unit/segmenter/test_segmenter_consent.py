"""Who said yes and no to what, and which word counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.segmenter.consent import Decisions, consented, decide, resolved
from shared.contracts.customers import ConsentDecision
from shared.language.playbook import Topic

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
TOPICS = {
    "newsletter": Topic("newsletter", "News", "", "promotional", "opt_in"),
    "reminders": Topic("reminders", "Reminders", "", "promotional", "opt_out"),
    "deliveries": Topic("deliveries", "Deliveries", "", "service", "opt_out"),
    "receipts": Topic("receipts", "Receipts", "", "transactional", "opt_out"),
}


def word(topic: str, yes: bool, minute: int = 0) -> ConsentDecision:
    return ConsentDecision(topic=topic, subscribed=yes, decided_at=NOON + timedelta(minutes=minute), source="shop")


def decided(*words: ConsentDecision) -> Decisions:
    decisions: Decisions = {}
    for one in words:
        decisions = decide(decisions, one)
    return decisions


def test_silence_means_what_the_topic_says() -> None:
    assert not consented({}, TOPICS, "newsletter")
    assert consented({}, TOPICS, "reminders")
    assert consented({}, TOPICS, "receipts")


def test_no_that_comes_late_does_not_undo_a_later_yes() -> None:
    decisions = decided(word("newsletter", True, 5), word("newsletter", False, 4))
    assert consented(decisions, TOPICS, "newsletter")


def test_no_wins_a_tie() -> None:
    for words in ([True, False], [False, True]):
        decisions = decided(*(word("newsletter", yes) for yes in words))
        assert not consented(decisions, TOPICS, "newsletter")


def test_no_to_everything_covers_promotion_and_neither_service_nor_transactions() -> None:
    decisions = decided(word("newsletter", True), word("deliveries", True), word("*", False, 1))
    assert not consented(decisions, TOPICS, "newsletter")
    assert not consented(decisions, TOPICS, "reminders")
    assert consented(decisions, TOPICS, "deliveries")
    assert consented(decisions, TOPICS, "receipts")
    assert resolved(decisions, TOPICS) == {"newsletter": False, "deliveries": True, "*": False}


def test_yes_to_one_topic_after_no_to_everything_counts() -> None:
    decisions = decided(word("*", False), word("newsletter", True, 1))
    assert consented(decisions, TOPICS, "newsletter")
    assert not consented(decisions, TOPICS, "reminders")
    assert resolved(decisions, TOPICS) == {"newsletter": True, "*": False}


words = st.lists(
    st.builds(word, st.sampled_from(["newsletter", "reminders", "*"]), st.booleans(), st.integers(0, 5)), max_size=12
)


@given(words, st.randoms())
def test_order_of_arrival_does_not_matter(said: list[ConsentDecision], random: object) -> None:
    shuffled = list(said)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert decided(*said) == decided(*shuffled)


@given(words, st.sampled_from(["newsletter", "reminders"]))
def test_reader_without_times_comes_to_the_same_answer(said: list[ConsentDecision], topic: str) -> None:
    decisions = decided(*said)
    told = resolved(decisions, TOPICS)
    answer = told.get(topic, told.get("*"))
    if answer is None:
        answer = TOPICS[topic].default == "opt_out"
    assert answer == consented(decisions, TOPICS, topic)
