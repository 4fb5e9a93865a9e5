"""The timers of all services, the next one first. Pure."""

from __future__ import annotations

from datetime import datetime
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from shared.processing.port import Timer

_FEW = 10_000


class Ring(NamedTuple):
    """A timer with the place of its service on the road: of those due at the same instant, whoever stands further down
    the road comes first, since what comes from above is told that instant only then."""

    due: datetime
    place: int
    kind: str
    subject: str

    @property
    def timer(self) -> Timer:
        return Timer(self.due, self.kind, self.subject)


class Timers:
    """One timer for each (service, kind, subject)."""

    def __init__(self) -> None:
        self._heap: list[Ring] = []
        self._due: dict[tuple[int, str, str], datetime] = {}

    def set(self, place: int, kind: str, subject: str, due: datetime | None) -> None:
        if due is None:
            self._due.pop((place, kind, subject), None)
            return
        self._due[place, kind, subject] = due
        heappush(self._heap, Ring(due, place, kind, subject))
        # Those that were moved stay where they were, until they are many.
        if len(self._heap) > _FEW and len(self._heap) > 4 * len(self._due):
            self._heap = [Ring(at, *name) for name, at in self._due.items()]
            heapify(self._heap)

    def is_due(self, until: datetime) -> bool:
        """False where `pop` has nothing to give."""
        return bool(self._heap) and self._heap[0][0] <= until

    def next(self) -> datetime | None:
        """When the next one is due."""
        heap = self._heap
        while heap and self._due.get(heap[0][1:]) != heap[0][0]:
            heappop(heap)
        return heap[0].due if heap else None

    def pop(self, until: datetime) -> Ring | None:
        """The next one that is due at or before `until`; it is gone unless it is set again."""
        due = self.next()
        if due is None or due > until:
            return None
        ring = heappop(self._heap)
        del self._due[ring[1:]]
        return ring
