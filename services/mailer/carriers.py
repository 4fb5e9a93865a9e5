"""Carrying mails out: as many at one time as the transport has connections, what else is in hand behind them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from services.mailer.desk import Desk
from services.mailer.receivers import Receivers
from services.mailer.slots import Slots
from services.mailer.store import InHand
from services.mailer.transport import DATA_WITHIN, Mail, Receipt, Transport, Unknown, receiver_of
from shared.contracts.messages import EMAIL, PUSH, SMS, WEBHOOK
from shared.telemetry import MAILER_DELIVERY_SECONDS, MAILER_IN_HAND

_MAIL_SERVER = (
    "handing over to the mail server",
    "Look at the server and at RAPPORT_MAILER_SMTP_URL. Mails are tried again, until they expire after 72 h.",
)
_WEBHOOKS = (
    "calling webhooks",
    "Look at the address and its server (`detail` of the message). They are called again until they expire.",
)
AWAY = {
    EMAIL: _MAIL_SERVER,
    WEBHOOK: _WEBHOOKS,
    SMS: (
        "handing over text messages",
        "Look at the gateway and at RAPPORT_MAILER_SMS_URL. They are tried again until they expire.",
    ),
    PUSH: (
        "handing over push notifications",
        "Look at the gateway and at RAPPORT_MAILER_PUSH_URL. They are tried again until they expire.",
    ),
}
"""By channel, what waits where a server does not answer, and what to do about it."""


class _Piled(NamedTuple):
    desk: Desk
    hand: InHand
    mail: Mail
    receiver: str
    taken_at: float
    """In the loop's time."""


class Carriers:
    """Hands over what has come to `sending`, and puts each receipt on its desk.

    A mail that does not get to a connection within `DATA_WITHIN` has not begun, and is decided anew. `done` is told of
    each desk that has a receipt.
    """

    def __init__(self, transport: Transport, slots: Slots, receivers: Receivers, done: Callable[[Desk], None]) -> None:
        self._transport = transport
        self._slots = slots
        self._receivers = receivers
        self._done = done
        self._pile: deque[_Piled] = deque()
        self._carrying = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._logger = structlog.get_logger(service="mailer")

    def add(self, desk: Desk, begun: Sequence[tuple[InHand, Mail]]) -> None:
        """These are in `sending`: hand them over."""
        now = asyncio.get_running_loop().time()
        for hand, mail in begun:
            desk.flying[hand.taken] = hand
            receiver = receiver_of(mail.request)
            self._receivers.take(receiver)
            self._pile.append(_Piled(desk, hand, mail, receiver, now))
        MAILER_IN_HAND.inc(len(begun))
        for _ in range(min(len(begun), self._transport.connections - self._carrying)):
            self._carrying += 1
            task = asyncio.create_task(self._carry())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def put_back(self, desk: Desk) -> None:
        """What has not begun of this desk does not begin any more."""
        left = [piled for piled in self._pile if piled.desk is desk]
        if left:
            self._pile = deque(piled for piled in self._pile if piled.desk is not desk)
            for piled in left:
                self._over(piled, None)

    async def finish(self) -> None:
        """Let go of the hand-overs that no lane waits for any more; call it before the transport is closed.

        Lanes wait for theirs as long as they may. What is left then hangs on a server that does not answer, and has no
        owner here who could record its receipt: it is `unknown` to the next one.
        """
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._receivers.close()

    async def _carry(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while (piled := self._next()) is not None:
                receipt: Receipt | None = None
                if loop.time() < piled.taken_at + DATA_WITHIN:
                    receipt = await self._hand_over(piled)
                self._slots.paced(loop.time() - piled.taken_at)
                self._over(piled, receipt)
        finally:
            self._carrying -= 1

    def _next(self) -> _Piled | None:
        """The first whose receiver may have another connection, or for which it is too late."""
        late = asyncio.get_running_loop().time() - DATA_WITHIN
        for at, piled in enumerate(self._pile):
            if piled.taken_at <= late or self._receivers.may_be_called(piled.receiver):
                del self._pile[at]
                return piled
        return None

    async def _hand_over(self, piled: _Piled) -> Receipt:
        started = time.perf_counter()
        self._receivers.call(piled.receiver)
        try:
            receipt = await self._transport.deliver(piled.mail, piled.taken_at + DATA_WITHIN)
        except asyncio.CancelledError:
            self._over(piled, Unknown("given_up"))
            raise
        except Exception as error:
            # A defect of the transport: whether the mail went out is not to be known from here.
            self._logger.error("transport failed", message=piled.hand.id, exc_info=error)
            receipt = Unknown(f"transport_failed: {type(error).__name__}")
        finally:
            self._receivers.hang_up(piled.receiver)
        MAILER_DELIVERY_SECONDS.observe(time.perf_counter() - started)
        self._receivers.came_to(piled.receiver, receipt)
        return receipt

    def _over(self, piled: _Piled, receipt: Receipt | None) -> None:
        MAILER_IN_HAND.dec()
        self._receivers.let_go(piled.receiver)
        desk = piled.desk
        del desk.flying[piled.hand.taken]
        desk.done[piled.hand.taken] = (piled.hand, receipt)
        if not desk.attended:
            self._slots.give_back(1)
        self._done(desk)
