"""The fenced transaction: what one partition commits, or several of one worker together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from shared.database.engine import inside
from shared.processing import store
from shared.processing.faults import reached
from shared.processing.port import Connection, Fenced
from shared.processing.run import Run
from shared.processing.store import Fence, Position
from shared.telemetry import DEAD_LETTERS, FENCED

if TYPE_CHECKING:
    from shared.processing.frame import Frame
    from shared.processing.lane import Lane


class Part(NamedTuple):
    """What a transaction has of one lane: what that puts out, and where it stands then. The lane's lock is held."""

    lane: Lane
    run: Run
    after: Position

    @property
    def fence(self) -> Fence:
        before, after = self.lane.position, self.after
        return Fence(
            self.lane.partition,
            before.epoch,
            before.version,
            after.next_offset,
            after.as_of,
            after.in_seqs,
            after.out_seqs,
            after.memo,
            after.attempts,
            after.failures,
        )


async def commit(
    frame: Frame, connection: Connection, parts: Sequence[Part], save: Callable[[Connection], Awaitable[None]]
) -> None:
    """All of it, or nothing. After a failure nothing in memory has changed, and each lane looks up what stands in the
    database (`Lane.settle`) before it does anything else: the outcome of a COMMIT may be unknown.

    Raises Fenced where one of the partitions is not ours."""
    service = frame.service
    # Rows are locked in one order by everybody.
    parts = sorted(parts, key=lambda part: part.lane.partition)
    for lane, _, after in parts:
        lane.doubt()
        if after.next_offset != lane.position.next_offset:
            after.attempts = 0
    outputs = {part.lane.partition: part.run.outputs for part in parts}
    async with inside(connection):
        if not await store.fence(connection, service, [part.fence for part in parts]):
            if len(parts) == 1:
                FENCED.labels(service).inc()
            raise Fenced(f"{service}{list(outputs)} belongs to another worker now.")
        reached(f"{service}.fenced")
        await save(connection)
        if added := [part for part in parts if part.run.out_seqs != part.after.out_seqs]:
            # `save` itself has put something out.
            await store.set_out_seqs(connection, service, {part.lane.partition: part.run.out_seqs for part in added})
            for _, run, after in added:
                after.out_seqs = run.out_seqs
        timers = {part.lane.partition: part.run.agenda.changed for part in parts if part.run.agenda.changed}
        if timers:
            await store.write_timers(connection, service, timers)
        letters = {part.lane.partition: part.run.letters for part in parts if part.run.letters}
        if letters:
            await store.write_dead_letters(connection, service, letters)
        await frame.outlet.write(connection, outputs)
        reached(f"{service}.before_commit")
    reached(f"{service}.after_commit")
    for lane, _, after in parts:
        lane.committed(after)
    # A lane that has ended meanwhile leaves it to its successor to go on with what it committed.
    frame.outlet.committed({part.lane.partition: part.run.outputs for part in parts if not part.lane.over})
    for letter in (letter for part in parts for letter in part.run.letters):
        DEAD_LETTERS.labels(service, letter.code).inc()


async def nothing(connection: Connection) -> None:
    """What is saved where only the frame has something to write."""
