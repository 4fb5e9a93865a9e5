"""What a customer said yes and no to. The latest decision wins, and "no" wins a tie. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from shared.contracts.customers import ConsentDecision
from shared.language.playbook import Topic

EVERY = "*"
"""Stands for every promotional topic."""

Decisions = Mapping[str, tuple[bool, datetime]]
"""By topic: subscribed or not, and when that was decided (UTC)."""


def decide(decisions: Decisions, new: ConsentDecision) -> Decisions:
    """`decisions` with the new one, or unchanged (the same object) where a later one stands."""
    held = decisions.get(new.topic)
    if held is not None and not _stronger((new.subscribed, new.decided_at), held):
        return decisions
    return {**decisions, new.topic: (new.subscribed, new.decided_at)}


def resolved(decisions: Decisions, topics: Mapping[str, Topic]) -> dict[str, bool]:
    """Topic to yes or no, for readers that see no times: a later word on every topic is already in each of them."""
    every = decisions.get(EVERY)
    if every is None:
        return {topic: yes for topic, (yes, _) in decisions.items()}
    return {
        topic: every[0] if _promotional(topic, topics) and _stronger(every, held) else held[0]
        for topic, held in decisions.items()
    }


def consented(decisions: Decisions, topics: Mapping[str, Topic], topic: str) -> bool:
    """Whether a message under `topic` is wanted: the customer's own word, else what the topic says of silence."""
    known = topics.get(topic)
    if known is not None and known.kind == "transactional":
        return True
    held = decisions.get(topic)
    every = decisions.get(EVERY) if _promotional(topic, topics) else None
    if every is not None and (held is None or _stronger(every, held)):
        held = every
    if held is not None:
        return held[0]
    return known is not None and known.default == "opt_out"


def _stronger(new: tuple[bool, datetime], held: tuple[bool, datetime]) -> bool:
    return new[1] > held[1] or (new[1] == held[1] and held[0] and not new[0])


def _promotional(topic: str, topics: Mapping[str, Topic]) -> bool:
    known = topics.get(topic)
    return known is None or known.kind == "promotional"
