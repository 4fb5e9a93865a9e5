"""What one lane takes in one transaction: timers and records in the order of the road, computed on copies."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from shared.processing import store
from shared.processing.agenda import Agenda
from shared.processing.port import Batch, Connection, Given, Timer
from shared.processing.run import Run
from shared.processing.store import Position
from shared.telemetry import TIMER_LATENESS, TIMERS_FIRED

if TYPE_CHECKING:
    from shared.processing.frame import Item
    from shared.processing.lane import Lane

_BREATH_SECONDS = 0.005
"""How long a share is computed before all else of the process has its turn."""
_TIMERS_ALONE = 500
"""Timers of one transaction that brings no more records than that: what they wake lies in the processor's caches still
when it is written."""


class BadRecord(Exception):
    """The item of this index cannot be handled."""

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(str(error))
        self.index, self.error = index, error


class BadTimer(Exception):
    """This timer cannot fire; it came up when `index` items had been handled."""

    def __init__(self, timer: Timer, index: int, error: Exception) -> None:
        super().__init__(str(error))
        self.timer, self.index, self.error = timer, index, error


class Share:
    """`items` are the first of what is pending in the lane; with `until` only timers fire, up to there. `limit` timers
    at most: items beyond the last that is taken wait for the timers that are not, and `more` says that there may be."""

    def __init__(self, lane: Lane, items: Sequence[Item], until: datetime | None = None, limit: int | None = None):
        self.lane, self.items, self.until = lane, items, until
        self.limit = limit or min(lane.frame.batch_records, max(_TIMERS_ALONE, len(items)))
        self.roads = list(_roads(lane.as_of, items))
        self.road = self.roads[-1] if until is None else until
        self.timers: Sequence[Timer] = ()
        self.timers_low: datetime | None = None
        """What the lane's mark becomes when the timers have fired."""
        self.more = False
        self.begin_again()
        self._began = time.perf_counter()

    def begin_again(self) -> None:
        """Nothing of it has been computed."""
        agenda = Agenda(self.timers, more=self.more)
        self.run = Run(self.lane.frame, self.lane.partition, self.lane.as_of, agenda, dict(self.lane.position.out_seqs))
        self._fired = 0

    async def find_timers(self, connection: Connection) -> None:
        self.timers, self.timers_low = await due_timers(connection, self.lane, self.road, self.limit)
        self.more = len(self.timers) == self.limit
        if self.more:
            self.road = self.timers[-1].due
            self.items = self.items[: bisect_left(self.roads, self.road)]
        self.run.agenda = Agenda(self.timers, more=self.more)

    @property
    def given(self) -> Given:
        messages = [message for _, message, _ in self.items]
        return Given(self.lane.partition, self.lane.memo, messages, self.timers)

    async def compute(self, batch: Batch) -> Position:
        """Where the lane stands when this is committed. Raises BadRecord or BadTimer."""
        run, agenda, roads = self.run, self.run.agenda, self.roads
        in_seqs = dict(self.lane.position.in_seqs)
        breath = time.perf_counter()
        for index, (record, message, _) in enumerate(self.items):
            road = roads[index]
            if agenda.is_due(road):
                await self._fire(batch, road, index)
            run.as_of, run.trace = road, record.trace
            try:
                batch.handle(message, run)
            except Exception as error:
                raise BadRecord(index, error) from error
            if record.origin is not None:
                service, partition, generation, seq = record.origin
                in_seqs[f"{service}/{partition}/{generation}"] = seq
            if time.perf_counter() - breath > _BREATH_SECONDS:
                await asyncio.sleep(0)
                breath = time.perf_counter()
        if self.more or self.until is not None:
            await self._fire(batch, self.road, len(self.items))
            run.as_of = max(run.as_of, self.road)
        if self.until is not None and not self.more:
            # No record says that the time has come: whoever reads on must find that it had, also where we end here.
            # Not while there may be more timers of the same instant, which come before.
            said = self.lane.frame.processor.tick(run.as_of, self.lane.next_offset)
            if said is not None:
                run.trace = None
                run.emit_here(said[0], "", said[1])
        position = self.lane.position
        return replace(
            position,
            next_offset=self.lane.offset_after(len(self.items)),
            as_of=run.as_of,
            in_seqs=in_seqs,
            out_seqs=dict(run.out_seqs),
            failures=0 if self.items else position.failures,
        )

    async def _fire(self, batch: Batch, until: datetime, index: int) -> None:
        run, fired, first = self.run, 0, until
        breath = time.perf_counter()
        while (timer := run.agenda.pop(until)) is not None:
            run.as_of, run.trace = max(run.as_of, timer.due), None
            try:
                batch.fire(timer, run)
            except Exception as error:
                raise BadTimer(timer, index, error) from error
            if not fired:
                first = timer.due
            fired += 1
            if time.perf_counter() - breath > _BREATH_SECONDS:
                await asyncio.sleep(0)
                breath = time.perf_counter()
        if fired:
            frame = self.lane.frame
            TIMER_LATENESS.labels(frame.service).observe(max(0.0, (frame.clock.now() - first).total_seconds()))
            self._fired += fired

    def count(self) -> None:
        """It is done."""
        counted = self.lane.frame.counted
        counted.records.inc(len(self.items))
        counted.batch_records.observe(len(self.items))
        counted.batch_seconds.observe(time.perf_counter() - self._began)
        if self._fired:
            TIMERS_FIRED.labels(self.lane.frame.service).inc(self._fired)


async def due_timers(
    connection: Connection, lane: Lane, until: datetime, limit: int
) -> tuple[list[Timer], datetime | None]:
    """A lane's timers due by `until`, and what its mark becomes when they have fired."""
    if lane.timers_low is not None and until < lane.timers_low:
        return [], lane.timers_low
    timers, following = await store.due_timers(
        connection, lane.frame.service, lane.partition, lane.timers_low, until, limit
    )
    return timers, timers[-1].due if len(timers) == limit else following


def _roads(road: datetime, items: Sequence[Item]) -> Iterator[datetime]:
    """Where the road stands at each item, as `Item.road_after` says."""
    for _, _, at in items:
        if at is not None and at > road:
            road = at
        yield road
