"""Proxies that stand between the workers and their servers: slow, silent, or cutting just where it hurts most."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

_CHUNK = 1 << 16
_COMMAND = re.compile(rb"Q....(BEGIN|COMMIT|ROLLBACK);?\0$", re.DOTALL)
_FENCE = re.compile(rb"P....(\w+)\0[^\0]*fenced AS \(", re.DOTALL)
_BIND = re.compile(rb"B....\0(\w+)\0", re.DOTALL)
_PRODUCE = 0  # Kafka's api key


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    pid: int = 0
    """Of the worker, where the protocol tells it."""
    doomed: bool = False
    """What the server says next does not get through whole, and is the last."""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def cut(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


class Between:
    """A proxy on a port of its own, to wherever `target` says at the time.

    `delay` (seconds) holds back every chunk in both directions. While `passing` is not set nothing gets through, and
    connections stay open. `silent_for` does so to some processes alone.
    """

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self.delay = 0.0
        self.passing = asyncio.Event()
        self.passing.set()
        self.silent_for: set[int] = set()
        self.cuts_before = 0
        """How many of the next decisive requests are cut off before the server has them."""
        self.cuts_after = 0
        """How many are cut off before the client has the answer."""
        self.cut = 0
        """How many were, all in all."""
        self._connections: set[_Connection] = set()

    async def __aenter__(self) -> Between:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.cut()
            for task in connection.tasks:
                task.cancel()
            await asyncio.gather(*connection.tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target())
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(writer, to_server)
        self._connections.add(connection)
        connection.tasks = [
            asyncio.create_task(self._pump(reader, to_server, connection, self._ask(connection))),
            asyncio.create_task(self._pump(from_server, writer, connection, self._answer(connection))),
        ]
        try:
            await asyncio.wait(connection.tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            connection.cut()
            for task in connection.tasks:
                task.cancel()
            await asyncio.gather(*connection.tasks, return_exceptions=True)
            self._connections.discard(connection)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: _Connection,
        see: Callable[[bytes], bytes | None],
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self.passing.wait()
                while connection.pid in self.silent_for:
                    await asyncio.sleep(0.05)
                passed = see(data)
                writer.write(data if passed is None else passed)
                if passed is not None:
                    self.cut += 1
                    await writer.drain()
                    return
                await writer.drain()

    def _decide(self, connection: _Connection) -> bytes | None:
        """A decisive request is about to go to the server: b"" cuts it off."""
        if self.cuts_before > 0:
            self.cuts_before -= 1
            return b""
        if self.cuts_after > 0:
            self.cuts_after -= 1
            connection.doomed = True
        return None

    def _ask(self, connection: _Connection) -> Callable[[bytes], bytes | None]:
        return lambda data: None

    def _answer(self, connection: _Connection) -> Callable[[bytes], bytes | None]:
        # Half of it: the rest is what the client waits for.
        return lambda data: data[: len(data) // 2] if connection.doomed else None


class BeforePostgres(Between):
    """What is decisive here is COMMIT, and a statement that is fenced and committed by itself."""

    def _ask(self, connection: _Connection) -> Callable[[bytes], bytes | None]:
        fenced: set[bytes] = set()
        inside = False

        def see(data: bytes) -> bytes | None:
            nonlocal inside
            if not connection.pid and (found := re.search(rb"application_name\0rapport-(\d+)\0", data)):
                connection.pid = int(found[1])
            if prepared := _FENCE.search(data):
                fenced.add(prepared[1])
            if command := _COMMAND.match(data):
                inside = command[1] == b"BEGIN"
                return self._decide(connection) if command[1] == b"COMMIT" else None
            bound = _BIND.match(data)
            return self._decide(connection) if bound and bound[1] in fenced and not inside else None

        return see


class BeforeKafka(Between):
    """What is decisive here is an append."""

    def _ask(self, connection: _Connection) -> Callable[[bytes], bytes | None]:
        begun = b""
        left = 0  # bytes of the request that is under way

        def see(data: bytes) -> bytes | None:
            nonlocal begun, left
            appends = False
            data = begun + data
            while data:
                if left:
                    left, data = max(0, left - len(data)), data[left:]
                elif len(data) < 6:
                    break
                else:
                    appends = appends or int.from_bytes(data[4:6], "big") == _PRODUCE
                    left = 4 + int.from_bytes(data[:4], "big")
            begun = data
            return self._decide(connection) if appends else None

        return see
