"""Finding what cannot be processed, and setting it aside in its place on the road."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import structlog

from shared.database.engine import is_transient
from shared.errors import RapportError
from shared.processing.frame import Item
from shared.processing.port import Fenced, NewerContract, Poison, Timer
from shared.processing.run import storable, text_of
from shared.processing.share import BadRecord, BadTimer, due_timers
from shared.processing.store import DeadLetter

if TYPE_CHECKING:
    from shared.processing.lane import Lane

_FAILURES_BEFORE_HALT = 20
"""So many in a row, and the partition halts instead of setting aside more."""


class Halted(RapportError):
    """The partition stands still until a person has looked; going on would lose or skip something."""


class Isolation:
    """Takes what is pending in one lane, whose lock the caller holds: in one transaction where all of it is well, and
    in as many as it takes where something is not."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._frame = lane.frame
        self._logger = structlog.get_logger(service=lane.frame.service, partition=lane.partition)
        self._remedy = f"It is kept: rapport dead-letters list --service {lane.frame.service}."

    async def take(self, items: Sequence[Item]) -> None:
        """One transaction for `items`, the first of what is pending, or for the first of them: what cannot be processed
        goes to dead letters, in its place on the road."""
        bad_at = sound(items)
        if bad_at == 0:
            await self.bury(items[0], items[0].message)
            return
        try:
            await self._lane.attempt(items[:bad_at])
            return
        except Fenced:
            raise
        except (BadRecord, BadTimer) as bad:
            if bad.index > 0:
                await self.take(items[: bad.index])
                return
            if isinstance(bad.error, NewerContract):
                raise bad.error from None
            if isinstance(bad, BadTimer):
                await self.fire_until(bad.timer.due)
                return
        except Exception as error:
            if is_transient(error):
                raise
            await self._lane.settle()
            if len(items) > 1:
                await self.take(items[: len(items) // 2])
                return
        await self._alone(items[0])

    async def _alone(self, item: Item) -> None:
        """An item that seems bad, in a transaction of its own, after the timers before it had theirs."""
        await self.fire_until(item.road_after(self._lane.position.as_of))
        try:
            await self._lane.attempt([item])
        except Fenced:
            raise
        except Exception as error:
            cause = error.error if isinstance(error, BadRecord) else error
            if is_transient(error) or isinstance(cause, NewerContract):
                raise cause from None
            await self._lane.settle()
            await self.bury(item, cause)

    async def fire_until(self, until: datetime) -> None:
        """Bring the road to `until`, firing what is due. A timer that cannot fire goes to dead letters."""
        until = max(until, self._lane.as_of)
        while await self._fire_some(until, self._frame.batch_records):
            pass

    async def _fire_some(self, until: datetime, limit: int) -> bool:
        """One transaction for up to `limit` timers; says whether more may be due."""
        try:
            return await self._lane.attempt([], until, limit)
        except Fenced:
            raise
        except Exception as error:
            cause = error.error if isinstance(error, BadTimer) else error
            if isinstance(cause, NewerContract):
                raise cause from None
            if cause is error and is_transient(error):
                raise
            await self._lane.settle()
            if limit > 1:
                return await self._fire_some(until, limit // 2)
            async with self._frame.database.connect() as connection:
                timers, _ = await due_timers(connection, self._lane, until, 1)
            if not timers:
                raise  # not even nothing can be done here: no timer is at fault
            await self._bury_timer(timers[0], cause)
            return True

    async def bury(self, item: Item, error: Exception) -> None:
        """The first of what is pending to dead letters, in its own fenced transaction."""
        record = item.record
        run, after = self._lane.begin()
        if record.broken is None:
            after.failures = self._one_failure_more(error)
        code = "poison" if isinstance(error, Poison) else "failed"
        run.letters.append(
            DeadLetter(
                self._frame.processor.stream,
                record.offset,
                storable(record.key),
                record.value,
                record.trace,
                code,
                storable(text_of(error)),
                record.broken is None,
            )
        )
        after.next_offset = self._lane.offset_after(1)
        if record.origin is not None:
            service, partition, generation, seq = record.origin
            after.in_seqs = {**after.in_seqs, f"{service}/{partition}/{generation}": seq}
        await self._lane.commit(run, after)
        self._logger.warning("record set aside", offset=record.offset, error=text_of(error), remedy=self._remedy)

    async def _bury_timer(self, timer: Timer, error: Exception) -> None:
        run, after = self._lane.begin()
        after.failures = self._one_failure_more(error)
        run.set_timer(timer.kind, timer.subject, None)
        text = storable(f"timer {timer.kind} due {timer.due.isoformat()}: {text_of(error)}")
        key = storable(timer.subject)
        run.letters.append(DeadLetter("timers", None, key, timer.kind.encode(), None, "failed", text, False))
        await self._lane.commit(run, after)
        self._logger.warning(
            "timer set aside", kind=timer.kind, subject=timer.subject, error=text_of(error), remedy=self._remedy
        )

    def _one_failure_more(self, error: Exception) -> int:
        """Many failures in a row are not poison but a bad deploy: the record is left where it is, by the next owner
        too."""
        failures = self._lane.position.failures + 1
        if failures >= _FAILURES_BEFORE_HALT:
            raise Halted(
                f"{failures} records in a row failed, the last with: {text_of(error).rstrip('.')}. Start a release "
                f"that can process them, then retry what was set aside: rapport dead-letters retry --service "
                f"{self._frame.service}."
            )
        return failures


def sound(items: Sequence[Item]) -> int:
    """How many of them, from the first on, are messages at all."""
    return next((i for i, item in enumerate(items) if isinstance(item.message, RapportError)), len(items))
