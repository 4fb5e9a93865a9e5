"""Hands mail to a relay by SMTP, on sessions that are kept and used again.

An own client, because two things matter here that libraries do not give: exact knowledge of whether the final dot of
DATA can have reached the server, which is what tells a retry from a duplicate, and one round trip for an envelope
(PIPELINING, RFC 2920).
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from dataclasses import dataclass

from services.mailer.relay import Relay
from services.mailer.smtp_session import Broken, Session
from services.mailer.transport import Deferred, Mail, Receipt
from shared.errors import RapportError


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of the machine's time, and how much one connection is used."""

    connect: float = 10.0
    """Until a connection is ready for mail (or until DATA has to have begun, where that is sooner)."""
    answer: float = 120.0
    """How long the answer to the final dot is waited for; the relay may look at the whole mail before it answers."""
    idle: float = 30.0
    """How long an unused connection is kept."""
    verify_after: float = 5.0
    """A connection unused for longer is asked (NOOP) whether it still lives."""
    mails: int = 200
    """Mails on one connection; relays drop those who never hang up."""


class SmtpTransport:
    """The transport `smtp://`. `hello` is the name that we give to the server (RFC 5321, 4.1.1.1)."""

    def __init__(
        self, relay: Relay, *, connections: int = 8, hello: str | None = None, timing: Timing | None = None
    ) -> None:
        self._relay = relay
        self._connections = connections
        self._hello = hello or _own_name()
        self._timing = timing or Timing()
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[Session] = []
        self._context: ssl.SSLContext | None = None
        if relay.security != "none":
            try:
                self._context = ssl.create_default_context(cafile=relay.ca)
            except OSError as error:
                raise RapportError(f"{relay.ca}: no certificates can be read from it: {error}.") from None

    @property
    def connections(self) -> int:
        return self._connections

    async def start(self) -> None:
        """Connections are made when the first mail wants one."""

    async def deliver(self, mail: Mail, data_by: float) -> Receipt:
        loop = asyncio.get_running_loop()
        try:
            if self._slots.locked():
                async with asyncio.timeout_at(data_by):
                    await self._slots.acquire()
            else:
                await self._slots.acquire()
        except TimeoutError:
            return Deferred("", "abandoned")
        try:
            while True:
                reused = bool(self._idle)
                try:
                    connection = await self._connection(min(data_by, loop.time() + self._timing.connect))
                except Broken as broken:
                    return broken.receipt(abandoned=loop.time() >= data_by)
                receipt = await connection.deliver(mail, data_by, self._timing.answer)
                self._keep(connection)
                # The server may hang up on an idle connection at any time; that says nothing about the mail.
                if reused and isinstance(receipt, Deferred) and receipt.reason == "connection":
                    continue
                return receipt
        finally:
            self._slots.release()

    async def close(self) -> None:
        idle, self._idle = self._idle, []
        await asyncio.gather(*(connection.quit(1.0) for connection in idle))

    async def _connection(self, by: float) -> Session:
        """One that is ready for an envelope. Raises Broken."""
        loop = asyncio.get_running_loop()
        while self._idle:
            connection = self._idle.pop()
            if connection.expiry is not None:
                connection.expiry.cancel()
            if not connection.usable:
                connection.abort()
            elif loop.time() - connection.used_at <= self._timing.verify_after or await connection.lives(by):
                return connection
        return await Session.open(self._relay, self._context, self._hello, by)

    def _keep(self, connection: Session) -> None:
        if not connection.usable or connection.mails >= self._timing.mails:
            connection.leave()
            return
        loop = asyncio.get_running_loop()
        connection.used_at = loop.time()
        connection.expiry = loop.call_later(self._timing.idle, self._expire, connection)
        self._idle.append(connection)

    def _expire(self, connection: Session) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
            connection.leave()


def _own_name() -> str:
    name = socket.gethostname()
    return name if re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", name) else "localhost"
