"""Handing over what is due: decide under the addresses' locks, commit `sending`, deliver, record what became of it.

One fenced transaction serves many messages, of all partitions that have something at the moment: it records the
receipts that have come in and takes as many due messages as may be in hand (`sitting.py`). Where it also brings the
requests, they are taken at once. A hand-over begins when it has committed. Receipts stay in memory until they are
recorded, so trouble with the database makes no outcome unknown; only the end of this process can.
"""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from uuid import uuid4

import structlog

from services.mailer import policy, store
from services.mailer.carriers import AWAY, Carriers
from services.mailer.desk import Desk
from services.mailer.policy import NO_CHANNEL
from services.mailer.receivers import Receivers
from services.mailer.sitting import Office, Sitting
from services.mailer.slots import Slots
from services.mailer.transport import Transport
from services.mailer.turn import Compose, Means
from shared.backoff import back_off
from shared.clock import Clock
from shared.contracts.messages import WEBHOOK
from shared.database.clauses import execute
from shared.database.engine import is_transient
from shared.processing.playbooks import Shelf
from shared.processing.port import Connection, Fenced, Lane, Outputs, Present
from shared.trouble import Trouble

_LATENESS = timedelta(minutes=1)
"""How late a release may be by our own delay (`Means.lateness`)."""
_PATIENCE_SECONDS = 20.0
"""How long a database that does not answer is waited for when the partition is let go."""
_GATHERING_SECONDS = 0.05
"""How long a receipt waits for a transaction that there is anyway."""
_BARRED_SECONDS = 0.05
"""How long one waits for an address that another transaction holds before one looks again."""


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
        self._said_absent = False
        self._slots = Slots(transport.connections)
        self._logger = structlog.get_logger(service="mailer")
        patience = policy.longest_pause(retry_base) / clock.speed + _LATENESS
        away = Trouble(*AWAY[channel], logger=self._logger)
        self._receivers = Receivers(away, transport.connections, patience.total_seconds())
        self._carriers = Carriers(transport, self._slots, self._receivers, self._done)
        means = Means(compose, self._name, retry_base, _LATENESS * clock.speed, there)
        self._office = Office(
            means,
            shelf,
            clock,
            self._slots,
            self._receivers,
            self._carriers,
            channel,
            self._desk,
            self._ended,
            self._bar,
        )
        self._gathering: asyncio.TimerHandle | None = None
        self.channel = channel
        self._desks: dict[int, Desk] = {}
        # With the process's number, so that a message that is left unknown tells whose it was.
        self._process = f"{os.getpid()}-{uuid4().hex}"
        self._taken = 0
        self._trouble = Trouble("sending", "Bring back the database; it goes on by itself.", logger=self._logger)

    def look(self, partition: int) -> None:
        """Something of this partition may be due."""
        desk = self._desk(partition)
        desk.due = True
        desk.stir.set()

    def sitting(self) -> Sitting:
        """What the next transaction does for the partitions that take part in it."""
        return Sitting(self._office)

    async def attend(self, lane: Lane) -> None:
        desk = self._desk(lane.partition)
        desk.due = desk.doubtful = desk.attended = True
        desk.earlier = {*desk.flying, *desk.done}
        self._slots.keep(len(desk.done))
        leaving = asyncio.create_task(_stir_when(lane.leaving, desk))
        failures, left_at = 0, 0.0
        try:
            while True:
                desk.stir.clear()
                here = not lane.leaving.is_set()
                if not here:
                    self._slots.withdraw(desk)
                    self._carriers.put_back(desk)
                    left_at = left_at or time.monotonic()
                    given_up = failures and time.monotonic() - left_at > _PATIENCE_SECONDS
                    if given_up or not (desk.flying or desk.done or desk.deciding):
                        return
                take = here and desk.due and self._slots.offered(desk)
                receipts = desk.done and (desk.gathered or not (here or desk.barred))
                if not (take or receipts or (here and desk.doubtful)):
                    await desk.stir.wait()
                    continue
                try:
                    if not await lane.join():
                        await self._alone(lane)
                    failures = 0
                    self._trouble.over(lane.partition)
                except Exception as error:
                    if isinstance(error, Fenced) or not is_transient(error):
                        raise
                    failures += 1
                    self._trouble.met(lane.partition, error)
                    await asyncio.sleep(back_off(failures, most=2.0))
        finally:
            desk.attended = False
            leaving.cancel()
            self._slots.withdraw(desk)
            self._slots.give_back(len(desk.done))
            self._carriers.put_back(desk)
            self._trouble.over(lane.partition)

    async def finish(self) -> None:
        """See `Carriers.finish`."""
        await self._carriers.finish()

    def _desk(self, partition: int) -> Desk:
        return self._desks.setdefault(partition, Desk())

    async def _alone(self, lane: Lane) -> None:
        """A transaction for this partition, with no other."""
        sitting = self.sitting()

        async def work(connection: Connection, out: Outputs) -> None:
            await execute(connection, await sitting.work(connection, [Present(lane, lane.memo, out)]))

        try:
            await lane.transact(work)
        except BaseException:
            sitting.failed()
            raise
        sitting.committed()

    def _done(self, desk: Desk) -> None:
        """It has a receipt, which is recorded with what is taken next, by whichever partition, or by itself after a
        moment; and its receiver has room."""
        if self.channel == WEBHOOK:
            for other in self._desks.values():
                if other.passed:
                    other.passed, other.due = False, True
                    other.stir.set()
        if not desk.attended:
            return
        if self._slots.wanted(self._unrecorded()):
            self._record_now()
        elif self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(_GATHERING_SECONDS, self._record_now)

    def _unrecorded(self) -> int:
        return sum(len(desk.done) for desk in self._desks.values() if desk.attended)

    def _record_now(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        for desk in self._desks.values():
            if desk.done:
                desk.gathered = True
                desk.stir.set()

    def _bar(self, desk: Desk) -> None:
        if not desk.barred:
            desk.barred = True
            asyncio.get_running_loop().call_later(_BARRED_SECONDS, self._unbar, desk)

    def _unbar(self, desk: Desk) -> None:
        desk.barred, desk.due, desk.gathered = False, True, bool(desk.done)
        desk.stir.set()

    def _ended(self, reason: str) -> None:
        if reason == NO_CHANNEL and not self._said_absent:
            self._said_absent = True
            remedy = f"Set RAPPORT_MAILER_{self.channel.upper()}_URL to your gateway's address."
            self._logger.warning("messages skipped: no gateway", channel=self.channel, remedy=remedy)

    def _name(self) -> str:
        self._taken += 1
        return f"{self._process}-{self._taken}"


async def _stir_when(event: asyncio.Event, desk: Desk) -> None:
    await event.wait()
    desk.stir.set()
