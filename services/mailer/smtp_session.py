"""One session with a mail server (RFC 5321): greeting, encryption, login, and mails one after the other.

The dot is written by itself, after everything before it: as long as it is not, nothing can have been accepted. From
then on only an explicit answer tells, and without one the receipt is Unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
from base64 import b64encode
from collections.abc import Sequence
from typing import NamedTuple, cast

from services.mailer.relay import Relay
from services.mailer.transport import Accepted, Deferred, Mail, Receipt, Rejected, Unknown, printable
from shared.processing.faults import reached

_MAX_LINE = 2_048
_MAX_LINES = 100
_REPLY = re.compile(r"([2-5]\d\d)(?:([ -])(.*))?")
_UNWRITABLE = re.compile(r"[\s<>\x00-\x1f\x7f]")


class Broken(Exception):
    """The connection is of no use any more. `reply` is what the server said last, where that is why."""

    def __init__(self, reason: str, what: str, reply: str = "") -> None:
        super().__init__(reply or what)
        self.reason, self.reply = reason, reply

    def receipt(self, *, abandoned: bool = False) -> Deferred:
        return Deferred(str(self), "abandoned" if abandoned and not self.reply else self.reason)


class _Reply(NamedTuple):
    code: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.code} {' '.join(self.lines)}".strip()[:1000]

    @property
    def enhanced(self) -> str:
        """The status code of RFC 3463 (`5.1.1`), where there is one."""
        found = re.match(r"([245]\.\d{1,3}\.\d{1,3})(?: |$)", self.lines[0]) if self.lines else None
        return found[1] if found else ""


class _Wire(asyncio.Protocol):
    """The bytes of one connection: replies come out of it, and it tells when what was written has left us."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self._received = bytearray()
        self._arrived: asyncio.Future[None] | None = None
        self._paused = False
        self._drained: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self.use(cast("asyncio.Transport", transport))

    def use(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        # `drained` means that nothing is left with us.
        transport.set_write_buffer_limits(high=1, low=0)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > _MAX_LINE * _MAX_LINES and self.transport is not None:
            self.transport.abort()
        self._wake(self._arrived)

    def eof_received(self) -> bool:
        self.lost = True
        self._wake(self._arrived)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._wake(self._arrived)
        self._wake(self._drained)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake(self._drained)

    @staticmethod
    def _wake(waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    @property
    def quiet(self) -> bool:
        """Alive, and the server has said nothing that we have not read."""
        return not self.lost and not self._received and self.transport is not None and not self.transport.is_closing()

    def write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    async def drained(self, by: float) -> None:
        """Until nothing written is left with us, or the connection is lost. Raises TimeoutError."""
        while self._paused and not self.lost:
            self._drained = asyncio.get_running_loop().create_future()
            await _until(self._drained, by)

    async def reply(self, by: float) -> _Reply:
        """The next reply. Raises TimeoutError, or Broken where the connection was lost or the reply is none."""
        lines: list[str] = []
        while True:
            end = self._received.find(b"\n")
            if end < 0:
                if len(self._received) > _MAX_LINE:
                    raise Broken("protocol", "the server's answer has no end")
                if self.lost:
                    raise Broken("connection", "the server closed the connection")
                self._arrived = asyncio.get_running_loop().create_future()
                await _until(self._arrived, by)
                continue
            line = bytes(self._received[: end + 1]).decode("utf-8", "replace").rstrip("\r\n")
            del self._received[: end + 1]
            found = _REPLY.fullmatch(line)
            if found is None or len(line) > _MAX_LINE or len(lines) >= _MAX_LINES:
                raise Broken("protocol", f"the server's answer is not SMTP: {printable(line)[:80]!r}")
            lines.append(printable(found[3] or ""))
            if found[2] != "-":
                return _Reply(int(found[1]), tuple(lines))


async def _until(waiter: asyncio.Future[None], by: float) -> None:
    """Wait for what a wire hears of. Raises TimeoutError. Lighter than `asyncio.timeout_at`, of each mail's waits."""
    late = asyncio.get_running_loop().call_at(by, _too_late, waiter)
    try:
        await waiter
    finally:
        late.cancel()


def _too_late(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


class Session:
    """One session with the relay, ready for envelopes from `open` on."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire
        self._extensions: dict[str, str] = {}
        self._reset = False
        self._over = False
        self.mails = 0
        self.used_at = 0.0
        self.expiry: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls, relay: Relay, context: ssl.SSLContext | None, hello: str, by: float) -> Session:
        """Connect, encrypt and log in. Raises Broken."""
        loop = asyncio.get_running_loop()
        implicit = relay.security == "implicit"
        wire: _Wire | None = None
        try:
            async with asyncio.timeout_at(by):
                _, wire = await loop.create_connection(
                    _Wire,
                    relay.host,
                    relay.port,
                    ssl=context if implicit else None,
                    server_hostname=relay.host if implicit else None,
                )
                connection = cls(wire)
                await connection._greet(relay, context, hello, by)
                return connection
        except TimeoutError:
            broken = Broken("connection", "no answer in time")
        except ssl.SSLError as error:
            broken = Broken("tls", f"no encryption: {error.reason or error}")
        except OSError as error:
            # asyncio's own text names the address, and not what was the matter with it.
            broken = Broken("connection", f"cannot connect: {os.strerror(error.errno) if error.errno else error}")
        except Broken as error:
            broken = error
        if wire is not None and wire.transport is not None:
            wire.transport.abort()
        raise broken

    async def _greet(self, relay: Relay, context: ssl.SSLContext | None, hello: str, by: float) -> None:
        self._expect(await self._wire.reply(by), 220, "connection")
        await self._ehlo(hello, by)
        if relay.security in ("starttls", "required"):
            if "STARTTLS" in self._extensions:
                assert context is not None
                await self._start_tls(relay.host, context, by)
                await self._ehlo(hello, by)
            elif relay.security == "required":
                raise Broken("tls", "the server does not offer STARTTLS. Say tls=none if that is meant")
        if relay.user is not None:
            await self._log_in(relay.user, relay.password, by)

    async def _ehlo(self, hello: str, by: float) -> None:
        self._wire.write(f"EHLO {hello}\r\n".encode())
        reply = await self._wire.reply(by)
        self._extensions = {}
        if reply.code == 250:
            for line in reply.lines[1:]:
                name, _, parameters = line.partition(" ")
                self._extensions[name.upper()] = parameters
            return
        self._wire.write(f"HELO {hello}\r\n".encode())
        self._expect(await self._wire.reply(by), 250, "connection")

    async def _start_tls(self, host: str, context: ssl.SSLContext, by: float) -> None:
        self._wire.write(b"STARTTLS\r\n")
        self._expect(await self._wire.reply(by), 220, "tls")
        if not self._wire.quiet:
            # Whatever stands here was put in before the encryption began (CVE-2011-0411).
            raise Broken("tls", "the server sent more than its answer to STARTTLS")
        assert self._wire.transport is not None
        transport = await asyncio.get_running_loop().start_tls(
            self._wire.transport, self._wire, context, server_hostname=host
        )
        if transport is None:
            raise Broken("tls", "the server closed the connection")
        self._wire.use(transport)

    async def _log_in(self, user: str, password: str, by: float) -> None:
        offered = self._extensions.get("AUTH", "").upper().split()
        if "PLAIN" in offered:
            secret = b64encode(f"\0{user}\0{password}".encode()).decode()
            self._wire.write(f"AUTH PLAIN {secret}\r\n".encode())
        elif "LOGIN" in offered:
            self._wire.write(b"AUTH LOGIN\r\n")
            for answer in (user, password):
                self._expect(await self._wire.reply(by), 334, "login")
                self._wire.write(b64encode(answer.encode()) + b"\r\n")
        else:
            raise Broken("login", "the server offers no login that is known here (PLAIN, LOGIN)")
        self._expect(await self._wire.reply(by), 235, "login")

    @staticmethod
    def _expect(reply: _Reply, code: int, reason: str) -> None:
        if reply.code != code:
            raise Broken(reason, "", str(reply))

    @property
    def usable(self) -> bool:
        return not self._over and self._wire.quiet

    async def lives(self, by: float) -> bool:
        """Whether the server still answers."""
        try:
            self._wire.write(b"NOOP\r\n")
            if (await self._wire.reply(by)).code == 250:
                return True
        except (TimeoutError, Broken):
            pass
        self.abort()
        return False

    async def deliver(self, mail: Mail, data_by: float, answer: float) -> Receipt:
        """One mail. Afterwards the connection may be used again where `usable`."""
        loop = asyncio.get_running_loop()
        commands = self._envelope(mail)
        if isinstance(commands, Rejected):
            return commands
        self.mails += 1
        try:
            refusal = await self._hand_envelope(commands, data_by)
            if refusal is not None:
                self._reset = True
                return refusal
            # The process may have been stopped since; a mail that was decided on then is decided on anew.
            if loop.time() >= data_by:
                self.abort()
                return Deferred("", "abandoned")
            reached("mailer.data")
            self._wire.write(_stuffed(mail.data))
            await self._wire.drained(loop.time() + answer)
            if not self._wire.quiet:
                # The server spoke up, or hung up, in the middle of the mail: without its dot it is not accepted.
                return await self._interrupted()
        except TimeoutError:
            self.abort()
            return Deferred("", "abandoned" if loop.time() >= data_by else "connection")
        except Broken as broken:
            self.abort()
            return broken.receipt()
        self._wire.write(b".\r\n")
        try:
            by = loop.time() + answer
            await self._wire.drained(by)
            reached("mailer.data_sent")
            reply = await self._wire.reply(by)
            reached("mailer.answered")
        except TimeoutError:
            self.abort()
            return Unknown("no_answer")
        except Broken as broken:
            self.abort()
            return Unknown("protocol" if broken.reason == "protocol" else "connection_lost")
        if 200 <= reply.code < 300:
            return Accepted(str(reply))
        if reply.code < 400:
            self.abort()
            return Unknown("protocol")
        return self._refused(reply)

    def _envelope(self, mail: Mail) -> list[bytes] | Rejected:
        parameters = ""
        if "SIZE" in self._extensions:
            parameters += f" SIZE={len(mail.data)}"
        if not (mail.sender.isascii() and mail.recipient.isascii()):
            if "SMTPUTF8" not in self._extensions:
                return Rejected("the mail server does not take addresses outside ASCII (SMTPUTF8)", False)
            parameters += " BODY=8BITMIME SMTPUTF8"
        if _UNWRITABLE.search(mail.sender + mail.recipient):
            return Rejected("the address cannot be written in a command", False)
        commands = [f"MAIL FROM:<{mail.sender}>{parameters}\r\n".encode(), f"RCPT TO:<{mail.recipient}>\r\n".encode()]
        if self._reset:
            commands.insert(0, b"RSET\r\n")
            self._reset = False
        return [*commands, b"DATA\r\n"]

    async def _hand_envelope(self, commands: Sequence[bytes], data_by: float) -> Receipt | None:
        """None where the server waits for the mail now. Raises TimeoutError or Broken."""
        if asyncio.get_running_loop().time() >= data_by:
            raise TimeoutError
        pipelining = "PIPELINING" in self._extensions
        if pipelining:
            self._wire.write(b"".join(commands))
        refusal: Receipt | None = None
        for command in commands:
            if not pipelining:
                self._wire.write(command)
            reply = await self._wire.reply(data_by)
            good = reply.code == 354 if command == b"DATA\r\n" else 200 <= reply.code < 300
            if command == b"DATA\r\n" and refusal is not None and reply.code == 354:
                # It would take a mail for nobody. Hanging up says no without a dot.
                self.abort()
            elif not good and refusal is None:
                if reply.code < 400:
                    raise Broken("protocol", "", str(reply))
                refusal = self._refused(reply, to_sender=command.startswith(b"MAIL"))
            if self._over or (refusal is not None and not pipelining):
                break
        return refusal

    def _refused(self, reply: _Reply, *, to_sender: bool = False) -> Receipt:
        if reply.code == 421:
            self.leave()
        if reply.code < 500:
            greylisted = reply.code in (450, 451) and (
                reply.enhanced == "4.7.1" or "greylist" in str(reply).lower() or "graylist" in str(reply).lower()
            )
            return Deferred(
                str(reply), "greylisted" if greylisted else "connection" if reply.code == 421 else "deferred"
            )
        if to_sender and reply.code in (530, 534, 538):
            # It is us whom it does not let in, and no mail's fault.
            self.abort()
            return Deferred(str(reply), "login")
        return Rejected(str(reply), _no_such_address(reply))

    async def _interrupted(self) -> Receipt:
        try:
            reply = await self._wire.reply(asyncio.get_running_loop().time())
        except (TimeoutError, Broken):
            self.abort()
            return Deferred("", "connection")
        receipt = self._refused(reply) if reply.code >= 400 else Deferred(str(reply), "protocol")
        self.abort()
        return receipt

    def leave(self) -> None:
        """Say goodbye without waiting for an answer."""
        if not self._over and not self._wire.lost and self._wire.transport is not None:
            self._wire.write(b"QUIT\r\n")
            self._wire.transport.close()
        self._over = True

    async def quit(self, seconds: float) -> None:
        if self.expiry is not None:
            self.expiry.cancel()
        if self.usable:
            self._wire.write(b"QUIT\r\n")
            with contextlib.suppress(TimeoutError, Broken):
                await self._wire.reply(asyncio.get_running_loop().time() + seconds)
        self._over = True
        if self._wire.transport is not None:
            self._wire.transport.close()

    def abort(self) -> None:
        self._over = True
        if self._wire.transport is not None:
            self._wire.transport.abort()


def _stuffed(data: bytes) -> bytes:
    """A mail as DATA wants it: no line is a lone dot, and the last one has an end (RFC 5321, 4.5.2)."""
    if b"\r\n." in data:
        data = data.replace(b"\r\n.", b"\r\n..")
    if data.startswith(b"."):
        data = b"." + data
    return data if data.endswith(b"\r\n") else data + b"\r\n"


_NOBODY = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"})
"""RFC 3463 and 7505: no such mailbox, no such domain, no such form, moved away, a domain that takes no mail."""
_NOBODY_IN_WORDS = re.compile(
    r"user unknown|unknown user|no such (?:user|address|recipient|mailbox)|(?:user|mailbox|recipient|address|account)"
    r"(?: \S+)? (?:does not|doesn't) exist|invalid (?:recipient|mailbox)|(?:recipient|user|mailbox) not found",
    re.I,
)


def _no_such_address(reply: _Reply) -> bool:
    if reply.enhanced:
        return reply.enhanced in _NOBODY
    return reply.code in (550, 551, 553) and _NOBODY_IN_WORDS.search(str(reply)) is not None
