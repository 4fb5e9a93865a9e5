"""A wire between a client and a server on this machine, that a test can cut, or make silent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Wire:
    """Listens on `port` and passes bytes to and from whatever port `target` names at the time."""

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._whole = True
        self._ends: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.cut()
        self.speak()
        if self._carrying:
            await asyncio.wait(self._carrying)
        await self._server.wait_closed()

    def cut(self) -> None:
        """End every connection, and every new one at once."""
        self._whole = False
        for end in self._ends:
            end.transport.abort()

    def hush(self) -> None:
        """Pass nothing on, and keep the connections open."""
        self._open.clear()

    def speak(self) -> None:
        self._open.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target())
        except OSError:
            writer.transport.abort()
            return
        for start, end in ((reader, far_writer), (far_reader, writer)):
            self._ends.add(end)
            task = asyncio.create_task(self._carry(start, end))
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)

    async def _carry(self, start: asyncio.StreamReader, end: asyncio.StreamWriter) -> None:
        try:
            while data := await start.read(1 << 16):
                await self._open.wait()
                end.write(data)
                await end.drain()
        except OSError:
            pass
        finally:
            self._ends.discard(end)
            end.close()
