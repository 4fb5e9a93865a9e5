"""One owned partition of one service: read, fire what is due, handle, commit behind the fence, publish."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import structlog

from shared.clock import Clock
from shared.contracts.streams import partition_of
from shared.database.engine import Database, is_transient
from shared.errors import RapportError, Unavailable
from shared.log.port import LARGEST_RECORD, Entry, Log, OffsetOutOfRange, Origin, Reader, Record
from shared.processing import store
from shared.processing.agenda import Agenda
from shared.processing.faults import reached
from shared.processing.outlets import Outlet
from shared.processing.port import Connection, Fenced, NewerContract, Poison, Processor, Timer
from shared.processing.store import DeadLetter, Destination, Fence, Position
from shared.telemetry import (
    BATCH_RECORDS,
    BATCH_SECONDS,
    DEAD_LETTERS,
    DUPLICATES,
    FENCED,
    HALTED,
    RECORDS,
    TIMER_LATENESS,
    TIMERS_FIRED,
)

T = TypeVar("T")

_FAILURES_BEFORE_HALT = 20
_ATTEMPTS_BEFORE_CARE = 3
_ATTEMPTS_BEFORE_BURIAL = 5
_BREATH_SECONDS = 0.005
_GRACE_SECONDS = 25.0
_FETCH_SECONDS = 0.25


class Halted(RapportError):
    """The partition stands still until a person has looked; going on would lose or skip something."""


class _BadRecord(Exception):
    """The item of this index cannot be handled."""

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(str(error))
        self.index, self.error = index, error


class _BadTimer(Exception):
    """This timer cannot fire; it came up when `index` items had been handled."""

    def __init__(self, timer: Timer, index: int, error: Exception) -> None:
        super().__init__(str(error))
        self.timer, self.index, self.error = timer, index, error


class Item(NamedTuple):
    record: Record
    message: Any


@dataclass(frozen=True)
class Frame:
    """What the lanes of one worker share."""

    processor: Processor
    database: Database
    log: Log
    reader: Reader
    outlet: Outlet
    clock: Clock
    worker: UUID
    generation: int
    batch_records: int
    in_flight: asyncio.Semaphore
    leads_time: bool
    """Whether this service reads the clock and writes ticks (segmenter); the others are told the time."""


@dataclass(slots=True)
class Run:
    """The outputs of one transaction (`shared.processing.port.Outputs`)."""

    frame: Frame
    partition: int
    as_of: datetime
    agenda: Agenda
    out_seqs: dict[str, int]
    trace: str | None = None
    outputs: dict[Destination, list[Entry]] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)

    def emit(self, stream: str, key: str, value: bytes) -> None:
        self._emit((stream, partition_of(key, self.frame.log.partitions)), key, value)

    def emit_here(self, stream: str, key: str, value: bytes) -> None:
        self._emit((stream, self.partition), key, value)

    def _emit(self, destination: Destination, key: str, value: bytes) -> None:
        if len(value) > LARGEST_RECORD:
            raise Poison(
                f"an output for {destination[0]} has {len(value)} bytes; {LARGEST_RECORD} is the most. Send less "
                f"data with the event, or keep less on the profile."
            )
        name = f"{destination[0]}/{destination[1]}"
        seq = self.out_seqs[name] = self.out_seqs.get(name, 0) + 1
        origin = Origin(self.frame.processor.service, self.partition, self.frame.generation, seq)
        entry = Entry(key, value, origin, self.trace)
        entries = self.outputs.get(destination)
        if entries is None:
            self.outputs[destination] = [entry]
        else:
            entries.append(entry)

    def set_timer(self, kind: str, subject: str, due: datetime | None) -> None:
        self.agenda.set(kind, subject, due)

    def dead_letter(self, key: str, body: bytes, code: str, message: str) -> None:
        stream = self.frame.processor.stream
        self.letters.append(DeadLetter(stream, None, _storable(key), body, self.trace, code, _storable(message), False))


class Lane:
    """One owned partition (`shared.processing.port.Lane`). What it holds is dropped when the fence says so."""

    def __init__(self, frame: Frame, partition: int, position: Position, *, taken_over: bool) -> None:
        self.partition = partition
        self.leaving = asyncio.Event()
        self.woken = asyncio.Event()
        self.lock = asyncio.Lock()
        self.halted: str | None = None
        self.drained_at: tuple[float, datetime] | None = None
        """When a fetch last showed that nothing more follows (monotonic seconds, and the clock's time)."""
        self.ticked_at = 0.0
        self.position = position
        self.timers_low: datetime | None = None
        self._frame = frame
        self._service = frame.processor.service
        self._pending: list[Item] = []
        self._read_to = position.next_offset
        self._suspect = taken_over
        self._failures = 0
        self._doubtful = False
        self._logger = structlog.get_logger(service=self._service, partition=partition)

    @property
    def as_of(self) -> datetime:
        return self.position.as_of or _BEFORE_TIME

    @property
    def memo(self) -> bytes:
        return self.position.memo

    async def run(self) -> None:
        """Until `leaving` is set. Raises Fenced where the partition was lost, NewerContract where this release is too
        old for what stands next."""
        await self._frame.outlet.recover(self.partition)
        attending = asyncio.create_task(self._attend())
        try:
            await self._flow()
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(attending), _GRACE_SECONDS)
            await self._frame.outlet.drained(self.partition, _GRACE_SECONDS)
        finally:
            attending.cancel()
            await asyncio.gather(attending, return_exceptions=True)
            self._frame.outlet.forget(self.partition)
            if self.halted:
                HALTED.labels(self._service).dec()

    async def _flow(self) -> None:
        failures = 0
        while not self.leaving.is_set():
            try:
                await self._step()
                failures = 0
            except (Fenced, NewerContract):
                raise
            except (Halted, OffsetOutOfRange) as error:
                self.halted = str(error)
                self.drained_at = None
                HALTED.labels(self._service).inc()
                self._logger.error("partition halted", reason=self.halted)
                await self.leaving.wait()
            except Exception as error:
                if not is_transient(error):
                    raise
                failures += 1
                if failures == 1:
                    self._logger.warning("partition waits", error=f"{type(error).__name__}: {error}")
                await _or_leaving(self.leaving, min(5.0, 0.05 * 2**failures) * random.uniform(0.5, 1.0))

    async def _step(self) -> None:
        if self._doubtful:
            async with self.lock:
                await self.settle()
        if self._frame.outlet.full(self.partition):
            await _or_leaving(self.leaving, 0.05)
            return
        if not self._pending:
            limit = self._frame.batch_records
            if self._suspect and self.position.attempts >= _ATTEMPTS_BEFORE_CARE:
                limit = 1
            at = self._frame.clock.now()
            fetched = await self._frame.reader.fetch(self.partition, limit, _FETCH_SECONDS)
            if not fetched.records:
                self._read_to = fetched.next_offset
                self.drained_at = (time.monotonic(), at) if fetched.drained else None
                return
            self.drained_at = None
            records = list(fetched.records)
            if self._suspect:
                records = await self._attempted(records)
            self._pending = self._accept(records)
            self._read_to = fetched.next_offset
            drained = fetched.drained
        else:
            drained = False
        async with self._frame.in_flight, self.lock:
            await self._process()
        self.woken.set()
        if drained:
            self.drained_at = (time.monotonic(), at)

    async def _attempted(self, records: list[Record]) -> list[Record]:
        """The first batch after a predecessor that died: a record that kills the process is found by its attempts."""
        self._suspect = False
        async with self._frame.database.connect() as connection:
            if self.position.attempts >= _ATTEMPTS_BEFORE_BURIAL:
                error = Poison(f"this record ended the process {self.position.attempts} times.")
                async with self.lock:
                    await self._bury(Item(records[0], None), error, records[0].offset + 1)
                return records[1:]
            await store.note_attempt(connection, self._service, self.partition, self.position.epoch)
        return records

    def _accept(self, records: Sequence[Record]) -> list[Item]:
        """Drop what was taken before, by the sequences of its sources; a gap in one halts the partition."""
        seen = dict(self.position.in_seqs)
        items: list[Item] = []
        for record in records:
            if record.origin is not None:
                service, partition, generation, seq = record.origin
                source = f"{service}/{partition}/{generation}"
                last = seen.get(source)
                if last is not None and seq <= last:
                    DUPLICATES.labels(self._service).inc()
                    continue
                if last is not None and seq > last + 1:
                    raise Halted(
                        f"{self._frame.processor.stream}[{self.partition}] offset {record.offset}: {source} goes from "
                        f"{last} to {seq}. {seq - last - 1} records are missing: restore them before going on."
                    )
                seen[source] = seq
            items.append(Item(record, None))
        return items

    async def _process(self) -> None:
        """All pending items, in as many fenced transactions as it takes."""
        items = self._decode(self._pending)
        while items:
            taken, _ = await self._isolating(items, None, self._frame.batch_records)
            items = items[taken:]
            self._pending = items
        if not items and self.position.next_offset < self._read_to:
            # Everything that was read was a duplicate, or the log had a gap: the offset moves with the next commit.
            self.position.next_offset = self._read_to

    def _decode(self, items: Sequence[Item]) -> list[Item]:
        decoded: list[Item] = []
        for item in items:
            if item.message is None:
                try:
                    item = Item(item.record, self._frame.processor.decode(item.record.key, item.record.value))
                except NewerContract:
                    if decoded:
                        return decoded
                    raise
                except Exception as error:
                    item = Item(item.record, error if isinstance(error, RapportError) else Poison(_text(error)))
            decoded.append(item)
        return decoded

    async def _isolating(self, items: list[Item], until: datetime | None, timers: int) -> tuple[int, bool]:
        """One transaction for `items`; where one of them cannot be processed, that one goes to dead letters."""
        first_bad = next((i for i, item in enumerate(items) if isinstance(item.message, RapportError)), None)
        if first_bad == 0:
            await self._bury(items[0], items[0].message, self._offset_after(items, 1))
            return 1, False
        try:
            return await self._attempt(items[:first_bad], until, timers, self._offset_after(items, first_bad))
        except _BadTimer as bad:
            if bad.index > 0:
                return await self._isolating(items[: bad.index], None, timers)
            if len(items) == 0 and timers == 1:
                await self._bury_timer(bad.timer, bad.error)
            else:
                await self._timers_one_by_one(bad.timer.due)
            return 0, True
        except _BadRecord as bad:
            if bad.index > 0:
                return await self._isolating(items[: bad.index], until, timers)
            if len(items) > 1:
                return await self._isolating(items[:1], until, timers)
            await self._bury(items[0], bad.error, self._offset_after(items, 1))
            return 1, False
        except (Fenced, Halted, NewerContract):
            raise
        except Exception as error:
            if is_transient(error):
                raise
            await self.settle()
            if len(items) > 1:
                return await self._isolating(items[: len(items) // 2], until, timers)
            if items and timers != 1:
                due = self._road(self.position.as_of, items[0].message)
                await self._timers_one_by_one(due)
                return await self._isolating(items, until, 1)
            if items:
                await self._bury(items[0], error, self._offset_after(items, 1))
                return 1, False
            if timers != 1:
                return await self._isolating(items, until, 1)
            due_timers = await self._due(until or self.as_of, 1)
            await self._bury_timer(due_timers[0], error)
            return 0, True

    async def _timers_one_by_one(self, until: datetime) -> None:
        more = True
        while more:
            _, more = await self._isolating([], until, 1)

    def _offset_after(self, items: Sequence[Item], count: int | None) -> int:
        """Where reading goes on once the first `count` of `items` (None: all) are processed."""
        if count is None or count >= len(items):
            following = self._pending[len(items) :] if len(self._pending) > len(items) else []
            return following[0].record.offset if following else self._read_to
        return items[count].record.offset

    def _road(self, road: datetime | None, message: Any) -> datetime:
        """Where the road stands once `message` is reached: it never goes back, nor ahead of the leader's clock."""
        moved = self._frame.processor.as_of(message)
        if moved is None:
            return road or _BEFORE_TIME
        if self._frame.leads_time:
            moved = min(moved, self._frame.clock.now())
        return moved if road is None or moved > road else road

    async def _due(self, until: datetime, limit: int) -> list[Timer]:
        async with self._frame.database.connect() as connection:
            return await store.due_timers(connection, self._service, self.partition, self.timers_low, until, limit)

    async def _attempt(
        self, items: Sequence[Item], until: datetime | None, limit: int, next_offset: int, tick: bool = False
    ) -> tuple[int, bool]:
        """Load, compute, commit. Returns how many items were taken, and whether more timers are due."""
        started = time.perf_counter()
        frame, processor = self._frame, self._frame.processor
        road = self.position.as_of
        roads: list[datetime] = []
        for item in items:
            road = self._road(road, item.message)
            roads.append(road)
        if until is not None and (road is None or until > road):
            road = until
        if road is None:
            road = _BEFORE_TIME
        async with frame.database.connect() as connection:
            timers = await store.due_timers(connection, self._service, self.partition, self.timers_low, road, limit)
            more = len(timers) == limit
            if more:
                # Items beyond the last timer that was taken wait for the timers that were not.
                road = timers[-1].due
                count = next((i for i, at in enumerate(roads) if at >= road), len(items))
                if count < len(items):
                    next_offset = items[count].record.offset
                items = items[:count]
            messages = [item.message for item in items]
            batch = await processor.load(connection, self.partition, self.position.memo, messages, timers)
        agenda = Agenda(timers)
        run = Run(frame, self.partition, self.position.as_of or _BEFORE_TIME, agenda, dict(self.position.out_seqs))
        fired = 0
        breath = time.perf_counter()
        for index, item in enumerate(items):
            fired += self._fire(batch, run, agenda, roads[index], index)
            run.as_of, run.trace = max(run.as_of, roads[index]), item.record.trace
            try:
                batch.handle(item.message, run)
            except NewerContract:
                raise
            except Exception as error:
                if is_transient(error):
                    raise
                raise _BadRecord(index, error) from error
            if time.perf_counter() - breath > _BREATH_SECONDS:
                await asyncio.sleep(0)
                breath = time.perf_counter()
        if more or until is not None:
            run.trace = None
            fired += self._fire(batch, run, agenda, road, len(items))
            if not more:
                run.as_of = max(run.as_of, road)
        if tick and not more:
            said = processor.tick(run.as_of, next_offset)
            if said is not None:
                run.emit_here(said[0], "", said[1])
        in_seqs = dict(self.position.in_seqs)
        for item in items:
            if item.record.origin is not None:
                service, partition, generation, seq = item.record.origin
                in_seqs[f"{service}/{partition}/{generation}"] = seq
        after = replace(self.position, next_offset=next_offset, as_of=run.as_of, in_seqs=in_seqs, out_seqs=run.out_seqs)

        async def save(connection: Connection) -> None:
            after.memo = await batch.save(connection)

        await self._commit(run, after, save)
        self.timers_low = road if until is not None or more or not roads else roads[-1]
        self._lower_mark(agenda)
        self._failures = 0
        RECORDS.labels(self._service).inc(len(items))
        BATCH_RECORDS.labels(self._service).observe(len(items))
        BATCH_SECONDS.labels(self._service).observe(time.perf_counter() - started)
        TIMERS_FIRED.labels(self._service).inc(fired)
        return len(items), more

    def _fire(self, batch: Any, run: Run, agenda: Agenda, until: datetime, index: int) -> int:
        fired = 0
        while (timer := agenda.pop(until)) is not None:
            run.as_of, run.trace = max(run.as_of, timer.due), None
            try:
                batch.fire(timer, run)
            except NewerContract:
                raise
            except Exception as error:
                raise _BadTimer(timer, index, error) from error
            fired += 1
        if fired:
            TIMER_LATENESS.labels(self._service).observe(max(0.0, (self._frame.clock.now() - until).total_seconds()))
        return fired

    def _lower_mark(self, agenda: Agenda) -> None:
        for due in agenda.changed.values():
            if due is not None and self.timers_low is not None and due < self.timers_low:
                self.timers_low = due

    async def _commit(
        self,
        run: Run,
        after: Position,
        save: Callable[[Connection], Awaitable[None]],
        letter: int | None = None,
    ) -> None:
        """The fenced transaction. After a failure nothing in memory has changed, and what stands in the database is
        looked up (`settle`) before anything else is done: the outcome of a COMMIT may be unknown."""
        self._doubtful = True
        try:
            async with self._frame.database.transaction() as connection:
                if not await store.fence(connection, self._service, [self.fence(after)]):
                    raise Fenced(f"{self._service}[{self.partition}] belongs to another worker now.")
                await save(connection)
                if letter is not None:
                    await store.delete_letter(connection, letter)
                if run.out_seqs != after.out_seqs:
                    await store.set_out_seqs(connection, self._service, self.partition, run.out_seqs)
                    after.out_seqs = run.out_seqs
                if after.memo != self.position.memo:
                    await store.set_memo(connection, self._service, self.partition, after.memo)
                if run.agenda.changed:
                    await store.write_timers(connection, self._service, self.partition, run.agenda.changed)
                if run.letters:
                    await store.write_dead_letters(connection, self._service, self.partition, run.letters)
                await self._frame.outlet.write(connection, {self.partition: run.outputs})
                reached(f"{self._service}.before_commit")
        except Fenced:
            FENCED.labels(self._service).inc()
            raise
        reached(f"{self._service}.after_commit")
        self._doubtful = False
        after.version = self.position.version + 1
        after.attempts = 0
        self.position = after
        self._frame.outlet.committed({self.partition: run.outputs})
        for dead in run.letters:
            DEAD_LETTERS.labels(self._service, dead.code).inc()

    def fence(self, after: Position) -> Fence:
        return Fence(
            self.partition,
            self.position.epoch,
            self.position.version,
            after.next_offset,
            after.as_of,
            after.in_seqs,
            after.out_seqs,
        )

    async def transact(self, work: Callable[[Connection, Run], Awaitable[T]]) -> T:
        """See `shared.processing.port.Lane`. Raises Unavailable where the outcome is unknown and the partition is ours
        still: look again before acting."""
        async with self.lock:
            await self.settle()
            run = Run(self._frame, self.partition, self.as_of, Agenda(()), dict(self.position.out_seqs))
            after = replace(self.position)
            result: list[T] = []

            async def save(connection: Connection) -> None:
                result.append(await work(connection, run))

            try:
                await self._commit(run, after, save)
            except Exception as error:
                if isinstance(error, Fenced) or not is_transient(error):
                    raise
                raise Unavailable(f"{self._service}[{self.partition}]: {error}") from error
            self._lower_mark(run.agenda)
            return result[0]

    async def _attend(self) -> None:
        """The service's own background work, begun again after trouble."""
        failures = 0
        while not self.leaving.is_set():
            try:
                await self._frame.processor.attend(self)
                return
            except Fenced:
                return
            except Exception as error:
                failures += 1
                if not is_transient(error) or failures == 1:
                    self._logger.warning("background work stumbled", error=f"{type(error).__name__}: {error}")
                await _or_leaving(self.leaving, min(5.0, 0.05 * 2**failures) * random.uniform(0.5, 1.0))

    async def settle(self) -> None:
        """After a transaction that failed: read again what stands, under a new epoch. The caller holds the lock.

        Raises Fenced where the partition was lost, Unavailable where the failed transaction had committed after all:
        what was held is dropped then, and read again."""
        if not self._doubtful:
            return
        frame = self._frame
        async with frame.database.connect() as connection:
            position = await store.reclaim(connection, self._service, self.partition, frame.worker, self.position.epoch)
        if position is None:
            FENCED.labels(self._service).inc()
            raise Fenced(f"{self._service}[{self.partition}] belongs to another worker now.")
        committed = position.version != self.position.version + 1
        self.position = position
        self.timers_low = None
        await frame.outlet.recover(self.partition)
        self._doubtful = False
        if committed:
            self._pending = []
            self._read_to = position.next_offset
            frame.reader.seek(self.partition, position.next_offset)
            raise Unavailable(f"{self._service}[{self.partition}]: the last transaction had been committed.")

    async def _bury(self, item: Item, error: Exception, next_offset: int) -> None:
        """One record to dead letters, in its own fenced transaction."""
        self._count_failure(error)
        record = item.record
        run = Run(self._frame, self.partition, self.as_of, Agenda(()), dict(self.position.out_seqs))
        run.letters.append(
            DeadLetter(
                self._frame.processor.stream,
                record.offset,
                _storable(record.key),
                record.value,
                record.trace,
                "poison" if isinstance(error, Poison) else "failed",
                _storable(_text(error)),
                True,
            )
        )
        in_seqs = dict(self.position.in_seqs)
        if record.origin is not None:
            service, partition, generation, seq = record.origin
            in_seqs[f"{service}/{partition}/{generation}"] = seq
        after = replace(self.position, next_offset=next_offset, in_seqs=in_seqs)
        await self._commit(run, after, _nothing)
        self._logger.warning("record set aside", offset=record.offset, error=_text(error))

    async def _bury_timer(self, timer: Timer, error: Exception) -> None:
        self._count_failure(error)
        run = Run(self._frame, self.partition, self.as_of, Agenda(()), dict(self.position.out_seqs))
        run.set_timer(timer.kind, timer.subject, None)
        run.letters.append(
            DeadLetter(
                "timers", None, _storable(timer.subject), timer.kind.encode(), None, "failed",
                _storable(f"timer {timer.kind} due {timer.due.isoformat()}: {_text(error)}"), False,
            )
        )  # fmt: skip
        await self._commit(run, replace(self.position), _nothing)
        self._logger.warning("timer set aside", kind=timer.kind, subject=timer.subject, error=_text(error))

    def _count_failure(self, error: Exception) -> None:
        """Many failures in a row are not poison but a bad deploy."""
        self._failures += 1
        if self._failures >= _FAILURES_BEFORE_HALT:
            raise Halted(
                f"{self._failures} records in a row failed, the last with: {_text(error)}. Mend that and restart."
            )

    async def retry(self, letter: int, record: Record) -> None:
        """A dead letter whose retry was asked for: the record again, through its owner, at the road's present place."""
        processor = self._frame.processor
        async with self.lock:
            await self.settle()
            try:
                message = processor.decode(record.key, record.value)
                async with self._frame.database.connect() as connection:
                    batch = await processor.load(connection, self.partition, self.position.memo, [message], ())
                run = Run(self._frame, self.partition, self.as_of, Agenda(()), dict(self.position.out_seqs))
                run.trace = record.trace
                batch.handle(message, run)
            except Exception as error:
                if is_transient(error):
                    raise
                async with self._frame.database.connect() as connection:
                    await store.keep_letter(connection, letter, "failed", _storable(_text(error)))
                return
            after = replace(self.position, out_seqs=run.out_seqs)

            async def save(connection: Connection) -> None:
                after.memo = await batch.save(connection)

            try:
                await self._commit(run, after, save, letter)
            except Exception as error:
                if isinstance(error, Fenced) or is_transient(error):
                    raise
                async with self._frame.database.connect() as connection:
                    await store.keep_letter(connection, letter, "failed", _storable(_text(error)))
                return
            self._lower_mark(run.agenda)

    async def tick_with_timers(self, as_of: datetime) -> None:
        """A tick of a partition that has timers due: they fire, then the tick is said. The caller holds the lock."""
        await self.settle()
        more = True
        while more:
            try:
                _, more = await self._attempt([], as_of, self._frame.batch_records, self._read_to, tick=True)
            except _BadTimer as bad:
                await self._timers_one_by_one(bad.timer.due)

    def tick_outputs(self, as_of: datetime) -> tuple[Run, Position]:
        """A tick of a partition that has nothing else to do, to be committed together with others'."""
        run = Run(self._frame, self.partition, as_of, Agenda(()), dict(self.position.out_seqs))
        said = self._frame.processor.tick(as_of, self._read_to)
        assert said is not None
        run.emit_here(said[0], "", said[1])
        after = replace(self.position, as_of=as_of, out_seqs=run.out_seqs)
        return run, after

    def doubt(self) -> None:
        """A transaction that includes this partition begins; until it has succeeded, look before doing more."""
        self._doubtful = True

    def ticked(self, after: Position) -> None:
        """The shared commit of `tick_outputs` succeeded."""
        self._doubtful = False
        after.version = self.position.version + 1
        self.position = after


_BEFORE_TIME = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


async def _nothing(connection: Connection) -> None:
    return


async def _or_leaving(leaving: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(leaving.wait(), seconds)


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, RapportError) else f"{type(error).__name__}: {error}"


def _storable(text: str) -> str:
    return text.replace("\0", "\ufffd")
