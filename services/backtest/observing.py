"""What a rehearsal tells, as the findings of a report."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.backtest.reading import AFTER_FILES, Refusal
from services.backtest.report import Findings
from services.journeys.engine import HELD_OUT
from services.journeys.enrollment import Enrollment
from services.rehearsal.witness import End, Hold, Witness
from shared.contracts.messages import WEBHOOK

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Observer(Witness):
    """Remembers the enrollments that are open; those that are over are counted and forgotten."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self._open: dict[str, tuple[bool, bool]] = {}
        """By id: whether it is inside, and whether its goal was reached."""

    def moved(self, customer: str, enrollment: Enrollment, at: datetime) -> None:
        findings, journey = self.findings, enrollment.journey
        inside, reached = self._open.get(enrollment.id, (None, False))
        held_out = enrollment.status == "held_out" or enrollment.reason == HELD_OUT
        if inside is None:
            findings.entered(journey, customer, at, held_out=held_out)
            inside = True
        if inside and not enrollment.inside:
            assert enrollment.ended_at is not None
            findings.left(journey, customer, enrollment.reason, enrollment.ended_at)
        if enrollment.goal_at is not None and not reached:
            findings.reached_goal(journey, held_out=held_out)
            if enrollment.attributed is not None:
                findings.attributed(journey, enrollment.attributed, enrollment.currency)
            reached = True
        if enrollment.status == "ended":
            self._open.pop(enrollment.id, None)
        else:
            self._open[enrollment.id] = enrollment.inside, reached

    def held(self, hold: Hold, at: datetime) -> None:
        if hold.reason != "not_due" and hold.request.channel != WEBHOOK:
            self.findings.held(hold.request.journey, hold.request.message, hold.request.channel, hold.reason)

    def ended(self, end: End, at: datetime) -> None:
        request = end.request
        if request.channel == WEBHOOK:
            if end.status == "sent":
                self.findings.called()
            return  # nobody gets it
        if end.status == "sent":
            self.findings.sent(request.journey, request.message, request.channel, request.customer, end.decided_for)
        elif end.status == "skipped":
            self.findings.skipped(
                *(request.journey, request.message, request.channel, request.customer), end.reason, end.decided_for
            )
        else:
            self.findings.failed(request.journey, request.message, request.channel, end.reason)

    def set_aside(self, customer: str, code: str, message: str, at: datetime) -> None:
        order = AFTER_FILES, (at - _EPOCH) // timedelta(microseconds=1)
        self.findings.refused(Refusal(order, f"customer {customer}", code, message))
