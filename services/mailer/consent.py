"""What a person has said about being written to, by address and topic. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

import idna

from shared.language.playbook import Topic

EVERY_TOPIC = "*"
"""Stands for every promotional topic, those that do not exist yet among them."""

_LOCAL = re.compile(r"[^\s@<>,;:\"()\[\]\\\x00-\x1f\x7f]{1,64}")
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")


class Decision(NamedTuple):
    """A yes or no to one topic (or `*`), with when (UTC) and where it was said."""

    topic: str
    subscribed: bool
    decided_at: datetime
    source: str


def normalise(address: str | None) -> str | None:
    """The form in which an address is compared and kept: composed Unicode, lower case. None for what is no address.

    Spellings that differ in case only are one mailbox to every provider there is, and one person to us; a domain is
    compared in its ASCII form (RFC 5891).
    """
    if address is None:
        return None
    local, _, domain = unicodedata.normalize("NFC", address.strip()).lower().rpartition("@")
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode()
        except idna.IDNAError:
            return None
    if not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain) or ".." in f".{local}.":
        return None
    text = f"{local}@{domain}"
    return text if len(text) <= 254 else None


def later(one: Decision, other: Decision) -> Decision:
    """Which of two decisions on one topic holds: the latest wins, and "no" wins a tie."""
    if one.decided_at != other.decided_at:
        return one if one.decided_at > other.decided_at else other
    return other if one.subscribed else one


def merge(known: Mapping[str, Decision], news: Iterable[Decision]) -> dict[str, Decision]:
    """What holds by topic after `news`, in whatever order they are given."""
    merged = dict(known)
    for decision in news:
        before = merged.get(decision.topic)
        merged[decision.topic] = decision if before is None else later(before, decision)
    return merged


def refusal(topic: Topic, decisions: Mapping[str, Decision]) -> str | None:
    """Why nothing of this topic may go to an address with these decisions: `unsubscribed`, `not_subscribed`, or None.

    A decision on `*` counts for promotional topics like one on the topic itself. Silence means what the topic's default
    says. Transactional mail (the receipt for an order) needs no consent.
    """
    if topic.kind == "transactional":
        return None
    own = decisions.get(topic.name)
    general = decisions.get(EVERY_TOPIC) if topic.kind == "promotional" else None
    holding = later(own, general) if own and general else own or general
    if holding is not None:
        return None if holding.subscribed else "unsubscribed"
    return None if topic.default == "opt_out" else "not_subscribed"
