"""The timers of one batch, in the order of the road: those that were due, and those set on the way. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from heapq import heapify, heappop, heappush

from shared.processing.port import Timer


class Agenda:
    """Timers by due time, kind and subject. One that was moved or removed is skipped when its old entry comes up.

    `timers` are the first of those that are due. Where there are `more`, nothing fires after the last of them: another
    that nobody has read yet may come before.
    """

    def __init__(self, timers: Sequence[Timer] = (), *, more: bool = False) -> None:
        self._heap = list(timers)
        heapify(self._heap)
        self._last = max(timers) if more else None
        self._closed = False
        self._current: dict[tuple[str, str], datetime | None] = {(t.kind, t.subject): t.due for t in timers}
        self.changed: dict[tuple[str, str], datetime | None] = {}
        """What must be written at the end: a due time, or None for a timer that is gone."""

    def set(self, kind: str, subject: str, due: datetime | None) -> None:
        key = (kind, subject)
        self._current[key] = self.changed[key] = due
        if due is not None:
            heappush(self._heap, Timer(due, kind, subject))

    def is_due(self, until: datetime) -> bool:
        """False where `pop` has nothing to give."""
        return bool(self._heap) and self._heap[0].due <= until

    def pop(self, until: datetime) -> Timer | None:
        """The next timer that is due at or before `until`; it is gone unless it is set again."""
        while not self._closed and self._heap and self._heap[0].due <= until:
            timer = heappop(self._heap)
            self._closed = timer == self._last
            key = (timer.kind, timer.subject)
            if self._current.get(key) == timer.due:
                self._current[key] = self.changed[key] = None
                return timer
        return None
