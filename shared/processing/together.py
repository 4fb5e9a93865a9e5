"""Lanes of one worker that have something at the same moment share a transaction.

A transaction costs some milliseconds of processor time however little is in it. So lanes with a few records each go
together: those that have something when one transaction ends are in the next. A lane with a full batch goes by itself,
and so does each of them after a transaction that failed, whosever fault it was: what is wrong with one harms no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog

from shared.processing.fenced import Part, commit
from shared.processing.port import Connection, Given
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
        self._rounds: asyncio.Task[None] | None = None
        self._next_at = 0.0

    async def take(self, lane: Lane) -> bool:
        """Have what is pending in the lane taken. False where it must go by itself, and nothing was done."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()
        self._waiting[lane] = done
        if self._rounds is None or self._rounds.done():
            self._rounds = loop.create_task(self._go_round(lane.frame), name=f"{lane.frame.service}[together]")
        return await done

    async def close(self) -> None:
        """Nobody waits any more; what is under way is cut off."""
        if self._rounds is not None:
            self._rounds.cancel()
            await asyncio.wait([self._rounds])

    async def _go_round(self, frame: Frame) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
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
            finished: Sequence[Share] = ()
            try:
                if shares:
                    finished = await process(frame, list(shares))
            except Exception as error:
                # Each of them meets it again by itself, where it can be told whose it is.
                structlog.get_logger(service=frame.service).debug("lanes part", error=text_of(error))
            finally:
                for share, done in shares.items():
                    if not done.done():
                        done.set_result(share in finished)
        return full


async def process(frame: Frame, shares: Sequence[Share]) -> Sequence[Share]:
    """Load, compute, commit: one transaction for all shares. The caller holds their lanes' locks.

    Gives those that are done. Raises BadRecord or BadTimer where there is but one, and something in it is bad; with
    others, it is left out."""
    async with frame.database.connect() as connection:
        for share in shares:
            await share.find_timers(connection)
        given = [Given(s.lane.partition, s.lane.memo, s.messages, s.timers) for s in shares]
        computed = []
        for share, batch in zip(shares, await frame.processor.load(connection, given), strict=True):
            try:
                after = await share.compute(batch)
            except (BadRecord, BadTimer):
                if len(shares) == 1:
                    raise
                continue
            after.memo = batch.memo()
            computed.append((Part(share.lane, share.run, after), batch))
        to_commit = []
        for part, batch in computed:
            if batch.nothing_to_save() and part.lane.may_wait(part.run, part.after):
                part.lane.stand(part.after)
            else:
                to_commit.append((part, batch))

        async def save(connection: Connection) -> None:
            await frame.processor.save(connection, [batch for _, batch in to_commit])

        if to_commit:
            await commit(frame, connection, [part for part, _ in to_commit], save)
        lanes = {part.lane for part, _ in computed}
        done = [share for share in shares if share.lane in lanes]
        for share in done:
            share.lane.did(share)
    return done
