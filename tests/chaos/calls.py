"""Calls of the shop's addresses and of the gateways of text messages and notifications, and what must be so of them.

They are tried until somebody says yes, so one may come more than once: under the same id, with the same words, and for
the same cause. Knows nothing of the services.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import asyncpg

Cause = tuple[str, str]
"""A message's name, and what it is about: the order, the basket, the closing, or the customer."""

_YES = range(200, 300)
_GONE = 410


@dataclass
class Call:
    """One that was read to its end. `answer` is the status that it was given; 0: none, or nonsense."""

    id: str
    cause: Cause
    body: bytes
    signed: bool
    """By us: what its signature says is so."""
    answer: int = 0


def wrong(calls: Sequence[Call], rows: Sequence[asyncpg.Record], causes: Mapping[str, Cause]) -> Iterator[str]:
    """`rows` are the messages that are no mails; `causes` by message id."""
    by_id: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_id[call.id].append(call)
    for row in rows:
        id, status, reason = row["id"], row["status"], row["reason"]
        about = by_id.pop(id, [])
        name, answers = f"call {id} {causes[id]}", [call.answer for call in about]
        if any(call.cause != causes[id] for call in about):
            yield f"{name} was made for {sorted({call.cause for call in about})}"
        if len({call.body for call in about}) > 1:
            yield f"{name} did not say the same each time: {sorted({call.body for call in about})}"
        if not all(call.signed for call in about):
            yield f"{name} came without a signature that holds"
        if status == "sent" and not any(answer in _YES for answer in answers):
            yield f"{name} is sent, and was answered {answers}"
        elif status == "failed" and (reason != "gone" or _GONE not in answers):
            yield f"{name} failed ({reason}), and was answered {answers}"
        elif status == "unknown":
            yield f"{name} is unknown ({reason}); whoever is called knows it by its id"
    for id, about in by_id.items():
        yield f"call {id} came, and nobody asked for it: {about}"


def counted(calls: Sequence[Call]) -> Counter[str]:
    """For the report."""
    found = Counter({"calls": len(calls)})
    found["calls again"] = len(calls) - len({call.id for call in calls})
    return found
