"""One owned partition of one service: read, fire what is due, handle, commit behind the fence, publish."""

from __future__ import annotations

import asyncio
import random
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import msgspec
import structlog

from shared.clock import Clock
from shared.contracts.streams import partition_of
from shared.database.engine import Database, inside, is_transient
from shared.errors import RapportError, Unavailable
from shared.log.port import LARGEST_RECORD, Entry, Log, OffsetOutOfRange, Origin, Reader, Record
from shared.processing import store
from shared.processing.agenda import Agenda
from shared.processing.faults import reached
from shared.processing.outlets import Outlet
from shared.processing.port import Batch, Connection, Fenced, NewerContract, Poison, Processor, Timer
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
from shared.trouble import Trouble

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode

_FAILURES_BEFORE_HALT = 20
_ATTEMPTS_BEFORE_CARE = 3
_ATTEMPTS_BEFORE_BURIAL = 5
_BREATH_SECONDS = 0.005
_GRACE_SECONDS = 25.0
_STEP_SECONDS = 10.0
_FETCH_SECONDS = 0.25
_FRESH_SECONDS = 1.0
_SHARED_COMMIT_SECONDS = 1.0


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
    """A record, its message (None: not decoded yet; an error: it cannot be), and the time that it moves the road to."""

    record: Record
    message: Any = None
    at: datetime | None = None


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
    trouble: Trouble = field(default_factory=lambda: Trouble("a partition", "It goes on by itself."))
    """What all of them wait for, while something does not answer."""
    care: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a record is taken that may have ended this process before, so that no other is blamed for it."""


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

    def emit(self, stream: str, key: str, record: msgspec.Struct | bytes) -> None:
        self._emit((stream, partition_of(key, self.frame.log.partitions)), key, record)

    def emit_here(self, stream: str, key: str, record: msgspec.Struct | bytes) -> None:
        self._emit((stream, self.partition), key, record)

    def _emit(self, destination: Destination, key: str, record: msgspec.Struct | bytes) -> None:
        value = record if isinstance(record, bytes) else _encode(record)
        size = len(key.encode()) + len(value)
        if size > LARGEST_RECORD:
            raise Poison(
                f"an output for {destination[0]} has {size} bytes; {LARGEST_RECORD} is the most. Send less "
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
        self._flowing: asyncio.Timeout | None = None
        self.halted: str | None = None
        self.position = position
        self.timers_low: datetime | None = None
        """No timer is due before it, be it ahead of the road or behind; None: unknown."""
        self.timers_due = False
        """Set to have what is due by now fire, where time leads."""
        self._frame = frame
        self._service = frame.processor.service
        self._pending: list[Item] = []
        """Read and not processed yet."""
        self._read_to = position.next_offset
        self._committed = position.next_offset
        """Where the database stands. What was taken since has left no trace but in `position`."""
        self._committed_at = 0.0
        self._gap: Halted | None = None
        """Why nothing may be taken after what is pending."""
        self._drained: tuple[float, datetime] | None = None
        """When a fetch last showed that nothing follows what was read (monotonic seconds), and the clock's time when it
        began, which is before the log answered."""
        self._doubtful = True
        """What stands in the database is to be looked up first; and what a predecessor left in the outbox."""
        self._singly = frame.batch_records if taken_over and position.attempts >= _ATTEMPTS_BEFORE_CARE else 0
        """How many records are to be taken one by one, since one of them may end the process."""
        self._suspect = taken_over
        """Note an attempt before the next records are taken."""
        self._logger = structlog.get_logger(service=self._service, partition=partition)

    @property
    def as_of(self) -> datetime:
        return self.position.as_of or _BEFORE_TIME

    @property
    def memo(self) -> bytes:
        return self.position.memo

    @property
    def next_offset(self) -> int:
        """Where the first record stands that is not processed."""
        return self._offset_after(0)

    @property
    def idle_at(self) -> datetime | None:
        """The time up to which nothing is left to be processed, as a fetch that ended within the last second showed;
        None where there is more, where nobody knows, and where the road has come that far."""
        if self._drained is None or self._pending or self._doubtful or self.leaving.is_set():
            return None
        seen, at = self._drained
        return at if time.monotonic() - seen < _FRESH_SECONDS and at > self.as_of else None

    async def run(self) -> None:
        """Until `leave` is called. Raises Fenced where the partition was lost, NewerContract where this release is too
        old for what stands next."""
        attending = asyncio.create_task(self._attend())
        try:
            try:
                async with asyncio.timeout(None) as self._flowing:
                    await self._flow()
            finally:
                self._flowing = None
            with suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_SECONDS):
                    await asyncio.shield(attending)
                    async with self.lock:
                        await self._write_down()
                        await self._frame.outlet.drained(self.partition)
        finally:
            attending.cancel()
            await asyncio.gather(attending, return_exceptions=True)
            self._frame.outlet.forget(self.partition)
            self._frame.trouble.over(self.partition)
            self._frame.trouble.over(("beside", self.partition))
            if self.halted:
                HALTED.labels(self._service).dec()

    def leave(self) -> None:
        """Finish what is in hand, and end. A database that does not answer for so long is not waited for: what becomes
        of the step in hand is for the next owner to see."""
        if self._flowing is not None and not self.leaving.is_set():
            self._flowing.reschedule(asyncio.get_running_loop().time() + _STEP_SECONDS)
        self.leaving.set()

    async def _flow(self) -> None:
        failures = 0
        while not self.leaving.is_set():
            try:
                await self._step()
                if failures:
                    failures = 0
                    self._frame.trouble.over(self.partition)
            except (Fenced, NewerContract):
                raise
            except (Halted, OffsetOutOfRange) as error:
                self.halted = str(error)
                self._drained = None
                HALTED.labels(self._service).inc()
                self._logger.error("partition halted", reason=self.halted)
                await self.leaving.wait()
            except Exception as error:
                if not is_transient(error):
                    raise
                failures += 1
                self._frame.trouble.met(self.partition, error)
                await self._back_off(failures)

    async def _back_off(self, failures: int) -> None:
        await _or_leaving(self.leaving, min(5.0, 0.05 * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0))

    async def _step(self) -> None:
        if self._doubtful:
            async with self.lock:
                await self.settle()
        if self._frame.outlet.full(self.partition):
            await _or_leaving(self.leaving, 0.05)
            return
        if not self._pending:
            if self._gap is not None:
                raise self._gap
            at = self._frame.clock.now()
            limit = 1 if self._singly else self._frame.batch_records
            fetched = await self._frame.reader.fetch(self.partition, limit, _FETCH_SECONDS)
            self._read_to = fetched.next_offset
            self._pending = self._accept(fetched.records)
            self._drained = (time.monotonic(), at) if fetched.drained and self._gap is None else None
        if self._pending:
            async with self._frame.care if self._singly else self._frame.in_flight, self.lock:
                await self.settle()
                await self._process()
            self.woken.set()
        elif self.timers_due:
            async with self._frame.in_flight, self.lock:
                await self.settle()
                await self._fire_and_tick()
        else:
            async with self.lock:
                await self._write_down()

    async def _note_attempt(self) -> None:
        """Before the first records after an owner that died: one that ends the process is found by its attempts."""
        if self.position.attempts >= _ATTEMPTS_BEFORE_BURIAL:
            error = Poison(f"this record ended the process {self.position.attempts} times.")
            await self._bury(self._pending[0], error)
            self._pending = self._pending[1:]
            return
        async with self._frame.database.connect() as connection:
            await store.note_attempt(connection, self._service, self.partition, self.position.epoch)
        self.position.attempts += 1
        self._singly = max(0, self._singly - 1)
        self._suspect = self._singly > 0

    def _accept(self, records: Sequence[Record]) -> list[Item]:
        """Drop what was taken before, by the sequences of its sources; a gap in one halts the partition, once all that
        stands before it is processed."""
        seen = dict(self.position.in_seqs)
        items: list[Item] = []
        for record in records:
            if record.origin is not None:
                service, partition, generation, seq = record.origin
                source = f"{service}/{partition}/{generation}"
                last = seen.get(source)
                if last is None:
                    # A source counts from 1. After a restore it goes on under a new generation from where the backup
                    # stood, which no reader knows; and whoever sets an offset by hand leaves out what came before.
                    last = 0 if generation == 1 and store.ANYWHERE not in seen else seq - 1
                if seq <= last:
                    DUPLICATES.labels(self._service).inc()
                    continue
                if seq > last + 1:
                    self._gap = Halted(
                        f"{self._frame.processor.stream}[{self.partition}] offset {record.offset}: {source} goes from "
                        f"{last} to {seq}. {seq - last - 1} records are missing: restore them, or leave them out with "
                        f"rapport partitions seek {self._service} {self.partition} {record.offset}."
                    )
                    self._read_to = record.offset
                    break
                seen[source] = seq
            items.append(Item(record))
        return items

    async def _process(self) -> None:
        """All pending items, in as many fenced transactions as it takes. The caller holds the lock."""
        if self._suspect and self._pending:
            await self._note_attempt()
        while self._pending:
            taken = await self._isolating(self._decode())
            self._pending = self._pending[taken:]

    def _decode(self) -> list[Item]:
        """The pending items up to one that this release is too old for; raises NewerContract where it is the first."""
        for index, (record, message, _) in enumerate(self._pending):
            if message is None:
                try:
                    self._pending[index] = self._decoded(record)
                except NewerContract:
                    if index:
                        return self._pending[:index]
                    raise
        return self._pending

    def _decoded(self, record: Record) -> Item:
        processor = self._frame.processor
        if record.broken is not None:
            return Item(record, Poison(record.broken))
        try:
            message = processor.decode(record.key, record.value)
            at = processor.as_of(message)
            if at is not None and at.tzinfo is None:
                raise Poison(f"its time {at.isoformat()} has no offset from UTC.")
        except NewerContract:
            raise
        except Exception as error:
            return Item(record, error if isinstance(error, RapportError) else Poison(_text(error)))
        if at is not None and self._frame.leads_time:
            at = min(at, self._frame.clock.now())  # the road is never ahead of the leader's clock
        return Item(record, message, at)

    async def _isolating(self, items: Sequence[Item]) -> int:
        """One transaction for `items`, the first of what is pending, or for the first of them: what cannot be processed
        goes to dead letters, in its place on the road. Returns how many are done with."""
        bad_at = next((i for i, item in enumerate(items) if isinstance(item.message, RapportError)), len(items))
        if bad_at == 0:
            await self._bury(items[0], items[0].message)
            return 1
        try:
            return (await self._attempt(items[:bad_at]))[0]
        except Fenced:
            raise
        except (_BadRecord, _BadTimer) as bad:
            if bad.index > 0:
                return await self._isolating(items[: bad.index])
            if isinstance(bad.error, NewerContract):
                raise bad.error from None
            if isinstance(bad, _BadTimer):
                await self._fire_until(bad.timer.due)
                return 0
        except Exception as error:
            if is_transient(error):
                raise
            await self.settle()
            if len(items) > 1:
                return await self._isolating(items[: len(items) // 2])
        await self._alone(items[0])
        return 1

    async def _alone(self, item: Item) -> None:
        """An item that seems bad, in a transaction of its own, after the timers before it had theirs."""
        await self._fire_until(self._road(self.position.as_of, item))
        try:
            await self._attempt([item])
        except Fenced:
            raise
        except Exception as error:
            cause = error.error if isinstance(error, _BadRecord) else error
            if is_transient(error) or isinstance(cause, NewerContract):
                raise cause from None
            await self.settle()
            await self._bury(item, cause)

    async def _fire_until(self, until: datetime) -> None:
        """Bring the road to `until`, firing what is due. A timer that cannot fire goes to dead letters."""
        until = max(until, self.as_of)
        while await self._fire_some(until, self._frame.batch_records):
            pass

    async def _fire_some(self, until: datetime, limit: int) -> bool:
        """One transaction for up to `limit` timers; says whether more may be due."""
        try:
            return (await self._attempt([], until, limit))[1]
        except Fenced:
            raise
        except Exception as error:
            cause = error.error if isinstance(error, _BadTimer) else error
            if isinstance(cause, NewerContract):
                raise cause from None
            if cause is error and is_transient(error):
                raise
            await self.settle()
            if limit > 1:
                return await self._fire_some(until, limit // 2)
            async with self._frame.database.connect() as connection:
                timers, _ = await self._due(connection, until, 1)
            if not timers:
                raise  # not even nothing can be done here: no timer is at fault
            await self._bury_timer(timers[0], cause)
            return True

    def _offset_after(self, count: int) -> int:
        """Where reading goes on once the first `count` pending items are processed."""
        return self._pending[count].record.offset if count < len(self._pending) else self._read_to

    def _road(self, road: datetime | None, item: Item) -> datetime:
        """Where the road stands once `item` is reached: it never goes back."""
        return max(road or _BEFORE_TIME, item.at or _BEFORE_TIME)

    async def _due(self, connection: Connection, until: datetime, limit: int) -> tuple[list[Timer], datetime | None]:
        """Timers due by `until`, and what `timers_low` becomes when they have fired."""
        if self.timers_low is not None and until < self.timers_low:
            return [], self.timers_low
        timers, following = await store.due_timers(
            connection, self._service, self.partition, self.timers_low, until, limit
        )
        return timers, timers[-1].due if len(timers) == limit else following

    async def _attempt(
        self, items: Sequence[Item], until: datetime | None = None, limit: int | None = None
    ) -> tuple[int, bool]:
        """Load, compute, commit: `items`, or (with `until`) only timers, `limit` of them at most. Returns how many
        items were taken, and whether more timers may be due."""
        started = time.perf_counter()
        frame, processor = self._frame, self._frame.processor
        limit = limit or frame.batch_records
        roads = list(accumulate(items, self._road, initial=self.as_of))[1:]
        road = roads[-1] if until is None else until
        async with frame.database.connect() as connection:
            timers, timers_low = await self._due(connection, road, limit)
            more = len(timers) == limit
            if more:
                # Items beyond the last timer that was taken wait for the timers that were not.
                road = timers[-1].due
                items = items[: bisect_left(roads, road)]
            messages = [item.message for item in items]
            batch = await processor.load(connection, self.partition, self.position.memo, messages, timers)
            agenda = Agenda(timers, more=more)
            run = Run(frame, self.partition, self.as_of, agenda, dict(self.position.out_seqs))
            in_seqs = dict(self.position.in_seqs)
            fired = 0
            breath = time.perf_counter()
            for index, item in enumerate(items):
                if agenda.is_due(roads[index]):
                    fired += await self._fire(batch, run, agenda, roads[index], index)
                run.as_of, run.trace = roads[index], item.record.trace
                try:
                    batch.handle(item.message, run)
                except Exception as error:
                    raise _BadRecord(index, error) from error
                if item.record.origin is not None:
                    service, partition, generation, seq = item.record.origin
                    in_seqs[f"{service}/{partition}/{generation}"] = seq
                if time.perf_counter() - breath > _BREATH_SECONDS:
                    await asyncio.sleep(0)
                    breath = time.perf_counter()
            if more or until is not None:
                fired += await self._fire(batch, run, agenda, road, len(items))
                run.as_of = max(run.as_of, road)
            after = replace(
                self.position,
                next_offset=self._offset_after(len(items)),
                as_of=run.as_of,
                in_seqs=in_seqs,
                out_seqs=run.out_seqs,
                failures=0 if items else self.position.failures,
            )

            async def save(connection: Connection) -> None:
                after.memo = await batch.save(connection)

            if batch.nothing_to_save() and self._may_wait(run, after):
                self.position = after
            else:
                await self._commit_on(connection, run, after, save)
        self.timers_low = timers_low
        self._lower_mark(agenda)
        RECORDS.labels(self._service).inc(len(items))
        BATCH_RECORDS.labels(self._service).observe(len(items))
        BATCH_SECONDS.labels(self._service).observe(time.perf_counter() - started)
        TIMERS_FIRED.labels(self._service).inc(fired)
        return len(items), more

    def _may_wait(self, run: Run, after: Position) -> bool:
        """Whether a batch that has nothing to save may do without a commit: whoever read its records again would find
        the same. Not for long, though, and not where the partition's row says that something was wrong here."""
        return (
            not (run.outputs or run.letters or run.agenda.changed)
            and not (self.position.attempts or self.position.failures)
            and after.next_offset - self._committed < self._frame.batch_records
            and time.monotonic() - self._committed_at < _SHARED_COMMIT_SECONDS
        )

    async def _write_down(self) -> None:
        """Commit where the partition stands, if the database does not know. The caller holds the lock."""
        if self._committed != self.position.next_offset and not self._doubtful:
            await self._commit(*self._run(), _nothing)

    async def _fire(self, batch: Batch, run: Run, agenda: Agenda, until: datetime, index: int) -> int:
        fired = 0
        breath = time.perf_counter()
        while (timer := agenda.pop(until)) is not None:
            run.as_of, run.trace = max(run.as_of, timer.due), None
            try:
                batch.fire(timer, run)
            except Exception as error:
                raise _BadTimer(timer, index, error) from error
            fired += 1
            if time.perf_counter() - breath > _BREATH_SECONDS:
                await asyncio.sleep(0)
                breath = time.perf_counter()
        if fired:
            TIMER_LATENESS.labels(self._service).observe(max(0.0, (self._frame.clock.now() - until).total_seconds()))
        return fired

    def _lower_mark(self, agenda: Agenda) -> None:
        for due in agenda.changed.values():
            if due is not None and self.timers_low is not None and due < self.timers_low:
                self.timers_low = due

    async def _commit(self, run: Run, after: Position, save: Callable[[Connection], Awaitable[None]]) -> None:
        """See `_commit_on`."""
        # Nothing has been said where no connection is to be had.
        async with self._frame.database.connect() as connection:
            await self._commit_on(connection, run, after, save)

    async def _commit_on(
        self, connection: Connection, run: Run, after: Position, save: Callable[[Connection], Awaitable[None]]
    ) -> None:
        """The fenced transaction. After a failure nothing in memory has changed, and what stands in the database is
        looked up (`settle`) before anything else is done: the outcome of a COMMIT may be unknown."""
        self._doubtful = True
        if after.next_offset != self.position.next_offset:
            after.attempts = 0
        try:
            async with inside(connection):
                if not await store.fence(connection, self._service, [self.fence(after)]):
                    raise Fenced(f"{self._service}[{self.partition}] belongs to another worker now.")
                reached(f"{self._service}.fenced")
                await save(connection)
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
        self._stands(after)
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
            after.attempts,
            after.failures,
        )

    async def transact(self, work: Callable[[Connection, Run], Awaitable[T]]) -> T:
        """See `shared.processing.port.Lane`. Raises Unavailable where the outcome is unknown and the partition is ours
        still: look again before acting."""
        async with self.lock:
            await self.settle()
            run, after = self._run()
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
            except Exception as error:
                failures += 1
                if is_transient(error):
                    self._frame.trouble.met(("beside", self.partition), error)
                else:
                    self._logger.warning("background work stumbled", error=f"{type(error).__name__}: {error}")
                await self._back_off(failures)

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
        self._committed = position.next_offset
        if not committed:
            # What was taken without a commit of its own is none the worse for it.
            position.next_offset, position.as_of = self.position.next_offset, self.position.as_of
            position.in_seqs = self.position.in_seqs
        self.position = position
        self.timers_low = None
        await frame.outlet.recover(self.partition)
        self._doubtful = False
        if committed:
            self._pending, self._gap = [], None
            self._read_to = position.next_offset
            self._drained = None
            frame.reader.seek(self.partition, position.next_offset)
            raise Unavailable(f"{self._service}[{self.partition}]: the last transaction had been committed.")

    async def _bury(self, item: Item, error: Exception) -> None:
        """The first of what is pending to dead letters, in its own fenced transaction."""
        record = item.record
        run, after = self._run()
        if record.broken is None:
            after.failures = self._one_failure_more(error)
        code = "poison" if isinstance(error, Poison) else "failed"
        run.letters.append(
            DeadLetter(
                self._frame.processor.stream,
                record.offset,
                _storable(record.key),
                record.value,
                record.trace,
                code,
                _storable(_text(error)),
                record.broken is None,
            )
        )
        after.next_offset = self._offset_after(1)
        if record.origin is not None:
            service, partition, generation, seq = record.origin
            after.in_seqs = {**after.in_seqs, f"{service}/{partition}/{generation}": seq}
        await self._commit(run, after, _nothing)
        self._logger.warning("record set aside", offset=record.offset, error=_text(error))

    async def _bury_timer(self, timer: Timer, error: Exception) -> None:
        run, after = self._run()
        after.failures = self._one_failure_more(error)
        run.set_timer(timer.kind, timer.subject, None)
        text = _storable(f"timer {timer.kind} due {timer.due.isoformat()}: {_text(error)}")
        key = _storable(timer.subject)
        run.letters.append(DeadLetter("timers", None, key, timer.kind.encode(), None, "failed", text, False))
        await self._commit(run, after, _nothing)
        self._logger.warning("timer set aside", kind=timer.kind, subject=timer.subject, error=_text(error))

    def _run(self) -> tuple[Run, Position]:
        """A transaction that takes no records: its outputs, and the position that it leaves."""
        run = Run(self._frame, self.partition, self.as_of, Agenda(), dict(self.position.out_seqs))
        return run, replace(self.position, next_offset=self.next_offset)

    def _one_failure_more(self, error: Exception) -> int:
        """Many failures in a row are not poison but a bad deploy: the record is left where it is, by the next owner
        too."""
        failures = self.position.failures + 1
        if failures >= _FAILURES_BEFORE_HALT:
            raise Halted(
                f"{failures} records in a row failed, the last with: {_text(error)}. Start a release that can process "
                f"them, then retry what was set aside: rapport dead-letters retry --service {self._service}."
            )
        return failures

    async def retry(self, letter: int) -> None:
        """A dead letter whose retry was asked for: the record again, through its owner, at the road's present place."""
        processor, database = self._frame.processor, self._frame.database
        async with self.lock:
            if self.leaving.is_set():
                return
            await self.settle()
            async with database.connect() as connection:
                # Read here, where all that we ever committed is known: it may have been retried, its answer lost.
                record = await store.letter_to_retry(connection, letter)
            if record is None:
                return
            try:
                message = processor.decode(record.key, record.value)
                async with database.connect() as connection:
                    batch = await processor.load(connection, self.partition, self.position.memo, [message], ())
                run, after = self._run()
                run.trace = record.trace
                batch.handle(message, run)

                async def save(connection: Connection) -> None:
                    after.memo = await batch.save(connection)
                    await store.delete_letter(connection, letter)

                await self._commit(run, after, save)
            except Exception as error:
                if isinstance(error, Fenced) or is_transient(error):
                    raise
                async with database.connect() as connection:
                    await store.keep_letter(connection, letter, "failed", _storable(_text(error)))
                return
            self._lower_mark(run.agenda)

    async def _fire_and_tick(self) -> None:
        """The tick of a partition that has timers due: they fire, then it is said."""
        self.timers_due = False
        at = self.idle_at
        if at is not None:
            await self._fire_until(at)
            await self._commit(*self.tick(at), _nothing)

    def tick(self, at: datetime) -> tuple[Run, Position]:
        """What is to be committed, by itself or together with other partitions', for time to move on to `at`."""
        run, after = self._run()
        run.as_of = after.as_of = at
        said = self._frame.processor.tick(at, self.next_offset)
        assert said is not None
        run.emit_here(said[0], "", said[1])
        after.out_seqs = run.out_seqs
        return run, after

    def doubt(self) -> None:
        """A transaction that includes this partition begins; until it has succeeded, look before doing more."""
        self._doubtful = True

    def ticked(self, after: Position) -> None:
        """The shared commit of `tick` succeeded."""
        self._doubtful = False
        self._stands(after)

    def _stands(self, after: Position) -> None:
        """This is in the database now."""
        after.version = self.position.version + 1
        self.position = after
        self._committed = after.next_offset
        self._committed_at = time.monotonic()


_BEFORE_TIME = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


async def _nothing(connection: Connection) -> None:
    return


async def _or_leaving(leaving: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(leaving.wait(), seconds)


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, RapportError) else f"{type(error).__name__}: {error}"


def _storable(text: str) -> str:
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()
