"""Which events are the same event. Shops retry, so the same one twice is normal. Pure."""

from __future__ import annotations

from datetime import timedelta
from hashlib import blake2b

from shared.contracts.events import Event

WINDOW = timedelta(hours=24)
"""How long after an event a second one with its name is taken for the same."""


def identity(source: str, event_id: str) -> bytes:
    """128 bits (BLAKE2b, RFC 7693) that stand for (source, id)."""
    return blake2b(f"{source}\0{event_id}".encode(), digest_size=16).digest()


def content(event: Event) -> int:
    """64 signed bits of what an event says.

    Not of when and how it came: a client that retries sends the same words at another time, in another context.
    """
    digest = blake2b(f"{event.key}\0{event.type}\0{event.name}\0".encode(), digest_size=8)
    digest.update(event.properties)
    digest.update(b"\0")
    digest.update(event.traits)
    return int.from_bytes(digest.digest(), "big", signed=True)
