"""The timers of one batch, in the order of the road: those that were due, and those set on the way. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from heapq import heapify, heappop, heappush

from shared.processing.port import Timer


class Agenda:
    """Timers by due time. A timer that was moved or removed is skipped when its old entry comes up."""

    def __init__(self, timers: Iterable[Timer]) -> None:
        self._heap = list(timers)
        heapify(self._heap)
        self._current: dict[tuple[str, str], datetime | None] = {(t.kind, t.subject): t.due for t in self._heap}
        self.changed: dict[tuple[str, str], datetime | None] = {}
        """What must be written at the end: a due time, or None for a timer that is gone."""

    def set(self, kind: str, subject: str, due: datetime | None) -> None:
        key = (kind, subject)
        self._current[key] = self.changed[key] = due
        if due is not None:
            heappush(self._heap, Timer(due, kind, subject))

    def pop(self, until: datetime) -> Timer | None:
        """The next timer that is due at or before `until`; it is gone unless it is set again."""
        while self._heap and self._heap[0].due <= until:
            timer = heappop(self._heap)
            key = (timer.kind, timer.subject)
            if self._current.get(key) == timer.due:
                self._current[key] = self.changed[key] = None
                return timer
        return None
