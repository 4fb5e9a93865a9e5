"""Who is called, a real server: the shop's own address, and the gateways of text messages and notifications. It can be
rude when told to, and writes down every call that it has read to its end."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from base64 import b64decode, b64encode

import msgspec

from tests.chaos.calls import Call, Cause
from tests.chaos.ledger import Ledger
from tests.chaos.rude import SILENT_SECONDS, RudeServer

RUDENESS = (
    "hangs up before the call",
    "hangs up after the call",
    "answers 4xx",
    "answers 410",
    "answers 5xx",
    "answers nonsense",
    "answers nothing",
)
SECRET = "whsec_" + b64encode(b"what only the two of us know....").decode()
_STATUS = {"answers 4xx": 422, "answers 410": 410, "answers 5xx": 503}
_MISSING = ("webhook-id", "webhook-timestamp", "webhook-signature")


class Receiver(RudeServer):
    """`async with Receiver(ledger, seed) as receiver:`. Some calls meet with one of `rude`, while it names any."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        super().__init__(RUDENESS, seed)
        self._ledger = ledger

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await self._take(reader, writer):
            pass

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One call; whether the connection goes on."""
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        way = self._rudeness()
        if way == "hangs up before the call":
            return False
        given = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(given["content-length"]))
        call = Call(given.get("webhook-id", ""), _cause(first.split()[1], body), body, _is_signed(given, body))
        self._ledger.calls.append(call)
        if way == "answers nothing":
            await asyncio.sleep(SILENT_SECONDS)
        if way in ("answers nothing", "hangs up after the call"):
            return False
        if way == "answers nonsense":
            writer.write(b"who knows?\r\n\r\n")
            await writer.drain()
            return False
        # Written down before it is said: what was said to a dead socket was said.
        call.answer = _STATUS.get(way, 200)
        writer.write(f"HTTP/1.1 {call.answer} so\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        return True


def _cause(path: str, body: bytes) -> Cause:
    said = msgspec.json.decode(body)
    if path == "/webhook":
        return f"webhook:{said['step']}", said["key"]
    message, about = (said["text"] if path == "/sms" else said["title"]).split()
    return f"{path[1:]}:{message}", about


def _is_signed(given: dict[str, str], body: bytes) -> bool:
    """After https://www.standardwebhooks.com/."""
    if any(name not in given for name in _MISSING):
        return False
    id, timestamp, signature = (given[name] for name in _MISSING)
    key = b64decode(SECRET.removeprefix("whsec_"))
    right = b64encode(hmac.digest(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)).decode()
    return f"v1,{right}" in signature.split()
