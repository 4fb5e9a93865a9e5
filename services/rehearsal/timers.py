"""The timers of all services, the next one first. Pure."""

from __future__ import annotations

from datetime import datetime
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from shared.processing.port import Timer

_FEW = 10_000


_Name = tuple[int, str, str]
"""The place of a service on the road, the kind of a timer and its subject."""


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
        self._heap: list[tuple[datetime, _Name]] = []
        self._due: dict[_Name, datetime] = {}

    def set(self, place: int, kind: str, subject: str, due: datetime | None) -> None:
        name = place, kind, subject
        if due is None:
            self._due.pop(name, None)
            return
        if self._due.get(name) == due:
            return
        self._due[name] = due
        heappush(self._heap, (due, name))
        # Those that were moved stay where they were, until they are many.
        if len(self._heap) > _FEW and len(self._heap) > 4 * len(self._due):
            self._heap = [(at, name) for name, at in self._due.items()]
            heapify(self._heap)

    def is_due(self, until: datetime) -> bool:
        """False where `pop` has nothing to give."""
        heap = self._heap
        return bool(heap) and heap[0][0] <= until

    def next(self) -> datetime | None:
        """When the next one is due."""
        heap, dues = self._heap, self._due
        while heap:
            due, name = heap[0]
            if dues.get(name) == due:
                return due
            heappop(heap)
        return None

    def pop(self, until: datetime) -> Ring | None:
        """The next one that is due at or before `until`; it is gone unless it is set again."""
        heap, dues = self._heap, self._due
        while heap and heap[0][0] <= until:
            due, name = heappop(heap)
            if dues.get(name) == due:
                del dues[name]
                return Ring(due, *name)
        return None
