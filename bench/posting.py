"""A client that posts as fast as it is answered, over a few dozen connections that stay open: no more than the bytes.

Parsing an answer would cost as much as giving it, so an answer is told by its first bytes and by its known length.
"""

from __future__ import annotations

import asyncio
import resource
from base64 import b64encode
from collections.abc import Sequence
from itertools import count
from time import perf_counter
from typing import NamedTuple, cast


class Posted(NamedTuple):
    """How many requests were answered 200 in how many seconds, and how busy (0 to 1) this process was with asking."""

    answers: int
    seconds: float
    busy: float


def request(path: str, body: bytes, key: str = "key") -> bytes:
    """A whole request, as it goes over the wire."""
    user = b64encode(f"{key}:".encode()).decode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Basic {user}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def post(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Posted:
    """Post `requests` over and over for so long, each connection one at a time. Raises where an answer is not 200."""
    loop = asyncio.get_running_loop()
    turn = count()
    clients: list[_Client] = []
    await _listening(port)
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: _Client(requests, turn), "127.0.0.1", port)
        clients.append(client)
    begun, used = perf_counter(), _used()
    for client in clients:
        client.ask()
    await asyncio.sleep(seconds)
    answers = sum(client.answers for client in clients)
    took, busy = perf_counter() - begun, _used() - used
    wrong = next((client.wrong for client in clients if client.wrong), None)
    # Those that are still in hand are waited for, so that the server has nothing left to do.
    await asyncio.wait([client.end() for client in clients], timeout=15)
    if wrong is not None:
        raise RuntimeError(f"the server answers {wrong!r}")
    return Posted(answers, took, busy / took)


async def _listening(port: int) -> None:
    """Returns when somebody listens there; raises OSError where nobody does for ten seconds."""
    deadline = perf_counter() + 10
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            if perf_counter() > deadline:
                raise
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


class _Client(asyncio.Protocol):
    """Asks again as soon as it is answered."""

    def __init__(self, requests: Sequence[bytes], turn: count[int]) -> None:
        self._requests, self._turn = requests, turn
        self._ended: asyncio.Future[None] | None = None
        self.answers = 0
        self.wrong: bytes | None = None
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self) -> None:
        self._transport.write(self._requests[next(self._turn) % len(self._requests)])

    def data_received(self, data: bytes) -> None:
        # Head and body may come in two pieces; every body here ends with a brace, and no head does.
        self._head = self._head or data
        if not data.endswith(b"}"):
            return
        if not self._head.startswith(b"HTTP/1.1 200 "):
            self.wrong = self._head + data
        self._head = b""
        self.answers += 1
        if self._ended is not None:
            self._transport.close()
        elif self.wrong is None:
            self.ask()

    def connection_lost(self, error: Exception | None) -> None:
        if self._ended is None:
            self.wrong = self.wrong or b"nothing, and closes the connection"
        elif not self._ended.done():
            self._ended.set_result(None)

    def end(self) -> asyncio.Future[None]:
        """Ask no more; done when the last answer has come."""
        self._ended = asyncio.get_running_loop().create_future()
        if self.wrong is not None or self._transport.is_closing():
            self._transport.close()
            self._ended.set_result(None)
        return self._ended


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
