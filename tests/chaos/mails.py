"""A mail server that is real and, when told to, rude. It writes down every mail whose final dot it has read."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import default
from urllib.parse import urlsplit

from tests.chaos.ledger import Arrival, Ledger
from tests.chaos.rude import SILENT_SECONDS, RudeServer

RUDENESS = (
    "hangs up before the dot",
    "hangs up after the dot",
    "answers 4xx to the address",
    "answers 4xx to the mail",
    "answers 5xx to the address",
    "answers 5xx to the mail",
    "answers nonsense to the address",
    "answers nonsense to the mail",
    "answers 4xx to a connection",
    "answers 5xx to a connection",
    "answers nonsense to a connection",
    "answers nothing to a connection",
    "answers nothing to the address",
    "answers nothing to the mail",
)
_LINK = re.compile(r'<a [^>]*href="([^"]+/c/[^"]+)"[^>]*>([^<]+)</a>')
_IMAGE = re.compile(r'<img [^>]*src="([^"]+/o/[^"]+)"')


@dataclass(frozen=True)
class Letter:
    """A mail as whoever got it sees it. Links have no host: any mailer answers them."""

    customer: str
    name: str
    message: str
    """Its Message-ID."""
    unsubscribe: str
    image: str
    links: tuple[tuple[str, str], ...]
    """Where each says that it leads, and where it goes first."""


class MailServer(RudeServer):
    """`async with MailServer(ledger, seed) as mails:`. Some mails meet with one of `rude`, while it names any."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        super().__init__(RUDENESS, seed)
        self._ledger = ledger
        self.delivered: list[Letter] = []
        """Each mail that was accepted."""
        self.let_in: Callable[[Letter], Awaitable[None]] | None = None
        """Looks at some mails before they are."""

    @property
    def url(self) -> str:
        return f"smtp://{self.address}?tls=none"

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(text: str) -> None:
            writer.write(text.encode() + b"\r\n")
            await writer.drain()

        if way := self._rudeness("connection"):
            if "nothing" in way:
                await asyncio.sleep(SILENT_SECONDS)
            else:
                await say("421 4.3.2 later" if "4xx" in way else "554 5.3.2 never" if "5xx" in way else "who is it?")
            return
        await say("220 chaos")
        address = ""
        while line := await reader.readline():
            word = line[:4].upper()
            if word == b"EHLO":
                await say("250-chaos\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8")
            elif word == b"RCPT":
                address = line[line.index(b"<") + 1 : line.index(b">")].decode()
                way = self._rudeness("address")
                if "nothing" in way:
                    await asyncio.sleep(SILENT_SECONDS)
                    return
                if way:
                    address = ""
                    await say(
                        "451 4.3.0 later" if "4xx" in way else "554 5.7.1 never" if "5xx" in way else "what? who?"
                    )
                else:
                    await say("250 ok")
            elif word == b"DATA":
                if not address:
                    await say("503 whom to?")
                    continue
                data_at = time.time()
                await say("354 go")
                if self._rudeness("before the dot"):
                    await reader.readline()
                    return
                content = await reader.readuntil(b"\r\n.\r\n")
                if not await self._take(content, address, data_at, writer):
                    return
                address = ""
            elif word == b"QUIT":
                await say("221 bye")
                return
            else:
                await say("250 ok")

    async def _take(self, content: bytes, address: str, data_at: float, writer: asyncio.StreamWriter) -> bool:
        """Whether the session goes on."""
        mail = message_from_bytes(content, policy=default)
        message, about = str(mail["Subject"]).split(" ", 1)
        id = str(mail["Message-ID"]).strip("<>").partition("@")[0]
        body = mail.get_body(("plain",))
        arrival = Arrival((message, about), id, address, data_at, body.get_content() if body else "")
        self._ledger.arrivals.append(arrival)
        way = self._rudeness("to the mail", "after the dot")
        if "nothing" in way:
            await asyncio.sleep(SILENT_SECONDS)
            return False
        if "hangs up" in way:
            return False
        if "nonsense" in way:
            writer.write(b"who knows?\r\n")
            await writer.drain()
            return True
        refused = "4xx" in way or "5xx" in way
        html = mail.get_body(("html",))
        letter = _opened(address, message, id, str(mail["List-Unsubscribe"]), html.get_content() if html else "")
        if self.let_in is not None and not refused:
            await self.let_in(letter)
        # Written down before it is said: what was said to a dead socket was said.
        arrival.answer = "452 4.3.1 later" if "4xx" in way else "554 5.7.1 never" if "5xx" in way else "250 2.0.0 taken"
        writer.write(arrival.answer.encode() + b"\r\n")
        await writer.drain()
        if not refused:
            self.delivered.append(letter)
        return True


def _opened(address: str, name: str, message: str, unsubscribe: str, html: str) -> Letter:
    image = _IMAGE.search(html)
    assert image is not None, html
    links = tuple((target, _path(link)) for link, target in _LINK.findall(html))
    return Letter(address.partition("@")[0], name, message, _path(unsubscribe.strip("<>")), _path(image[1]), links)


def _path(url: str) -> str:
    return urlsplit(url).path
