"""The reasons that a report tells are a marketer's words."""

from __future__ import annotations

from typing import Final

from services.backtest.reasons import ends, reasons

CODES: Final = (
    "historical",
    "too_old",
    "loop",
    "paused",
    "filtered",
    "condition",
    "no_key",
    "inside",
    "again",
    "elsewhere",
    "crowded",
    "no_address",
    "invalid_address",
    "no_channel",
    "unsubscribed",
    "not_subscribed",
    "suppressed",
    "topic_removed",
    "expired",
    "draft",
    "cap",
    "quiet_hours",
    "goal",
    "exit_on",
    "restarted",
    "removed",
    "held_out",
)
"""Those of `triggers.Declined`, of the mailer's policy, and of what journeys take back."""


def test_no_two_reasons_are_told_alike_and_none_like_a_programs_word() -> None:
    told = reasons({code: number for number, code in enumerate(CODES)})
    assert list(told.values()) == list(range(len(CODES)))
    assert [
        word for word in told if "_" in word and word != "in a journey of unless_in" and "exit_on" not in word
    ] == []


def test_what_an_exit_says_is_the_marketers_own() -> None:
    assert ends({"goal": 3, "again": 2, "held_out": 1}) == {"goal": 3, "again": 2, "held out": 1}
