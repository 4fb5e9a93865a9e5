"""What a customer said yes and no to (`shared.consent` has which word counts). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from shared.consent import accepts, holding, overrides
from shared.contracts.customers import ConsentDecision
from shared.contracts.events import TOPIC_SUBSCRIBED, TOPIC_UNSUBSCRIBED, UNSUBSCRIBED
from shared.language.playbook import Topic

SAYING = {TOPIC_SUBSCRIBED: True, TOPIC_UNSUBSCRIBED: False, UNSUBSCRIBED: False}
"""The events that say yes or no."""


class Said(NamedTuple):
    """A yes or no, and when it was decided (UTC)."""

    subscribed: bool
    decided_at: datetime


Decisions = Mapping[str, Said]
"""By topic."""


def decide(decisions: Decisions, new: ConsentDecision) -> Decisions:
    """`decisions` with the new one, or unchanged (the same object) where a later one stands."""
    held = decisions.get(new.topic)
    if held is not None and not overrides(new, held):
        return decisions
    return {**decisions, new.topic: Said(new.subscribed, new.decided_at)}


def resolved(decisions: Decisions, topics: Mapping[str, Topic]) -> dict[str, bool]:
    """Topic to yes or no, for readers that see no times: a later word on every topic is already in each of them."""
    found = {name: holding(name, topics.get(name), decisions) for name in decisions}
    return {name: said.subscribed for name, said in found.items() if said is not None}


def consented(decisions: Decisions, topics: Mapping[str, Topic], name: str) -> bool:
    """Whether a message under the topic of this name is wanted."""
    topic = topics.get(name)
    said = holding(name, topic, decisions)
    return accepts(topic, None if said is None else said.subscribed)
