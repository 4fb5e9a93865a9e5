"""What one transaction of the mailer decides: changes of messages, timers, and the events that tell of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from services.mailer import outcomes
from services.mailer.outcomes import Ended
from services.mailer.policy import Defer
from services.mailer.store import Candidate, Change, InHand
from services.mailer.transport import Mail
from shared.contracts import streams
from shared.contracts.messages import MessageRequested
from shared.processing.port import Outputs

RELEASE = "release"
"""The kind of the timers at which held messages are decided anew."""

_LONGEST_DETAIL = 500


@dataclass(slots=True)
class Turn:
    """What one transaction decides. It is dropped where the transaction fails."""

    now: datetime
    out: Outputs
    changes: list[Change] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)
    """Keys of `Desk.done` that this turn deals with."""
    begun: list[tuple[InHand, Mail]] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    ended: list[tuple[str, str]] = field(default_factory=list)

    def end(self, request: MessageRequested, ended: Ended, change: Change) -> None:
        self.changes.append(change._replace(over=request))
        self.ended.append((ended.status, ended.reason))
        self.out.emit(streams.EVENTS, request.customer, outcomes.event(request, ended, change.due, self.now))

    def hold(self, change: Change) -> None:
        self.changes.append(change)
        self.held.append(change.reason)
        self.out.set_timer(RELEASE, change.id, change.due)

    def end_undelivered(self, candidate: Candidate, ended: Ended) -> None:
        detail = storable(ended.detail)
        change = Change(candidate.id, ended.status, candidate.due, ended.reason, detail, attempts=candidate.attempts)
        self.end(candidate.request, ended, change._replace(ended_at=self.now))

    def hold_undelivered(self, candidate: Candidate, defer: Defer, attempts: int) -> None:
        held = held_line(self.now, defer.reason, defer.until)
        self.hold(Change(candidate.id, "held", defer.until, defer.reason, held=held, attempts=attempts))


def held_line(now: datetime, reason: str, until: datetime) -> str:
    """One line of a message's story."""
    return f"{now:%Y-%m-%dT%H:%M:%SZ} {reason} until {until:%Y-%m-%dT%H:%M:%SZ}"


def storable(detail: str) -> str:
    return detail.replace("\0", "\ufffd")[:_LONGEST_DETAIL]
