"""One customer in one journey: what is remembered between two signals. Data, and the ids that derive from it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Literal
from uuid import UUID

import msgspec

from shared.causes import named
from shared.contracts.events import Event

Key = str | int | float | None
"""The enrollment key (a cart's id, say) as expressions see it; None where there is one enrollment per customer."""
MOST_OF_A_KEY = 1_000
"""Characters of it."""

Status = Literal["waiting", "listening", "sending", "parked", "held_out", "watching", "ended"]
"""Where an enrollment is.

- `waiting`: for time to pass
- `listening`: for something that the customer does, or the step's timeout
- `sending`: for the outcome of its message
- `parked`: the next step is due, and the journey is paused
- `held_out`: it runs no steps, so that its goal can be compared with that of others
- `watching`: it has left the journey, and its goal may still be reached in time
- `ended`: nothing follows
"""

_NAMESPACE = UUID("a0a1c1a7-5a5f-5d9e-9f25-1d4ad7a1d0c3")


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What let a customer in: when, by which cause, for which key, and the properties of the event that did.

    `trigger` is JSON as it came, and so is `item`, the part of it that a `for_each` is about. `hops` counts how many
    consequences of consequences the event was. Who enters a `draft` is counted and gets nothing, also once it is
    published.
    """

    at: datetime
    cause: str
    key: Key = None
    trigger: bytes = b"{}"
    item: bytes = b"null"
    hops: int = 0
    draft: bool = False


class Pending(msgspec.Struct, frozen=True):
    """An entry that restarts the steps as soon as it is known that the cancelled message has not gone out.

    `again` says whether it may begin a new enrollment where the message has gone out after all.
    """

    entry: Entry
    again: bool


class Enrollment(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One customer in one version of one journey, for one key.

    `step` is where it stands: when parked the step to run next, at the end the last one. `since` is when that step
    began; for a wait, when its duration is over. `due` is when time is the next to move it. `zone` is the timezone in
    which a time of day or a date was worked out. `visits` counts the runs of each step that has an effect outside,
    `clicked` names those whose message was clicked, `opened` those whose message a person opened, `steps` holds what
    steps left behind for expressions and `vars` what was set (JSON each).
    """

    id: str
    journey: str
    version: str
    playbook: str
    """The content hash of a playbook that has this version."""
    entry: Entry
    status: Status
    step: str = ""
    since: datetime | None = None
    due: datetime | None = None
    zone: str = ""
    message: str = ""
    pending: Pending | None = None
    gone_out: bool = False
    """Whether a message of this enrollment has, or may have, reached the customer."""
    visits: dict[str, int] = {}
    clicked: tuple[str, ...] = ()
    opened: tuple[str, ...] = ()
    steps: dict[str, bytes] = {}
    vars: dict[str, bytes] = {}
    ended_at: datetime | None = None
    reason: str = ""
    goal_at: datetime | None = None
    moves: int = 0
    """The number of the last move to another version that it has been asked to make, whether it was or not."""
    sent_at: datetime | None = None
    """When its last message was sent."""
    clicked_at: datetime | None = None
    """When one of its messages was clicked last."""
    attributed: Decimal | None = None
    """What the order that reached its goal is worth to it, in `currency`."""
    currency: str = ""

    @property
    def inside(self) -> bool:
        return self.ended_at is None


class Left(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last entry of an enrollment that has left, for as long as it decides about the next one.

    `until` is how long that was when it left (None: for ever); it counts where the journey itself is gone."""

    journey: str
    key: str
    at: datetime
    until: datetime | None = None
    draft: bool = False


class Credited(msgspec.Struct, frozen=True):
    """An order whose value a journey has, for as long as it is remembered: none has it twice."""

    order: str
    until: datetime


class Involvement(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that one customer is in, what is remembered of what they left, what their timer is set to, and which orders
    have been attributed."""

    enrollments: tuple[Enrollment, ...] = ()
    left: tuple[Left, ...] = ()
    due: datetime | None = None
    credited: tuple[Credited, ...] = ()


class Happening:
    """An event whose properties are decoded when somebody first asks for them."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self._properties: dict[str, Any] | None = None

    @property
    def properties(self) -> dict[str, Any]:
        if self._properties is None:
            found = msgspec.json.decode(self.event.properties)
            self._properties = found if isinstance(found, dict) else {}
        return self._properties

    def named(self, name: str) -> bool:
        """Whether the customer did what `name` says: what a page or screen is called is no fact of that name."""
        return self.event.name == name and self.event.type == "track"


def key_of(value: Any) -> Key:
    """The value of a trigger's `key` as it is kept. None where it is no number and no text, or too long a one."""
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else str(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return None
    if isinstance(value, str) and len(value) > MOST_OF_A_KEY:
        return None
    return str(value) if isinstance(value, int) and abs(value) >= 2**63 else value


def key_text(key: Key) -> str:
    """The key as tables and ids have it; NUL cannot be stored."""
    return "" if key is None else str(key).replace("\0", "\ufffd")


def enrollment_id(customer: str, journey: str, entry: Entry) -> str:
    return named(_NAMESPACE, "\n".join((customer, journey, key_text(entry.key), entry.cause, entry.at.isoformat())))


def effect_id(enrollment: str, step: str, visit: int) -> str:
    """One cause, one message or event: the cause is the step's run in this enrollment."""
    return named(_NAMESPACE, f"{enrollment}\n{step}\n{visit}")


def drawn(*cause: str) -> float:
    """A lot from 0 up to 1 that is the same whenever it is drawn for the same cause."""
    return int.from_bytes(blake2b("\n".join(cause).encode(), digest_size=6).digest(), "big") / 2**48
