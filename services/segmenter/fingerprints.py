"""Which events are the same event. Shops retry, so the same one twice is normal. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from shared.contracts.events import EMPTY, Event

WINDOW = timedelta(hours=24)
"""How long after an event a second one with its name is taken for the same."""


class Names(NamedTuple):
    """How events are told apart: what stands for which one it is, and for what it says."""

    identity: Callable[[Event], bytes]
    content: Callable[[Event], int]


@lru_cache(16_384)  # a batch asks twice: before it is loaded, and when the event's turn comes
def identity(source: str, event_id: str) -> bytes:
    """128 bits (BLAKE2b, RFC 7693) that stand for (source, id)."""
    return blake2b(f"{source}\0{event_id}".encode(), digest_size=16).digest()


def content(event: Event) -> int:
    """64 signed bits of what an event says.

    Not of when and how it came: a client that retries sends the same words at another time, in another context.
    """
    said = (f"{event.key}\0{event.type}\0{event.name}\0".encode(), event.properties, b"\0", event.traits)
    return int.from_bytes(blake2b(b"".join(said), digest_size=8).digest(), "big", signed=True)


KEPT = Names(lambda event: identity(event.source, event.id), content)


def _content_in_memory(event: Event) -> int:
    properties, traits = event.properties, event.traits
    # Most events have no traits, and those of pages no properties: of these no copy is made.
    said = _NOTHING if properties is EMPTY else bytes(properties)
    return hash((event.type, event.name, said, _NOTHING if traits is EMPTY else bytes(traits)))


_NOTHING = bytes(EMPTY)
IN_MEMORY = Names(
    lambda event: hash((event.key, event.source, event.id)).to_bytes(8, "big", signed=True),
    _content_in_memory,
)
"""Worth a fraction of the others; they mean nothing to another process. Ids are a customer's own here, since there are
no partitions: which customers share one is nothing that a playbook could be asked about."""
