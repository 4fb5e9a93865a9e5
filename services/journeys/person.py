"""One customer's row while a batch is at work."""

from __future__ import annotations

from datetime import datetime

import msgspec

from services.journeys.enrollment import Credited, Enrollment, Involvement, Left, key_text
from services.journeys.store import StoredCustomer
from shared.contracts.customers import Customer

_encode = msgspec.json.Encoder().encode
_decode_customer = msgspec.json.Decoder(Customer).decode
_unpack = msgspec.msgpack.Decoder(Involvement).decode
_pack = msgspec.msgpack.Encoder().encode

MOST_REMEMBERED = 1_000
"""Last entries that are remembered of one customer."""


class Person:
    """Who is in a journey is read at once, since whatever they do concerns it; who is only remembered, when asked."""

    __slots__ = (
        *("key", "stored", "open", "seen", "changed", "unsettled", "due", "enrollments", "left", "credited"),
        *("_read", "_snapshot"),
    )

    def __init__(self, key: str, stored: StoredCustomer | None) -> None:
        self.key = key
        self.stored = stored
        self.open = stored is not None and stored.open
        self.seen: Customer | None = None
        """The customer, where a record of this batch has shown them."""
        self.changed = False
        """Since it was read: it has to be written."""
        self.unsettled = False
        """By the record or timer at hand: what is over has to go, wherever a batch began."""
        self.due: datetime | None = None
        """When the customer's timer is due, as it was set last."""
        self.enrollments: list[Enrollment] = []
        self.left: list[Left] = []
        self.credited: list[Credited] = []
        self._read = stored is None
        self._snapshot: Customer | None = None
        if self.open:
            self.read()

    def read(self) -> None:
        """Fill `enrollments`, `left`, `credited` and `due` from what is stored."""
        if not self._read and self.stored is not None:
            story = _unpack(self.stored.story)
            self.enrollments, self.left, self.due = list(story.enrollments), list(story.left), story.due
            self.credited = list(story.credited)
            self._read = True

    @property
    def latest(self) -> Customer:
        """The customer as last seen."""
        if self.seen is not None:
            return self.seen
        if self._snapshot is None:
            assert self.stored is not None
            self._snapshot = _decode_customer(self.stored.snapshot)
        return self._snapshot

    def inside(self, journey: str, key: str) -> Enrollment | None:
        for enrollment in self.enrollments:
            if enrollment.inside and enrollment.journey == journey and key_text(enrollment.entry.key) == key:
                return enrollment
        return None

    def last_of(self, journey: str, key: str) -> Left | None:
        return next((left for left in self.left if left.journey == journey and left.key == key), None)

    def remember(self, new: Left) -> None:
        self.left[:] = [left for left in self.left if (left.journey, left.key) != (new.journey, new.key)]
        self.left.append(new)
        # Beyond that the oldest is forgotten, and its key may enter again.
        del self.left[:-MOST_REMEMBERED]

    def row(self) -> StoredCustomer | None:
        """As it is to be stored, or None where there is nothing to remember."""
        story = self.stored.story if self.stored is not None else b""
        if self.changed:
            if not self.enrollments and not self.left and not self.credited:
                return None
            story = _pack(Involvement(tuple(self.enrollments), tuple(self.left), self.due, tuple(self.credited)))
        snapshot = b""
        if self.open:
            snapshot = _encode(self.seen) if self.seen is not None else self.stored.snapshot if self.stored else b""
        place = self.stored.place if self.stored is not None else None
        return StoredCustomer(self.key, story, snapshot, place)
