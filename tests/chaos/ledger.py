"""The ledger: what went in, what came out, and what was done to the processes. It knows nothing of the services.

What was posted and what was answered is written down by the shop, what arrived by the mail server. `tables` reads what
the services have of it, and `verdict` says whether that is what must be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.calls import Call, Cause
from tests.chaos.visits import Losses, Visit


@dataclass
class Posted:
    """An event, and when (UNIX time) it was first posted and was answered 200. Given up: nobody knows."""

    id: str
    customer: str
    name: str
    properties: Mapping[str, Any]
    begun: float
    answered: float | None = None
    turn: int = 0
    """Counts up; of one customer, the smaller was answered before the larger was posted."""


@dataclass
class Arrival:
    """A mail whose final dot the mail server has read. `answer` is what it then said; empty: nothing, or nonsense.
    `text` is the mail's own."""

    cause: Cause
    message: str
    """Its Message-ID."""
    address: str
    data_at: float
    text: str
    answer: str = ""

    @property
    def may_be_accepted(self) -> bool:
        return not self.answer or self.answer.startswith("2")


@dataclass
class Ledger:
    """What the shop, the mail server and the receiver of calls have written down."""

    posted: dict[str, Posted] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    """Ids of events that were named as bad in an answer 200."""
    reused: set[str] = field(default_factory=set)
    """Ids that were posted once more with another content."""
    arrivals: list[Arrival] = field(default_factory=list)
    unsubscribed: dict[tuple[str, str], float] = field(default_factory=dict)
    """By customer and topic: when it was acknowledged."""
    asked_to_stop: set[tuple[str, str]] = field(default_factory=set)
    """The same as `unsubscribed`, whether or not it was answered."""
    hurt: dict[int, str] = field(default_factory=dict)
    """Processes that may have left a mail unknown, and why."""
    deleted: set[str] = field(default_factory=set)
    """Ids of events that were deleted from the log on purpose."""
    calls: list[Call] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    written_down: dict[str, float] = field(default_factory=dict)
    """By message: when it was seen that it is known to be sent."""
    losses: Losses = field(default_factory=Losses)

    def customers(self) -> dict[str, list[Posted]]:
        found: defaultdict[str, list[Posted]] = defaultdict(list)
        for event in self.posted.values():
            found[event.customer].append(event)
        return found
