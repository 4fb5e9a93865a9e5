"""The signed links of a mail: a click, an unsubscribe, and the image that tells of an open. Pure.

A token names the message and the number of the link, never where the link leads: targets are looked up. It carries no
address either, so a forwarded mail gives nothing away.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID, uuid5

from shared.security import sign, unsign

_OCCURRENCES = UUID("9f1c6d0a-52f3-5c1e-8a53-0d6f7f4f2b6e")

# The first byte of a token's payload. Message ids are UUIDs; any other id is carried as its text.
_CLICK, _CLICK_TEXT, _UNSUBSCRIBE, _UNSUBSCRIBE_TEXT, _OPEN, _OPEN_TEXT = b"C", b"c", b"U", b"u", b"O", b"o"
_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
MAX_LINKS = 65_536


class Click(NamedTuple):
    """Link `number` of a message was followed."""

    message: str
    number: int


class Unsubscribe(NamedTuple):
    """The unsubscribe link of a message."""

    message: str


class Open(NamedTuple):
    """The image of a message was fetched."""

    message: str


class Links:
    """Makes and reads the links of mails. `public_url` is where the mailer is reached from outside, with its prefix."""

    def __init__(self, secret: bytes, public_url: str) -> None:
        self._secret = secret
        self._base = public_url.rstrip("/")

    def click(self, message: str, number: int) -> str:
        kind, id = _payload(message, _CLICK, _CLICK_TEXT)
        return f"{self._base}/c/{sign(self._secret, kind + number.to_bytes(2) + id)}"

    def unsubscribe(self, message: str) -> str:
        kind, id = _payload(message, _UNSUBSCRIBE, _UNSUBSCRIBE_TEXT)
        return f"{self._base}/u/{sign(self._secret, kind + id)}"

    def open(self, message: str) -> str:
        kind, id = _payload(message, _OPEN, _OPEN_TEXT)
        return f"{self._base}/o/{sign(self._secret, kind + id)}"

    def read(self, token: str) -> Click | Unsubscribe | Open | None:
        """What a token stands for; None where it is not one of ours."""
        payload = unsign(self._secret, token)
        if not payload:
            return None
        kind, rest = payload[:1], payload[1:]
        if kind == _CLICK and len(rest) == 18:
            return Click(str(UUID(bytes=rest[2:])), int.from_bytes(rest[:2], "big"))
        if kind == _CLICK_TEXT and len(rest) > 2:
            return Click(rest[2:].decode(), int.from_bytes(rest[:2], "big"))
        if kind == _UNSUBSCRIBE and len(rest) == 16:
            return Unsubscribe(str(UUID(bytes=rest)))
        if kind == _UNSUBSCRIBE_TEXT and rest:
            return Unsubscribe(rest.decode())
        if kind == _OPEN and len(rest) == 16:
            return Open(str(UUID(bytes=rest)))
        if kind == _OPEN_TEXT and rest:
            return Open(rest.decode())
        return None


def occurrence(link: Click | Unsubscribe | Open, what: str, now: datetime) -> str:
    """The id of the event that using a link makes: the same within a minute, so a double click is one event."""
    return str(uuid5(_OCCURRENCES, f"{what}\n{':'.join(map(str, link))}\n{now:%Y-%m-%dT%H:%M}"))


@lru_cache(256)
def _payload(message: str, short: bytes, text: bytes) -> tuple[bytes, bytes]:
    """How a token carries a message's id, and the byte that says so: in 16 bytes where it is a UUID in its usual form.

    The links of a mail are made together, so few ids are kept."""
    if _UUID.fullmatch(message):
        return short, bytes.fromhex(message.replace("-", ""))
    return text, message.encode()
