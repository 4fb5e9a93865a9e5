"""Mail servers for tests: aiosmtpd as it comes, and one that does exactly what a script says, however rude."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Keeping:
    """A handler that keeps every mail it takes, and counts the sessions."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.sessions: set[tuple[Any, ...]] = set()
        self.encrypted: list[bool] = []
        self.logged_in: list[bool] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.envelopes.append(envelope)
        self.sessions.add(session.peer)
        self.encrypted.append(session.ssl is not None)
        self.logged_in.append(bool(session.authenticated))
        return "250 2.0.0 kept"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("nobody@"):
            return "550 5.1.1 no such user"
        if address.startswith("later@"):
            return "451 4.7.1 greylisted, come back"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 fine"


@contextlib.asynccontextmanager
async def keeping_server(handler: Keeping, **options: Any) -> AsyncIterator[int]:
    """An aiosmtpd server; gives its port."""
    loop = asyncio.get_running_loop()
    implicit = options.pop("ssl_context", None)
    server = await loop.create_server(
        lambda: SMTP(handler, loop=loop, enable_SMTPUTF8=True, **options), "127.0.0.1", 0, ssl=implicit
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def knows(user: str, password: str) -> Callable[..., AuthResult]:
    def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        right = (data.login, data.password) == (user.encode(), password.encode())
        # Where it is not told what to say, aiosmtpd waits some seconds before it says so.
        return AuthResult(success=True) if right else AuthResult(success=False, handled=False, message="535 5.7.8 no")

    return authenticate


@contextlib.asynccontextmanager
async def scripted_server(*scripts: Script) -> AsyncIterator[int]:
    """A server whose n-th connection follows the n-th script, and every later one the last; gives its port."""
    waiting = list(scripts)
    sessions: set[asyncio.Task[None]] = set()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        sessions.add(task)
        script = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await script(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    server = await asyncio.start_server(session, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in sessions:
            task.cancel()
        await asyncio.gather(*sessions)
        await server.wait_closed()


def replying(
    *,
    greeting: str = "220 hello",
    extensions: str = "PIPELINING",
    mails: int = 1,
    then: str = "221 bye",
    **replies: str,
) -> Script:
    """A server that answers as told: `mail`, `rcpt`, `data`, `dot`, `rset`, `noop`. A reply of "" hangs up, "…" is
    silence, and one that ends in "!" is said before hanging up."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await say(writer, greeting)
        told = {"ehlo": f"250-server\r\n250 {extensions}", "mail": "250 ok", "rcpt": "250 ok", "data": "354 go"}
        told |= {"dot": "250 2.0.0 taken", "rset": "250 ok", "noop": "250 ok", "quit": "221 bye!"} | replies
        while line := await reader.readline():
            word = line.split()[0].decode().lower()
            await say(writer, told.get(word, "500 what?"))
            if word == "data" and told["data"].startswith("354"):
                while await reader.readline() not in (b".\r\n", b""):
                    pass
                await say(writer, told["dot"])

    return script


async def say(writer: asyncio.StreamWriter, reply: str) -> None:
    if reply == "…":
        await asyncio.Event().wait()
    ends = reply.endswith("!")
    if reply:
        writer.write(reply.removesuffix("!").encode() + b"\r\n")
        await writer.drain()
    if ends or not reply:
        raise ConnectionAbortedError


async def takes_a_mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """From the greeting to the answer after the final dot."""
    await say(writer, "220 hello")
    for reply in ("250 server", "250 ok", "250 ok", "354 go"):
        await reader.readline()
        await say(writer, reply)
    while await reader.readline() != b".\r\n":
        pass
    await say(writer, "250 taken")
