"""Ids that derive from causes: one cause, one id, whenever and wherever it is made."""

from __future__ import annotations

from hashlib import sha1
from uuid import UUID

_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""A hexadecimal digit with the two upper bits that RFC 9562, 4.1, asks for."""


def named(namespace: UUID, cause: str) -> str:
    """`str(uuid5(namespace, cause))` (RFC 9562, 5.5) at a fifth of its price: each mail, entry and cart pays it."""
    text = sha1(namespace.bytes + cause.encode(), usedforsecurity=False).hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"
