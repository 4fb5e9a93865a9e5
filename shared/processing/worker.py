"""A process's share of one service: which partitions it owns, and what it does with each.

Workers find each other by their heartbeats in PostgreSQL and give each its quota. A partition is claimed where nobody
owns it or its owner has fallen silent, and let go in order where there are too many. The heartbeat is for liveness; for
safety there is the fence (`shared.processing.lane`).
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import structlog

from shared.database.engine import is_transient
from shared.errors import RapportError, Unavailable
from shared.log.postgres import PostgresLog
from shared.processing import store
from shared.processing.fenced import commit
from shared.processing.frame import Frame
from shared.processing.lane import Lane
from shared.processing.outlets import OutboxOutlet, Outlet, StreamOutlet
from shared.processing.port import Fenced, NewerContract, Processor
from shared.processing.process import is_gone, this_process
from shared.processing.run import text_of
from shared.processing.together import Together
from shared.runtime import Runtime
from shared.settings import Settings
from shared.telemetry import FENCED, HALTED, LAG, OWNED
from shared.trouble import Trouble

# How far apart rounds begin.
_TICK_SECONDS = 1.0
_RETRY_SECONDS = 1.0
_MEASURE_SECONDS = 10.0
_TRIM_SECONDS = 3600.0

_STUCK_SECONDS = 2.0
"""A claim that takes longer waits for a session whose owner was stopped inside a transaction."""
_ROUND_SECONDS = 5.0
"""How long rounds under way are waited for at the end."""
_GOODBYE_SECONDS = 3.0
"""How long letting go may take; after that our last heartbeat has to expire."""
_AVOID_SECONDS = 30.0
"""How long a partition that this process could not go on with is left to others."""
_KEEP_PASSED = timedelta(days=7)
"""How long records are kept in PostgreSQL after their reader has passed."""


class Worker:
    """Runs a processor over the partitions that this process owns, between `start` and `stop`."""

    def __init__(self, runtime: Runtime, processor: Processor, settings: Settings) -> None:
        if runtime.database is None or runtime.installation is None:
            raise RapportError(f"{processor.service} needs a database. Set DATABASE_URL.")
        self._database = runtime.database
        self._log = runtime.log
        self._clock = runtime.clock
        self._service = processor.service
        self._settings = settings
        self._id = uuid4()
        self._process = this_process()
        self._lanes: dict[int, Lane] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._avoid: dict[int, float] = {}
        """Partitions that are left to others, and until when (monotonic seconds, as below)."""
        self._given_up: dict[int, str] = {}
        """Why this process could not go on with partitions that nobody has gone on with since."""
        self._free_since: dict[int, float] = {}
        """Since when we have seen that nobody owns a partition."""
        self._beyond: dict[int, float] = {}
        """Partitions beyond our share, which those whose share they are do not take for now; and until when we do."""
        self._beating: asyncio.Task[None] | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._freeing: set[asyncio.Task[None]] = set()
        self._beaten_at = 0.0
        self._settled = False
        self._stopping = asyncio.Event()
        self._logger = structlog.get_logger(service=self._service)
        self._trouble = Trouble(
            self._service,
            "Bring back what does not answer; what was accepted is safe, and is gone on with by itself.",
            logger=self._logger,
        )
        outlet: Outlet = (
            StreamOutlet(runtime.log)
            if isinstance(runtime.log, PostgresLog)
            else OutboxOutlet(runtime.log, runtime.database, self._service, self._trouble)
        )
        self._frame = Frame(
            processor=processor,
            database=runtime.database,
            log=runtime.log,
            reader=runtime.log.reader(processor.stream),
            outlet=outlet,
            clock=runtime.clock,
            worker=self._id,
            generation=runtime.installation.generation,
            batch_records=settings.batch_records,
            in_flight=asyncio.Semaphore(settings.partitions_in_flight),
            leads_time=processor.tick(runtime.clock.now(), -1) is not None,
            trouble=self._trouble,
            together=Together(settings.gather_seconds),
        )

    @property
    def id(self) -> UUID:
        """New with each process start."""
        return self._id

    @property
    def owned(self) -> frozenset[int]:
        return frozenset(self._lanes)

    def lane(self, partition: int) -> Lane | None:
        return self._lanes.get(partition)

    async def start(self) -> None:
        """Returns after the first round of claims; raises where the database cannot be reached at all."""
        async with self._database.connect() as connection:
            await store.make_partitions(connection, self._service, self._log.partitions)
            known = await store.processes(connection, self._service)
            await store.forget_dead(connection, self._service, [one for one, name in known.items() if is_gone(name)])
        await self._beat()
        await self._balance()
        # The heart beats beside everything else, and until the end: nothing that takes long may look like death.
        self._beating = asyncio.create_task(self._every(self._settings.heartbeat_seconds, self._beat, "heartbeat"))
        self._loops = [
            asyncio.create_task(self._every(seconds, round_, what, self._stopping))
            for seconds, round_, what in (
                (self._settings.heartbeat_seconds, self._balance, "ownership"),
                (_TICK_SECONDS, self._tick, "ticks"),
                (_RETRY_SECONDS, self._retry, "dead letters"),
                (_MEASURE_SECONDS, self._measure, "measuring"),
                (_TRIM_SECONDS, self._trim, "trimming"),
            )
        ]

    async def stop(self) -> None:
        """Let go of everything in order: finish the batch, publish what it committed, free the partition."""
        self._stopping.set()
        for lane in self._lanes.values():
            lane.leave()
        if self._loops:
            _, late = await asyncio.wait(self._loops, timeout=_ROUND_SECONDS)
            for loop in late:
                loop.cancel()
            await asyncio.gather(*self._loops, return_exceptions=True)
        await self._let_go(list(self._lanes))
        for partition in list(self._given_up):
            self._gone_on_with(partition)
        await self._frame.together.close()
        await self._frame.outlet.close()
        await asyncio.gather(*self._freeing, return_exceptions=True)
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        await self._frame.reader.close()
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS), self._database.connect() as connection:
                await store.forget_worker(connection, self._service, self._id, self._settings.expiry_seconds)
        except Exception as error:
            # Whoever wants our partitions waits until our last heartbeat has expired.
            if not is_transient(error):
                raise

    async def ready(self) -> list[str]:
        """What keeps this worker from working, a line each."""
        halted = [
            f"{self._service}[{partition}] stands still: {lane.halted}"
            for partition, lane in sorted(self._lanes.items())
            if lane.halted
        ] + [f"{self._service}[{partition}] stands still: {why}" for partition, why in sorted(self._given_up.items())]
        return halted + self._trouble.problems(self._settings.expiry_seconds) + self.away()

    def away(self) -> list[str]:
        """What keeps it from its database and its partitions, as it does a face that has work of its own."""
        problems = []
        silent = time.monotonic() - self._beaten_at
        if silent > self._settings.expiry_seconds:
            problems.append(f"{self._service}: the database has not answered for {silent:.0f} s.")
        if not self._settled:
            problems.append(f"{self._service}: partitions are still being claimed.")
        return problems

    async def _every(
        self, seconds: float, round_: Callable[[], Awaitable[None]], what: str, until: asyncio.Event | None = None
    ) -> None:
        """`round_` about every so many seconds, whatever becomes of it, until that is set (None: for ever)."""
        until = until or asyncio.Event()
        while not until.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), seconds * random.uniform(0.9, 1.1))
                return
            try:
                await round_()
                self._trouble.over(what)
            except Exception as error:
                if not is_transient(error):
                    self._logger.error(f"{what} failed, and is tried again", exc_info=error)
                self._trouble.met(what, error)

    async def _beat(self) -> None:
        async with self._database.connect() as connection:
            await store.beat(connection, self._service, self._id, socket.gethostname(), self._process)
        self._beaten_at = time.monotonic()

    async def _balance(self) -> None:
        """One step towards a fair share."""
        expiry = self._settings.expiry_seconds
        async with self._database.connect() as connection:
            workers = await store.live_workers(connection, self._service, expiry)
            held = await store.ownership(connection, self._service, expiry)
        if self._id not in workers:
            return  # silent for too long ourselves: whoever lives decides
        for one in held:
            if one.partition in self._lanes and one.owner != self._id:
                await self._drop(one.partition)
            if one.partition in self._given_up and (one.partition in self._lanes or one.owner not in (None, self._id)):
                self._gone_on_with(one.partition)
        quota, extra = divmod(len(held), len(workers))
        quota += workers.index(self._id) < extra
        now = time.monotonic()
        self._beyond = {p: until for p, until in self._beyond.items() if p in self._lanes and until > now}
        quota += len(self._beyond)
        mine = sorted(self._lanes)
        if len(mine) > quota:
            await self._let_go(mine[quota:])
        free = [
            one
            for one in held
            if one.partition not in self._lanes
            and (one.owner is None or one.owner == self._id or one.expired)
            and self._avoid.get(one.partition, 0.0) < now
        ]
        self._free_since = {one.partition: self._free_since.get(one.partition, now) for one in free}
        for one in free:
            beyond = len(self._lanes) >= quota
            if beyond and now - self._free_since[one.partition] < expiry:
                continue
            if self._stopping.is_set():
                return
            await self._claim(one.partition)
            if beyond and one.partition in self._lanes:
                self._beyond[one.partition] = now + 3 * expiry
                quota += 1
        # Others may still hold what is ours to claim; they let go within their next rounds.
        self._settled = len(self._lanes) >= quota or not any(one.owner is None for one in free)
        OWNED.labels(self._service).set(len(self._lanes))

    async def _claim(self, partition: int) -> None:
        async with self._database.connect() as connection:
            claiming = asyncio.create_task(
                store.claim(connection, self._service, partition, self._id, self._settings.expiry_seconds)
            )
            try:
                done, _ = await asyncio.wait({claiming}, timeout=_STUCK_SECONDS)
                if not done:
                    # The owner is silent and its transaction still holds the row: it was stopped inside. End that.
                    async with self._database.connect() as other:
                        ended = await store.end_blockers(other, connection.get_server_pid())
                    self._logger.warning("ended a stopped owner's session", partition=partition, sessions=len(ended))
                found = await claiming
            finally:
                claiming.cancel()
                await asyncio.gather(claiming, return_exceptions=True)
        if found is None:
            return
        position, before = found
        lane = Lane(self._frame, partition, position, taken_over=before is not None)
        self._lanes[partition] = lane
        self._assign()
        task = asyncio.create_task(lane.run(), name=f"{self._service}[{partition}]")
        self._tasks[partition] = task
        task.add_done_callback(lambda done: self._ended(partition, lane, done))

    def _assign(self) -> None:
        self._frame.reader.assign({partition: lane.position.next_offset for partition, lane in self._lanes.items()})

    def _ended(self, partition: int, lane: Lane, task: asyncio.Task[None]) -> None:
        """A lane came to its end by itself: lost, too new for us, or a defect of ours."""
        if self._lanes.get(partition) is not lane or task.cancelled():
            return
        error = task.exception()
        if error is None or (isinstance(error, TimeoutError) and lane.leaving.is_set()):
            return
        self._lanes.pop(partition)
        self._tasks.pop(partition)
        self._assign()
        if isinstance(error, Fenced):
            self._logger.warning("partition lost", partition=partition)
            return
        self._avoid[partition] = time.monotonic() + _AVOID_SECONDS
        if isinstance(error, NewerContract):
            self._logger.error("partition waits for a newer release", partition=partition, error=str(error))
        else:
            remedy = f"Start a release that can go on; it is tried again every {_AVOID_SECONDS:.0f} s."
            self._logger.error("partition given up", partition=partition, remedy=remedy, exc_info=error)
        if partition not in self._given_up:
            HALTED.labels(self._service).inc()
        self._given_up[partition] = text_of(error)
        freeing = asyncio.create_task(self._free({partition: lane.position.epoch}))
        self._freeing.add(freeing)
        freeing.add_done_callback(self._freeing.discard)

    def _gone_on_with(self, partition: int) -> None:
        del self._given_up[partition]
        HALTED.labels(self._service).dec()

    async def _drop(self, partition: int) -> None:
        """Another worker owns it now; whatever is held here is void."""
        lane, task = self._lanes.pop(partition), self._tasks.pop(partition)
        lane.leave()
        task.cancel()
        # To its very end: what it tidies up must not be what its successor here has begun with.
        await asyncio.gather(task, return_exceptions=True)
        FENCED.labels(self._service).inc()
        self._assign()
        self._logger.warning("partition lost", partition=partition)

    async def _let_go(self, partitions: list[int]) -> None:
        lanes = {partition: self._lanes[partition] for partition in partitions}
        for lane in lanes.values():
            lane.leave()
        await asyncio.gather(*(self._tasks[partition] for partition in lanes), return_exceptions=True)
        gone = {partition: lane for partition, lane in lanes.items() if self._lanes.get(partition) is lane}
        for partition in gone:
            del self._lanes[partition], self._tasks[partition]
        self._assign()
        await self._free({partition: lane.position.epoch for partition, lane in gone.items()})

    async def _free(self, epochs: Mapping[int, int]) -> None:
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS), self._database.connect() as connection:
                await store.release(connection, self._service, epochs)
        except Exception as error:
            # Ours still: claimed again in a later round, or by another once our heartbeat has expired.
            if not is_transient(error):
                raise

    async def _retry(self) -> None:
        """Dead letters that somebody asked to be tried again."""
        if not self._lanes:
            return
        async with self._database.connect() as connection:
            letters = await store.letters_to_retry(connection, self._service, list(self._lanes), 100)
        for letter, partition in letters:
            lane = self._lanes.get(partition)
            if lane is not None:
                await lane.retry(letter)

    async def _tick(self) -> None:
        """Time moves on where a fetch within the last second showed that nothing more follows."""
        if not self._frame.leads_time:
            return
        idle = {partition: lane for partition, lane in self._lanes.items() if lane.idle_at is not None}
        if not idle:
            return
        now = self._clock.now()
        before = {partition: lane.position for partition, lane in idle.items()}
        marks = {partition: lane.timers_low for partition, lane in idle.items() if (lane.timers_low or now) <= now}
        busy: set[int] = set()
        if marks:
            async with self._database.connect() as connection:
                busy = await store.partitions_with_due_timers(connection, self._service, marks, now)
        for partition in busy:
            idle.pop(partition).timers_due = True
        async with AsyncExitStack() as turns:
            ready: list[tuple[Lane, datetime]] = []
            for partition, lane in idle.items():
                if lane.lock.locked():
                    continue
                await turns.enter_async_context(lane.lock)
                # What was taken since may have set a timer that is due by then, which has to fire before the tick; and
                # where it was seen since that nothing follows, others may have come due.
                idle_at = lane.idle_at
                if idle_at is not None and now > lane.as_of and lane.position is before[partition]:
                    ready.append((lane, min(idle_at, now)))
            if ready:
                await self._tick_together(ready)

    async def _tick_together(self, ready: Sequence[tuple[Lane, datetime]]) -> None:
        """Ticks of several partitions in one commit. The caller holds their locks."""
        async with self._database.connect() as connection:
            try:
                await commit(self._frame, connection, [lane.tick(at) for lane, at in ready])
            except Fenced as error:
                raise Unavailable(str(error)) from None  # whose it was is for the lanes to find out

    async def _measure(self) -> None:
        ends = await self._log.ends(self._frame.processor.stream)
        for partition, end in ends.items():
            lane = self._lanes.get(partition)
            behind = 0 if lane is None else max(0, end - lane.next_offset)
            LAG.labels(self._service, str(partition)).set(behind)

    async def _trim(self) -> None:
        """Streams in PostgreSQL are kept for a while after their one reader has passed; Kafka has its own retention."""
        if isinstance(self._log, PostgresLog):
            for partition, lane in list(self._lanes.items()):
                await self._log.trim(self._frame.processor.stream, partition, lane.next_offset, _KEEP_PASSED)
