"""One owned partition of one service: read, fire what is due, handle, commit behind the fence, publish."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

import structlog

from shared.backoff import back_off
from shared.database.clauses import Clause
from shared.database.engine import is_transient
from shared.errors import RapportError, Unavailable
from shared.log.port import OffsetOutOfRange, Record
from shared.processing import store
from shared.processing.agenda import Agenda
from shared.processing.fenced import NOTHING, Part, commit
from shared.processing.frame import BEFORE_TIME, Frame, Item
from shared.processing.isolation import Halted, Isolation, sound
from shared.processing.port import Connection, Fenced, Given, NewerContract, Poison, Writes
from shared.processing.run import Run, storable, text_of
from shared.processing.share import Share
from shared.processing.store import Position
from shared.processing.together import process
from shared.telemetry import DUPLICATES, FENCED, HALTED

T = TypeVar("T")

_new = tuple.__new__
"""As the class itself would make it, without a call in between: there is one for each record."""

_ATTEMPTS_BEFORE_CARE = 3
"""Owners that died here in a row, after which records are taken one by one."""
_ATTEMPTS_BEFORE_BURIAL = 5
"""And after which the record that they died with goes to dead letters."""
_GRACE_SECONDS = 25.0
"""How long the end may take once the step in hand is over: work beside records, and publishing."""
_STEP_SECONDS = 10.0
"""How long the step in hand may take when the partition is to be let go."""
_FETCH_SECONDS = 0.25
"""How long a fetch waits for the first record."""
_FRESH_SECONDS = 1.0
"""How long it is believed that nothing follows what was read."""
_SHARED_COMMIT_SECONDS = 1.0
"""How long batches of which nothing came may do without a commit."""
_FULL = 8
"""A batch of more than the largest divided by this is worth a transaction of its own."""


class Lane:
    """One owned partition (`shared.processing.port.Lane`). What it holds is dropped when the fence says so."""

    def __init__(self, frame: Frame, partition: int, position: Position, *, taken_over: bool) -> None:
        self.frame = frame
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
        self.over = False
        """It has ended, in order or not."""
        self._service = frame.service
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
        self._apart = False
        """The next records are taken without others, since something was wrong with these."""
        self._isolation = Isolation(self)
        self._logger = structlog.get_logger(service=self._service, partition=partition)

    @property
    def as_of(self) -> datetime:
        return self.position.as_of or BEFORE_TIME

    @property
    def memo(self) -> bytes:
        return self.position.memo

    @property
    def next_offset(self) -> int:
        """Where the first record stands that is not processed."""
        return self.offset_after(0)

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
            try:
                async with asyncio.timeout(_GRACE_SECONDS):
                    await asyncio.shield(attending)
                    async with self.lock:
                        await self._look_back()
                        await self._write_down()
                        await self.frame.outlet.drained(self.partition)
            except Exception as error:
                # Its successor goes on from what stands in the database.
                if not is_transient(error):
                    raise
        finally:
            self.over = True
            attending.cancel()
            await asyncio.gather(attending, return_exceptions=True)
            self.frame.outlet.forget(self.partition)
            self.frame.trouble.over(self.partition)
            self.frame.trouble.over(("beside", self.partition))
            if self.halted:
                HALTED.labels(self._service).dec()

    def leave(self) -> None:
        """Finish what is in hand, and end. A database that does not answer for so long is not waited for: what becomes
        of the step in hand is for the next owner to see."""
        if self._flowing is not None and not self.leaving.is_set():
            self._flowing.reschedule(asyncio.get_running_loop().time() + _STEP_SECONDS)
        self.leaving.set()
        self.woken.set()

    async def _flow(self) -> None:
        failures = 0
        while not self.leaving.is_set():
            try:
                await self._step()
                if failures:
                    failures = 0
                    self.frame.trouble.over(self.partition)
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
                self.frame.trouble.met(self.partition, error)
                await self._back_off(failures)

    async def _back_off(self, failures: int) -> None:
        await _or_leaving(self.leaving, back_off(failures))

    async def _step(self) -> None:
        if self._doubtful:
            async with self.lock:
                await self.settle()
        if self.frame.outlet.full(self.partition):
            await _or_leaving(self.leaving, 0.05)
            return
        if not self._pending:
            if self._gap is not None:
                raise self._gap
            at = self.frame.clock.now()
            limit = 1 if self._singly else self.frame.batch_records
            fetched = await self.frame.reader.fetch(self.partition, limit, _FETCH_SECONDS)
            self._read_to = fetched.next_offset
            self._pending = self._accept(fetched.records)
            self._drained = (time.monotonic(), at) if fetched.drained and self._gap is None else None
        if self._pending:
            if not (self._few and await self.frame.together.take(self)):
                self._apart = True
                async with self.frame.care if self._singly else self.frame.in_flight, self.lock:
                    await self.settle()
                    await self._process()
                self._apart = False
            self.woken.set()
        elif self.timers_due:
            async with self.frame.in_flight, self.lock:
                await self.settle()
                await self._fire_and_tick()
        else:
            async with self.lock:
                await self._write_down()

    @property
    def _few(self) -> bool:
        """Whether what is pending may share a transaction with what others have."""
        most = max(1, self.frame.batch_records // _FULL)
        return len(self._pending) <= most and not (self._apart or self._suspect or self._singly)

    async def _note_attempt(self) -> None:
        """Before the first records after an owner that died: one that ends the process is found by its attempts."""
        if self.position.attempts >= _ATTEMPTS_BEFORE_BURIAL:
            error = Poison(f"this record ended the process {self.position.attempts} times.")
            await self._isolation.bury(self._pending[0], error)
            return
        async with self.frame.database.connect() as connection:
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
                        f"{self.frame.processor.stream}[{self.partition}] offset {record.offset}: {source} goes from "
                        f"{last} to {seq}. {seq - last - 1} records are missing: restore them, or leave them out with "
                        f"rapport partitions seek {self._service} {self.partition} {record.offset}."
                    )
                    self._read_to = record.offset
                    break
                seen[source] = seq
            items.append(_new(Item, (record, None, None)))
        return items

    async def _process(self) -> None:
        """All pending items, in as many fenced transactions as it takes. The caller holds the lock."""
        if self._suspect and self._pending:
            await self._note_attempt()
        while self._pending:
            await self._isolation.take(self._decode())

    def share(self) -> Share | None:
        """What it brings into a transaction with others. None where something is not as it should be: it sees to that
        by itself. The caller holds the lock."""
        if self._doubtful or not self._pending:
            return None
        try:
            items = self._decode()
        except NewerContract:
            return None
        count = sound(items)
        return Share(self, items[:count]) if count else None

    def _decode(self) -> list[Item]:
        """The pending items up to one that this release is too old for; raises NewerContract where it is the first."""
        # A look at the clock takes as long as decoding does; what has been read was received before it.
        now = self.frame.clock.now() if self.frame.leads_time else None
        for index, (record, message, _) in enumerate(self._pending):
            if message is None:
                try:
                    self._pending[index] = self._decoded(record, now)
                except NewerContract:
                    if index:
                        return self._pending[:index]
                    raise
        return self._pending

    def _decoded(self, record: Record, now: datetime | None) -> Item:
        processor = self.frame.processor
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
            return Item(record, error if isinstance(error, RapportError) else Poison(text_of(error)))
        if now is not None and at is not None and at > now:
            at = now  # the road is never ahead of the leader's clock
        return _new(Item, (record, message, at))

    def offset_after(self, count: int) -> int:
        """Where reading goes on once the first `count` pending items are processed."""
        return self._pending[count].record.offset if count < len(self._pending) else self._read_to

    async def attempt(self, items: Sequence[Item], until: datetime | None = None, limit: int | None = None) -> bool:
        """A transaction for `items`, or (with `until`) only for timers, `limit` of them at most; says whether more
        timers may be due. The caller holds the lock."""
        share = Share(self, items, until, limit)
        await process(self.frame, [share])
        return share.more

    def did(self, share: Share) -> None:
        """This is done, as `position` says."""
        self.timers_low = share.timers_low
        self._lower_mark(share.run.agenda)
        share.count()

    def may_wait(self, run: Run, after: Position) -> bool:
        """Whether a batch that has nothing to save may do without a commit: whoever read its records again would find
        the same. Not for long, though, and not where the partition's row says that something was wrong here."""
        return (
            run.is_empty
            and not (self.position.attempts or self.position.failures)
            and after.next_offset - self._committed < self.frame.batch_records
            and time.monotonic() - self._committed_at < _SHARED_COMMIT_SECONDS
        )

    async def _write_down(self) -> None:
        """Commit where the partition stands, if the database does not know. The caller holds the lock."""
        if self._committed != self.position.next_offset and not self._doubtful:
            await self.commit(*self.begin())

    def _lower_mark(self, agenda: Agenda) -> None:
        for due in agenda.changed.values():
            if due is not None and self.timers_low is not None and due < self.timers_low:
                self.timers_low = due

    async def commit(self, run: Run, after: Position, writes: Writes = NOTHING) -> None:
        """A fenced transaction of this partition alone. The caller holds the lock."""
        # Nothing has been said where no connection is to be had.
        async with self.frame.database.connect() as connection:
            await commit(self.frame, connection, [Part(self, run, after)], writes)

    async def transact(self, work: Callable[[Connection, Run], Awaitable[T]]) -> T:
        """See `shared.processing.port.Lane`. Raises Unavailable where the outcome is unknown and the partition is ours
        still: look again before acting."""
        async with self.lock:
            await self.settle()
            run, after = self.begin()
            result: list[T] = []

            async def save(connection: Connection) -> Sequence[Clause]:
                result.append(await work(connection, run))
                return ()

            try:
                await self.commit(run, after, Writes(work=save))
            except Exception as error:
                if isinstance(error, Fenced) or not is_transient(error):
                    raise
                raise Unavailable(f"{self._service}[{self.partition}]: {error}") from error
            self._lower_mark(run.agenda)
            self.frame.trouble.over(("beside", self.partition))
            return result[0]

    async def join(self) -> bool:
        """See `shared.processing.port.Lane`."""
        return await self.frame.together.join(self)

    def joined(self, run: Run) -> None:
        """What was done beside records is committed."""
        self._lower_mark(run.agenda)

    @property
    def doubtful(self) -> bool:
        """What stands in the database is to be looked up before anything else."""
        return self._doubtful

    async def _attend(self) -> None:
        """The service's own background work, begun again after trouble."""
        failures, told = 0, ""
        while not self.leaving.is_set():
            try:
                await self.frame.processor.attend(self)
                return
            except Exception as error:
                failures += 1
                if is_transient(error):
                    self.frame.trouble.met(("beside", self.partition), error)
                else:
                    what = f"{type(error).__name__}: {error}"
                    # A defect says where it is, once: it comes again with each attempt.
                    defect = {} if isinstance(error, RapportError) or what == told else {"exc_info": error}
                    self._logger.warning("background work stumbled", error=what, **defect)
                    told = what
                await self._back_off(failures)

    async def settle(self) -> None:
        """After a transaction that failed: read again what stands, under a new epoch. The caller holds the lock.

        Raises Fenced where the partition was lost, Unavailable where the failed transaction had committed after all:
        what was held is dropped then, and read again."""
        if not self._doubtful:
            return
        frame = self.frame
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
        if committed:
            # At once: whoever is cut off below, and looks again, no longer sees that it had been.
            self._pending, self._gap = [], None
            self._read_to = position.next_offset
            self._drained = None
            frame.reader.seek(self.partition, position.next_offset)
        await frame.outlet.recover(self.partition)
        self._doubtful = False
        if committed:
            raise Unavailable(f"{self._service}[{self.partition}]: the last transaction had been committed.")

    async def _look_back(self) -> None:
        """Before the end: what a transaction of unknown outcome has committed is to be published like all else. A
        database that does not answer for so long is not waited for. The caller holds the lock."""
        try:
            async with asyncio.timeout(_STEP_SECONDS):
                await self.settle()
        except Exception as error:
            if not is_transient(error):
                raise

    def begin(self) -> tuple[Run, Position]:
        """A transaction that takes no records: its outputs, and the position that it leaves."""
        run = Run(self.frame, self.partition, self.as_of, Agenda(), dict(self.position.out_seqs))
        return run, replace(self.position, next_offset=self.next_offset)

    async def retry(self, letter: int) -> None:
        """A dead letter whose retry was asked for: the record again, through its owner, at the road's present place."""
        processor, database = self.frame.processor, self.frame.database
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
                    given = Given(self.partition, self.memo, [message], ())
                    computed = False
                    while not computed:
                        [batch] = await processor.load(connection, [given])
                        run, after = self.begin()
                        run.trace = record.trace
                        batch.handle(message, run)
                        computed = not await processor.provide(connection, batch)
                after.memo, after.out_seqs = batch.memo(), run.out_seqs

                clauses, work = processor.save([batch])

                async def save(connection: Connection) -> Sequence[Clause]:
                    last = () if work is None else await work(connection)
                    await store.delete_letter(connection, letter)
                    return last

                await self.commit(run, after, Writes(clauses, save))
            except Exception as error:
                if isinstance(error, Fenced) or is_transient(error):
                    raise
                async with database.connect() as connection:
                    await store.keep_letter(connection, letter, "failed", storable(text_of(error)))
                return
            self._lower_mark(run.agenda)

    async def _fire_and_tick(self) -> None:
        """The tick of a partition that has timers due: they fire, and it is said with them."""
        self.timers_due = False
        at = self.idle_at
        if at is not None:
            await self._isolation.fire_until(at)

    def tick(self, at: datetime) -> Part:
        """What is to be committed, together with other partitions', for time to move on to `at`."""
        run, after = self.begin()
        run.as_of = after.as_of = at
        said = self.frame.processor.tick(at, self.next_offset)
        assert said is not None
        run.emit_here(said[0], "", said[1])
        after.out_seqs = run.out_seqs
        return Part(self, run, after)

    def doubt(self) -> None:
        """A transaction that includes this partition begins; until it has succeeded, look before doing more."""
        self._doubtful = True

    def stand(self, after: Position) -> None:
        """What lies before this place is done with."""
        self.position = after
        done = 0
        while done < len(self._pending) and self._pending[done].record.offset < after.next_offset:
            done += 1
        self._pending = self._pending[done:]

    def committed(self, after: Position) -> None:
        """This is in the database now."""
        self._doubtful = False
        after.version = self.position.version + 1
        self.stand(after)
        self._committed = after.next_offset
        self._committed_at = time.monotonic()


async def _or_leaving(leaving: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(leaving.wait(), seconds)
