"""Who looks on while a playbook is rehearsed."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from services.journeys.decisions import Decided
from services.journeys.enrollment import Enrollment
from services.mailer.transport import Mail
from shared.contracts.customers import CustomerUpdated, DateReached
from shared.contracts.events import Event
from shared.contracts.messages import MessageRecord, MessageRequested


class Hold(NamedTuple):
    """A message that waits: why, and until when it does at most."""

    request: MessageRequested
    reason: str
    until: datetime


class End(NamedTuple):
    """What became of a message: `status` and `reason` as `services.mailer.outcomes.Ended` has them. `decided_for` is
    the instant that was decided for; `detail` says more where there is more to say, such as the place of a mistake in
    a template. `mail` is there where one was handed over."""

    request: MessageRequested
    status: str
    reason: str
    detail: str
    decided_for: datetime
    mail: Mail | None


class Witness:
    """Is told of everything, in order; `at` is the time that the road has reached. Override what is of interest: this
    one forgets all."""

    def told(self, record: CustomerUpdated | DateReached, at: datetime) -> None:
        """An event with the customer after it, or what time or a playbook changed about one."""

    def moved(self, customer: str, enrollment: Enrollment, at: datetime) -> None:
        """An enrollment has begun, moved on, or ended."""

    def decided(self, customer: str, decided: Decided, at: datetime) -> None:
        """What journeys decided about a customer, in the words of `rapport why`."""

    def reported(self, event: Event, at: datetime) -> None:
        """An event that journeys or mailer reported back."""

    def said(self, record: MessageRecord, at: datetime) -> None:
        """What journeys says to mailer: a message to send or not to, or what a person has decided."""

    def asked(self, request: MessageRequested, at: datetime) -> None:
        """A journey asks for a message."""

    def held(self, hold: Hold, at: datetime) -> None: ...

    def ended(self, end: End, at: datetime) -> None: ...

    def set_aside(self, customer: str, code: str, message: str, at: datetime) -> None:
        """What would have gone to dead letters."""
