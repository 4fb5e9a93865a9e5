"""What has come about in a batch, as it is to be written, told and counted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from services.journeys import decisions
from services.journeys.commands import Command
from services.journeys.coupons import Stock
from services.journeys.decisions import Decided
from services.journeys.enrollment import Enrollment
from services.journeys.person import Person
from services.journeys.store import MAILED, Attributed, Changes, Tally
from services.journeys.tasks import TaskRow
from services.journeys.triggers import SEEN_AFTERWARDS, Declined

_new = tuple.__new__


class Noted:
    """Without customers' own rows: those are made of them as they stand in the end."""

    def __init__(self) -> None:
        self._written: dict[str, tuple[str, Enrollment]] = {}
        self._moved: dict[str, tuple[str, Enrollment]] = {}
        self._tallies: Counter[Tally] = Counter()
        self._mailed: Counter[str] = Counter()
        self._attributed: defaultdict[tuple[str, str], list[Decimal]] = defaultdict(list)
        self._begun: Counter[str] = Counter()
        self._ended: Counter[tuple[str, str]] = Counter()
        self._decided: dict[str, list[Decided]] = {}
        self.declined: Counter[tuple[str, str]] = Counter()
        """Who was not let in, by journey and reason."""
        self.tasks: list[TaskRow] = []
        self.switched = False
        """Whether another playbook came into force."""

    def move(
        self, customer: str, before: Enrollment | None, after: Enrollment, commands: Sequence[Command], now: datetime
    ) -> None:
        """An enrollment began (`before` is None) or changed."""
        decided = decisions.moved(before, after, commands, now)
        if decided is not None:
            self._decided.setdefault(customer, []).append(decided)
        self._keep(customer, before, after)
        if before is None:
            self._begun[after.journey] += 1
        else:
            self._tallies[tally(before)] -= 1
        self._tallies[tally(after)] += 1
        if not after.inside and (before is None or before.inside):
            self._ended[after.journey, after.reason] += 1

    def _keep(self, customer: str, before: Enrollment | None, after: Enrollment) -> None:
        if after.id in self._written or before is None or not _merely_moved(before, after):
            self._written[after.id] = (customer, after)
            self._moved.pop(after.id, None)
        else:
            self._moved[after.id] = (customer, after)

    def decline(self, customer: str, journey: str, playbook: str, why: Declined, now: datetime, key: str) -> None:
        """Somebody did not enter, by this playbook."""
        self.declined[journey, why.reason] += 1
        if why.reason not in SEEN_AFTERWARDS:
            self._decided.setdefault(customer, []).append(decisions.declined(journey, playbook, key, why, now))

    def mail(self, journey: str) -> None:
        """One of its messages has gone out."""
        self._mailed[journey] += 1

    def attribute(self, journey: str, currency: str, value: Decimal) -> None:
        """An order is worth this to a journey."""
        self._attributed[journey, currency].append(value)

    def nothing(self) -> bool:
        """Whether there is nothing to write, for the customers' own rows that may not have changed."""
        return not (self.switched or self.declined or self._mailed or self._moved)

    def changes(self, people: Sequence[Person], stock: Stock) -> Changes:
        """All that is to be written; `people` are the customers whose rows have changed."""
        rows = {person.key: person.row() for person in people}
        return Changes(
            customers=[row for row in rows.values() if row is not None],
            gone=[person.key for person in people if rows[person.key] is None and person.stored is not None],
            enrollments=list(self._written.values()),
            moved=[enrollment for _, enrollment in self._moved.values()],
            tallies={
                **{tally: change for tally, change in self._tallies.items() if change},
                **{Tally(name, "", "", MAILED, "", False): count for name, count in self._mailed.items()},
            },
            attributed=[
                Attributed(journey, currency, len(values), sum(values, Decimal(0)))
                for (journey, currency), values in self._attributed.items()
            ],
            decided=[decisions.row_of(customer, decided) for customer, decided in self._decided.items()],
            issued=stock.issued,
            tasks=self.tasks,
            switched=self.switched,
        )

    def take_moved(self) -> list[tuple[str, Enrollment]]:
        """The enrollments that have changed since this was asked last, each with its customer. For a house that keeps
        no tables: what was taken is no more among the `changes`, nor are tasks that were given."""
        if not self._written and not self._moved:
            return []
        moved = [*self._written.values(), *self._moved.values()]
        self._written.clear()
        self._moved.clear()
        self.tasks.clear()
        self._attributed.clear()
        return moved

    def take_decided(self) -> Mapping[str, Sequence[Decided]]:
        """Likewise, what was decided, by customer."""
        decided, self._decided = self._decided, {}
        return decided

    def count(self, stock: Stock) -> None:
        """Add to the metrics."""
        # Here, so that a rehearsal, which measures nothing and keeps no log, begins without them.
        import structlog

        from shared.telemetry import (
            COUPONS_ISSUED,
            COUPONS_MISSING,
            ENROLLMENTS_BEGUN,
            ENROLLMENTS_ENDED,
            ENTRIES_DECLINED,
        )

        for pool, count in Counter(issued.pool for issued in stock.issued).items():
            COUPONS_ISSUED.labels(pool).inc(count)
        for pool, count in stock.refused.items():
            COUPONS_MISSING.labels(pool).inc(count)
            logger = structlog.get_logger(service="journeys")
            logger.error("coupons have run out", pool=pool, without=count, remedy="Raise its limit, or add codes.")
        for journey, count in self._begun.items():
            ENROLLMENTS_BEGUN.labels(journey).inc(count)
        for ended, count in self._ended.items():
            ENROLLMENTS_ENDED.labels(*ended).inc(count)
        for refused, count in self.declined.items():
            ENTRIES_DECLINED.labels(*refused).inc(count)


class MovesAlone(Noted):
    """For who keeps no tables and tells no stories: which enrollments changed, and how many did not begin."""

    def move(
        self, customer: str, before: Enrollment | None, after: Enrollment, commands: Sequence[Command], now: datetime
    ) -> None:
        self._keep(customer, before, after)

    def decline(self, customer: str, journey: str, playbook: str, why: Declined, now: datetime, key: str) -> None:
        self.declined[journey, why.reason] += 1


def tally(enrollment: Enrollment) -> Tally:
    """As what it is counted."""
    status = enrollment.status
    playbook = "" if status == "ended" else enrollment.playbook
    goal = enrollment.goal_at is not None
    # As the class itself would make it, without a call in between: there are two to a move.
    return _new(Tally, (enrollment.journey, enrollment.version, playbook, status, enrollment.reason, goal))


def _merely_moved(before: Enrollment, after: Enrollment) -> bool:
    """Whether it stands elsewhere, and is otherwise as it was in the table."""
    return (
        before.entry is after.entry
        and before.version == after.version
        and before.ended_at == after.ended_at
        and before.reason == after.reason
        and before.goal_at == after.goal_at
        and before.attributed == after.attributed
    )
