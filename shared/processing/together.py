"""Lanes of one worker that have something at the same moment share a transaction.

A transaction costs some milliseconds of processor time however little is in it. So lanes with a few records each go
together: those that have something when one transaction ends are in the next, and so is the work beside records that a
service has for them. A lane with a full batch goes by itself, and so does each of them after a transaction that failed,
whosever fault it was: what is wrong with one harms no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog

from shared.database.clauses import Clause
from shared.processing.fenced import NOTHING, Part, commit
from shared.processing.port import Beside, Connection, Present, Writes
from shared.processing.run import text_of
from shared.processing.share import BadRecord, BadTimer, Share

if TYPE_CHECKING:
    from shared.processing.frame import Frame
    from shared.processing.lane import Lane


class Together:
    """One shared transaction at a time, for whoever has come since the last one began.

    They begin `seconds` apart. Who comes after a longer pause waits for nobody."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: dict[Lane, asyncio.Future[bool]] = {}
        """With records."""
        self._joining: dict[Lane, list[asyncio.Future[bool]]] = {}
        """With work beside them."""
        self._rounds: asyncio.Task[None] | None = None
        self._next_at = 0.0

    async def take(self, lane: Lane) -> bool:
        """Have what is pending in the lane taken. False where it must go by itself, and nothing was done."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[lane] = done
        self._go(lane.frame)
        return await done

    async def join(self, lane: Lane) -> bool:
        """See `shared.processing.port.Lane`."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._joining.setdefault(lane, []).append(done)
        self._go(lane.frame)
        return await done

    async def close(self) -> None:
        """Nobody waits any more; what is under way is cut off."""
        if self._rounds is not None:
            self._rounds.cancel()
            await asyncio.wait([self._rounds])

    def _go(self, frame: Frame) -> None:
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.get_running_loop().create_task(
                self._go_round(frame), name=f"{frame.service}[together]"
            )

    async def _go_round(self, frame: Frame) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting or self._joining:
            if (early := self._next_at - loop.time()) > 0:
                await asyncio.sleep(early)
            async with frame.in_flight:
                began = loop.time()
                full = await self._round(frame)
            self._next_at = 0.0 if full else began + self._seconds

    async def _round(self, frame: Frame) -> bool:
        """One transaction; says whether somebody was left out, since it was too much for one."""
        shares: dict[Share, asyncio.Future[bool]] = {}
        size, full = 0, False
        async with AsyncExitStack() as locks:
            for lane, done in list(self._waiting.items()):
                if full := size >= frame.batch_records:
                    break
                del self._waiting[lane]
                if done.cancelled():
                    continue
                share = None
                if not lane.lock.locked():
                    await locks.enter_async_context(lane.lock)
                    share = lane.share()
                if share is None:
                    done.set_result(False)
                else:
                    shares[share] = done
                    size += len(share.items)
            mine = {share.lane for share in shares}
            joining: dict[Lane, list[asyncio.Future[bool]]] = {}
            wishes, self._joining = self._joining, {}
            for lane, wished in wishes.items():
                asked = [done for done in wished if not done.cancelled()]
                if not asked:
                    continue
                if lane not in mine:
                    if lane.lock.locked() or lane.doubtful:
                        _answer(asked, False)
                        continue
                    await locks.enter_async_context(lane.lock)
                joining[lane] = asked
            finished: set[Lane] = set()
            try:
                if shares or joining:
                    finished = await process(frame, list(shares), joining)
            except Exception as error:
                # Each of them meets it again by itself, where it can be told whose it is.
                structlog.get_logger(service=frame.service).debug("lanes part", error=text_of(error))
            finally:
                for share, done in shares.items():
                    _answer([done], share.lane in finished)
                for lane, asked in joining.items():
                    _answer(asked, lane in finished)
        return full


def _answer(asked: Iterable[asyncio.Future[bool]], done: bool) -> None:
    for one in asked:
        if not one.done():
            one.set_result(done)


async def process(frame: Frame, shares: Sequence[Share], joining: Iterable[Lane] | None = None) -> set[Lane]:
    """Load, compute, commit: one transaction for all shares. The caller holds their lanes' locks.

    With `joining`, what the service has beside records is done in it, too, for these lanes and those that have records
    to save. Gives the lanes that are done. Raises BadRecord or BadTimer where there is but one share, and something in
    it is bad; with others, it is left out."""
    async with frame.database.connect() as connection:
        for share in shares:
            await share.find_timers(connection)
        given = [share.given for share in shares]
        computed: dict[Lane, tuple[Share, Part]] = {}
        batches = {}
        loaded = await frame.processor.load(connection, given) if given else ()
        for share, batch in zip(shares, loaded, strict=True):
            try:
                after = await share.compute(batch)
                while await frame.processor.provide(connection, batch):
                    share.begin_again()
                    [batch] = await frame.processor.load(connection, [share.given])
                    after = await share.compute(batch)
            except (BadRecord, BadTimer):
                if len(shares) == 1:
                    raise
                continue
            after.memo = batch.memo()
            computed[share.lane] = share, Part(share.lane, share.run, after)
            batches[share.lane] = batch
        left_out = {share.lane for share in shares} - computed.keys()
        joined = set(joining or ()) - left_out
        parts, to_save = [], []
        for lane, (_, part) in computed.items():
            idle = batches[lane].nothing_to_save()
            if idle and lane not in joined and lane.may_wait(part.run, part.after):
                lane.stand(part.after)
            else:
                parts.append(part)
                to_save.append(batches[lane])
        parts += [Part(lane, *lane.begin()) for lane in joined if lane not in computed]
        parts.sort(key=lambda part: part.lane.partition)
        beside = frame.processor.beside() if joining is not None else None

        if parts:
            try:
                writes = frame.processor.save(to_save) if to_save else NOTHING
                if beside is not None:
                    writes = _and_beside(writes, beside, [Present(lane, after.memo, run) for lane, run, after in parts])
                await commit(frame, connection, parts, writes)
            except BaseException:
                if beside is not None:
                    beside.failed()
                raise
        for share, _ in computed.values():
            share.lane.did(share)
        for lane, run, _ in parts:
            if lane not in computed:
                lane.joined(run)
        if parts and beside is not None:
            beside.committed()
    return computed.keys() | joined


def _and_beside(writes: Writes, beside: Beside, present: Sequence[Present]) -> Writes:
    async def work(connection: Connection) -> list[Clause]:
        last = [] if writes.work is None else await writes.work(connection)
        return [*last, *await beside.work(connection, present)]

    return Writes(writes.clauses, work)
