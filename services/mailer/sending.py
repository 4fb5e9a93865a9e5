"""Handing over what is due: decide under the addresses' locks, commit `sending`, deliver, record what became of it.

One turn is one fenced transaction for many messages: it records the receipts that have come in and takes as many due
messages as connections are free. A hand-over begins when that has committed. Receipts stay in memory until they are
recorded, so trouble with the database makes no outcome unknown; only the end of this process can.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import uuid4

import structlog

from services.mailer import store
from services.mailer.carriers import AWAY, Carriers
from services.mailer.consent import destination
from services.mailer.desk import Desk
from services.mailer.outcomes import NO_SUCH_ADDRESS
from services.mailer.policy import NO_CHANNEL
from services.mailer.slots import Slots
from services.mailer.store import Candidate
from services.mailer.transport import Deferred, Rejected, Transport, Unknown
from services.mailer.turn import Compose, Known, Means, Turn
from shared.clock import Clock
from shared.contracts.messages import WEBHOOK
from shared.database.engine import is_transient
from shared.language.playbook import Playbook
from shared.processing.faults import reached
from shared.processing.playbooks import Shelf
from shared.processing.port import Connection, Fenced, Lane, Outputs
from shared.telemetry import COUPONS_UNANNOUNCED, MAILER_HELD, MAILER_OUTCOMES
from shared.trouble import Trouble

_LATENESS = timedelta(minutes=1)
_MOST_LOOKED_AT = 512
_PATIENCE_SECONDS = 20.0


class Sending:
    """The work beside the records (`Processor.attend`), for one channel and all partitions of a process.

    `retry_base` is the shortest time between two attempts, in the clock's time. Where the transport is not `there`,
    what goes by this channel is skipped.
    """

    def __init__(
        self,
        transport: Transport,
        compose: Compose,
        shelf: Shelf,
        clock: Clock,
        retry_base: timedelta,
        channel: store.Channel = "email",
        *,
        there: bool = True,
    ) -> None:
        self._means = Means(compose, self._name, retry_base, _LATENESS * clock.speed, there)
        self._said_absent = False
        self._shelf = shelf
        self._clock = clock
        self._slots = Slots(transport.connections)
        self._carriers = Carriers(transport, self._slots, AWAY[channel])
        self.channel = channel
        self._desks: dict[int, Desk] = {}
        # With the process's number, so that a message that is left unknown tells whose it was.
        self._process = f"{os.getpid()}-{uuid4().hex}"
        self._taken = 0
        self._logger = structlog.get_logger(service="mailer")
        self._trouble = Trouble("sending", "Bring back the database; it goes on by itself.", logger=self._logger)

    def look(self, partition: int) -> None:
        """Something of this partition may be due."""
        desk = self._desk(partition)
        desk.due = True
        desk.stir.set()

    async def attend(self, lane: Lane) -> None:
        desk = self._desk(lane.partition)
        desk.due = desk.doubtful = True
        leaving = asyncio.create_task(_stir_when(lane.leaving, desk))
        failures, left_at = 0, 0.0
        try:
            while True:
                desk.stir.clear()
                if lane.leaving.is_set():
                    self._slots.withdraw(desk)
                    self._carriers.put_back(desk)
                    left_at = left_at or time.monotonic()
                    given_up = failures and time.monotonic() - left_at > _PATIENCE_SECONDS
                    if given_up or not (desk.flying or desk.done):
                        return
                slots = self._slots.take(desk) if desk.due and not lane.leaving.is_set() else 0
                receipts = desk.done and (desk.gathered or not desk.flying)
                if not (slots or receipts or (desk.doubtful and not lane.leaving.is_set())):
                    await desk.stir.wait()
                    continue
                try:
                    await self._turn(lane, desk, slots)
                    failures = 0
                    self._trouble.over(lane.partition)
                except Exception as error:
                    if isinstance(error, Fenced) or not is_transient(error):
                        raise
                    failures += 1
                    self._trouble.met(lane.partition, error)
                    await asyncio.sleep(min(2.0, 0.05 * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0))
        finally:
            leaving.cancel()
            self._slots.withdraw(desk)
            self._carriers.put_back(desk)
            self._trouble.over(lane.partition)

    async def finish(self) -> None:
        """See `Carriers.finish`."""
        await self._carriers.finish()

    def _desk(self, partition: int) -> Desk:
        return self._desks.setdefault(partition, Desk())

    async def _turn(self, lane: Lane, desk: Desk, slots: int) -> None:
        turn: Turn | None = None
        desk.gathered = False

        async def work(connection: Connection, out: Outputs) -> None:
            nonlocal turn
            turn = Turn(max(self._clock.now(), out.as_of), out)
            suppressed = await self._record(connection, desk, turn)
            if slots or suppressed:
                await self._take(connection, lane, desk, turn, slots, suppressed)

        try:
            await lane.transact(work)
        except BaseException:
            # What was prepared may stand in `sending`, or may not; in neither case has its hand-over begun.
            desk.done.update({hand.taken: (hand, None) for hand, _ in turn.begun} if turn else {})
            desk.due = desk.doubtful = desk.gathered = True
            self._slots.give_back(slots)
            raise
        assert turn is not None
        desk.doubtful = False
        if not desk.due:
            self._slots.withdraw(desk)
        for taken in turn.recorded:
            del desk.done[taken]
        if turn.begun:
            reached("mailer.sending")
        self._slots.give_back(slots - len(turn.begun))
        self._carriers.add(desk, turn.begun)
        for message, error in turn.defects:
            self._logger.error("mail not made", message=message, exc_info=error)
        for pool, reason in turn.unannounced:
            COUPONS_UNANNOUNCED.labels(pool).inc()
            remedy = f"Look at the address in coupons/{pool}.yaml; rapport coupons export {pool} has the codes."
            self._logger.error("coupon not announced", pool=pool, reason=reason, remedy=remedy)
        for reason in turn.held:
            MAILER_HELD.labels(reason).inc()
        for status, reason in turn.ended:
            MAILER_OUTCOMES.labels(status, reason).inc()
            if reason == NO_CHANNEL and not self._said_absent:
                self._said_absent = True
                remedy = f"Set RAPPORT_MAILER_{self.channel.upper()}_URL to your gateway's address."
                self._logger.warning("messages skipped: no gateway", channel=self.channel, remedy=remedy)

    async def _record(self, connection: Connection, desk: Desk, turn: Turn) -> dict[str, str]:
        """Turn receipts into outcomes, holds and retries. Gives the addresses to be suppressed, and why."""
        results = dict(desk.done)
        turn.recorded = list(results)
        if desk.doubtful:
            # What is ours and still stands there is told by `taken`; all else in hand belongs to an owner that died.
            results.clear()
            for hand in await store.in_hand(connection, turn.out.partition, self.channel):
                if hand.taken in desk.done:
                    results[hand.taken] = desk.done[hand.taken]
                elif hand.taken not in desk.flying:
                    results[hand.taken] = (hand, Unknown("interrupted"))
            turn.recorded += [taken for taken in results if taken in desk.done and taken not in turn.recorded]
        again = [hand.id for hand, receipt in results.values() if receipt is None or isinstance(receipt, Deferred)]
        cancelled = await store.cancelled_of(connection, again) if again else {}
        for hand, receipt in results.values():
            turn.conclude(hand, receipt, cancelled.get(hand.id, ""), self._means.retry_base)
        if any(receipt is None for _, receipt in results.values()):
            desk.due = True
        if turn.changes:
            await store.change_messages(connection, turn.changes)
        return {
            hand.address: NO_SUCH_ADDRESS
            for hand, receipt in results.values()
            if isinstance(receipt, Rejected) and receipt.suppress
        }

    async def _take(
        self, connection: Connection, lane: Lane, desk: Desk, turn: Turn, slots: int, suppressed: dict[str, str]
    ) -> None:
        """Decide what is due, and bring as much of it to `sending` as there are slots."""
        limit = max(slots, desk.look_at)
        candidates = await store.to_decide(connection, lane.partition, limit, self.channel) if slots else []
        people = candidates if self.channel != WEBHOOK else []
        addresses = {destination(candidate.request, candidate.address)[0] for candidate in people}
        known = {address for address in addresses if address is not None}
        locked = await store.lock_addresses(connection, known | suppressed.keys()) if known or suppressed else {}
        if suppressed:
            await store.suppress(connection, suppressed, turn.now)
            locked.update(suppressed)
        if not slots:
            return
        # In turn with the batches, which say when there is more: nothing that they bring meanwhile is overlooked.
        desk.due = desk.backlog = len(candidates) == limit
        if not candidates:
            return
        playbook = await self._shelf.get(connection, lane.memo.decode()) if lane.memo else None
        consent = await store.consent_of(connection, known) if known else {}
        moments = [self._means.moment(candidate.due, turn.now) for candidate in candidates]
        counted = await self._counted(connection, playbook, people, min(moments))
        before = len(turn.changes)
        if turn.decide(candidates, Known(playbook, locked, consent, counted), self._means, slots):
            desk.due = desk.backlog = True
        # Where nothing was to be handed over, many are settled at once; otherwise as many as there are slots.
        desk.look_at = min(2 * limit, _MOST_LOOKED_AT) if desk.due and not turn.begun else 0
        await store.change_messages(connection, turn.changes[before:])

    async def _counted(
        self, connection: Connection, playbook: Playbook | None, candidates: Sequence[Candidate], earliest: datetime
    ) -> dict[tuple[str, str], list[datetime]]:
        caps = playbook.brand.caps_of(self.channel) if playbook is not None else []
        if not caps or not candidates:
            return {}
        since = earliest - max(cap.window for cap in caps)
        return await store.counted(connection, {c.request.customer for c in candidates}, since, self.channel)

    def _name(self) -> str:
        self._taken += 1
        return f"{self._process}-{self._taken}"


async def _stir_when(event: asyncio.Event, desk: Desk) -> None:
    await event.wait()
    desk.stir.set()
