"""What a person has said about being written to, by address and topic. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

import idna

from shared.consent import accepts, holding, later
from shared.contracts.messages import EMAIL, SMS, MessageRequested
from shared.language.playbook import Topic

_LOCAL = re.compile(r"[^\s@<>,;:\"()\[\]\\\x00-\x1f\x7f]{1,64}")
_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
_SEPARATORS = re.compile(r"[\s().-]")
_MOST_OF_A_TOKEN = 1_000
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")


class Decision(NamedTuple):
    """A yes or no to one topic (or `*`), with when (UTC) and where it was said."""

    topic: str
    subscribed: bool
    decided_at: datetime
    source: str


@lru_cache(maxsize=10_000)
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


def destination(request: MessageRequested, mailbox: str | None) -> tuple[str | None, bool]:
    """Where a message goes, in the form in which it is compared and kept, and whether anything was given for it.
    `mailbox` is the customer's address of mail at this moment."""
    if request.channel == EMAIL:
        return normalise(mailbox), bool(mailbox)
    traits = request.data.get("traits") or {}
    given = traits.get("phone" if request.channel == SMS else "push_token")
    if not isinstance(given, str) or not given.strip():
        return None, bool(given)
    return (number(given) if request.channel == SMS else token(given)), True


def number(given: str) -> str | None:
    """A telephone number in the form of E.164, `+4791234567`; None for what is none, or says no country."""
    digits = _SEPARATORS.sub("", given)
    return digits if _NUMBER.fullmatch(digits) else None


def token(given: str) -> str | None:
    """What names a device to the gateway of notifications; None for what cannot."""
    kept = given.strip()
    return kept if len(kept) <= _MOST_OF_A_TOKEN and kept.isprintable() else None


def merge(known: Mapping[str, Decision], news: Iterable[Decision]) -> dict[str, Decision]:
    """What holds by topic after `news`, in whatever order they are given."""
    merged = dict(known)
    for decision in news:
        before = merged.get(decision.topic)
        merged[decision.topic] = decision if before is None else later(before, decision)
    return merged


def refusal(topic: Topic, decisions: Mapping[str, Decision]) -> str | None:
    """Why no mail of this topic goes to an address with these decisions: `unsubscribed`, `not_subscribed`, or None."""
    said = holding(topic.name, topic, decisions)
    if accepts(topic, None if said is None else said.subscribed):
        return None
    return "not_subscribed" if said is None else "unsubscribed"
