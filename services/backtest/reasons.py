"""The reasons of a report as a marketer says them; programs are given the codes (`--format json`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_WORDS: Final[Mapping[str, str]] = {
    # why somebody was not let in: `services.journeys.triggers.Declined`
    "again": "too soon again",
    "condition": "if was not true",
    "elsewhere": "in a journey of unless_in",
    "filtered": "where was not true",
    "historical": "imported history",
    "inside": "inside already",
    "loop": "events in a circle",
    "no_key": "an event without its key",
    "too_old": "told too late",
    # why a message was held or did not go: `services.mailer.policy`, and what takes it back
    "cap": "a cap",
    "exit_on": "left by exit_on",
    "goal": "goal reached",
    "no_channel": "no gateway",
    "not_subscribed": "never said yes",
    "restarted": "begun anew",
    "suppressed": "nothing goes to the address any more",
    "unsubscribed": "said no",
}

_ENDS: Final[Mapping[str, str]] = {"held_out": "held out", "exit_on": "an event of exit_on"}
"""Why an enrollment ended, where it is not by an `exit`, whose words are the marketer's own."""


def in_words(reason: str) -> str:
    return _WORDS.get(reason) or reason.replace("_", " ")


def reasons(counts: Mapping[str, int]) -> dict[str, int]:
    """Of who was not let in, and of messages that were held or did not go."""
    return {in_words(reason): count for reason, count in counts.items()}


def ends(counts: Mapping[str, int]) -> dict[str, int]:
    """Of who has left."""
    return {_ENDS.get(reason, reason): count for reason, count in counts.items()}
