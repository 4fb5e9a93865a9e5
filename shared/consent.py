"""Which word of a customer counts for a topic: the latest, and "no" where two are of the same moment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol, TypeVar

from shared.language.playbook import Topic

EVERY_TOPIC = "*"
"""Stands for every promotional topic, those that do not exist yet among them."""


class Word(Protocol):
    """A yes or no, and when it was said."""

    @property
    def subscribed(self) -> bool: ...

    @property
    def decided_at(self) -> datetime: ...


W = TypeVar("W", bound=Word)


def overrides(new: Word, held: Word) -> bool:
    """Whether the new word takes the place of the one that holds; saying the same again does not."""
    if new.decided_at != held.decided_at:
        return new.decided_at > held.decided_at
    return held.subscribed and not new.subscribed


def later(one: W, other: W) -> W:
    """Which of two words on the same topic holds."""
    return one if overrides(one, other) else other


def promotional(topic: Topic | None) -> bool:
    """Whether a word on every topic is one on this. A topic that the playbook does not have may be advertising."""
    return topic is None or topic.kind == "promotional"


def holding(name: str, topic: Topic | None, words: Mapping[str, W]) -> W | None:
    """The word that holds for a topic (None where the playbook does not have it), of those by topic; None: silence."""
    own = words.get(name)
    every = words.get(EVERY_TOPIC) if promotional(topic) else None
    return later(own, every) if own is not None and every is not None else own or every


def accepts(topic: Topic | None, said: bool | None) -> bool:
    """Whether mail of a topic is wanted by who has `said` yes or no, or nothing: then the topic says what that means.

    Transactional mail (the receipt for an order) needs no consent."""
    if topic is not None and topic.kind == "transactional":
        return True
    if said is not None:
        return said
    return topic is not None and topic.default == "opt_out"
