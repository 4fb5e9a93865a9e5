"""The fenced transaction: what one partition commits, or several of one worker together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from shared.database.clauses import Clause, execute
from shared.database.engine import inside
from shared.processing import store
from shared.processing.faults import reached
from shared.processing.port import Connection, Fenced, Writes
from shared.processing.run import Run
from shared.processing.store import Fence, Position
from shared.telemetry import DEAD_LETTERS, FENCED

if TYPE_CHECKING:
    from shared.processing.frame import Frame
    from shared.processing.lane import Lane


NOTHING = Writes()
"""Where only the frame has something to write."""


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


async def commit(frame: Frame, connection: Connection, parts: Sequence[Part], writes: Writes = NOTHING) -> None:
    """All of it, or nothing. After a failure nothing in memory has changed, and each lane looks up what stands in the
    database (`Lane.settle`) before it does anything else: the outcome of a COMMIT may be unknown.

    Where all that is to be written is known, one statement is the transaction: each waits for its answer longer than it
    takes, and BEGIN and COMMIT are two.

    Raises Fenced where one of the partitions is not ours."""
    service = frame.service
    # Rows are locked in one order by everybody.
    parts = sorted(parts, key=lambda part: part.lane.partition)
    for lane, _, after in parts:
        lane.doubt()
        if after.next_offset != lane.position.next_offset:
            after.attempts = 0
    outputs = {part.lane.partition: part.run.outputs for part in parts}
    if writes.work is None:
        clauses = [*writes.clauses, *_clauses(frame, parts)]
        reached(f"{service}.before_commit")
        frame.outlet.wrote(outputs, await _fence(connection, service, parts, clauses))
    else:
        async with inside(connection):
            await _fence(connection, service, parts, writes.clauses)
            reached(f"{service}.fenced")
            last = list(await writes.work(connection))
            if added := [part for part in parts if part.run.out_seqs != part.after.out_seqs]:
                # The work itself has put something out.
                last.append(store.out_seqs(service, {part.lane.partition: part.run.out_seqs for part in added}))
                for _, run, after in added:
                    after.out_seqs = run.out_seqs
            frame.outlet.wrote(outputs, await execute(connection, [*last, *_clauses(frame, parts)]))
            reached(f"{service}.before_commit")
    reached(f"{service}.after_commit")
    for lane, _, after in parts:
        lane.committed(after)
    # A lane that has ended meanwhile leaves it to its successor to go on with what it committed.
    frame.outlet.committed({part.lane.partition: part.run.outputs for part in parts if not part.lane.over})
    for letter in (letter for part in parts for letter in part.run.letters):
        DEAD_LETTERS.labels(service, letter.code).inc()


async def _fence(
    connection: Connection, service: str, parts: Sequence[Part], clauses: Sequence[Clause]
) -> Sequence[Any]:
    try:
        return await store.fence(connection, service, [part.fence for part in parts], clauses)
    except Fenced:
        if len(parts) == 1:
            FENCED.labels(service).inc()
        raise


def _clauses(frame: Frame, parts: Sequence[Part]) -> list[Clause]:
    """What the frame itself writes of these."""
    clauses = []
    timers = {part.lane.partition: part.run.agenda.changed for part in parts if part.run.agenda.changed}
    if timers:
        clauses += store.timers(frame.service, timers)
    letters = {part.lane.partition: part.run.letters for part in parts if part.run.letters}
    if letters:
        clauses.append(store.dead_letters(frame.service, letters))
    put_out = frame.outlet.clause({part.lane.partition: part.run.outputs for part in parts})
    return clauses if put_out is None else [*clauses, put_out]
