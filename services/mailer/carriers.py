"""Carrying mails out: as many at one time as the transport has connections, what else is in hand behind them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from services.mailer.desk import Desk
from services.mailer.slots import Slots
from services.mailer.store import InHand
from services.mailer.transport import DATA_WITHIN, Deferred, Mail, Receipt, Transport, Unknown
from shared.contracts.messages import EMAIL, PUSH, SMS, WEBHOOK
from shared.telemetry import MAILER_DELIVERY_SECONDS, MAILER_IN_HAND
from shared.trouble import Trouble

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
    taken_at: float
    """In the loop's time."""


class Carriers:
    """Hands over what has come to `sending`, and puts each receipt on its desk.

    A mail that does not get to a connection within `DATA_WITHIN` has not begun, and is decided anew. `done` is told of
    each desk that has a receipt. `away` says what waits where the server does not answer, and what to do about it.
    """

    def __init__(
        self, transport: Transport, slots: Slots, done: Callable[[Desk], None], away: tuple[str, str] = _MAIL_SERVER
    ) -> None:
        self._transport = transport
        self._slots = slots
        self._done = done
        self._pile: deque[_Piled] = deque()
        self._carrying = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._logger = structlog.get_logger(service="mailer")
        self._server_away = Trouble(*away, logger=self._logger)

    def add(self, desk: Desk, begun: Sequence[tuple[InHand, Mail]]) -> None:
        """These are in `sending`: hand them over."""
        now = asyncio.get_running_loop().time()
        for hand, mail in begun:
            desk.flying[hand.taken] = hand
            self._pile.append(_Piled(desk, hand, mail, now))
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

    async def _carry(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._pile:
                piled = self._pile.popleft()
                receipt: Receipt | None = None
                if loop.time() < piled.taken_at + DATA_WITHIN:
                    receipt = await self._hand_over(piled)
                self._slots.paced(loop.time() - piled.taken_at)
                self._over(piled, receipt)
        finally:
            self._carrying -= 1

    async def _hand_over(self, piled: _Piled) -> Receipt:
        started = time.perf_counter()
        try:
            receipt = await self._transport.deliver(piled.mail, piled.taken_at + DATA_WITHIN)
        except asyncio.CancelledError:
            self._over(piled, Unknown("given_up"))
            raise
        except Exception as error:
            # A defect of the transport: whether the mail went out is not to be known from here.
            self._logger.error("transport failed", message=piled.hand.id, exc_info=error)
            receipt = Unknown(f"transport_failed: {type(error).__name__}")
        MAILER_DELIVERY_SECONDS.observe(time.perf_counter() - started)
        tell(self._server_away, piled.mail, receipt)
        return receipt

    def _over(self, piled: _Piled, receipt: Receipt | None) -> None:
        MAILER_IN_HAND.dec()
        desk = piled.desk
        del desk.flying[piled.hand.taken]
        desk.done[piled.hand.taken] = (piled.hand, receipt)
        if desk.attended:
            self._done(desk)
        else:
            self._slots.give_back(1)


def tell(away: Trouble, mail: Mail, receipt: Receipt) -> None:
    """Whether a server is away, as its receipt says. Webhooks go to many, each of which may be; all else goes to one,
    whose name is in the settings."""
    server = ""
    if mail.request.channel == WEBHOOK:
        server = mail.recipient.partition("://")[2].partition("/")[0].rpartition("@")[2]
    if isinstance(receipt, Deferred) and receipt.reason not in ("deferred", "greylisted"):
        away.met(server, f"{server} {receipt.reason}: {receipt.reply}".lstrip())
    else:
        away.over(server)
