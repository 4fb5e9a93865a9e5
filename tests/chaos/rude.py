"""What servers that can be rude when told to have in common."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Sequence
from typing import Self

SILENT_SECONDS = 8.0


class RudeServer:
    """`async with …`. Listens on a port of its own; what `_talk` does with a connection is for each kind of server to
    say. Some of what it hears meets with one of `rude`, while it names any of its `ways`."""

    def __init__(self, ways: Sequence[str], seed: int) -> None:
        self.rude: tuple[str, ...] = ()
        self.was_rude: Counter[str] = Counter()
        self._ways = ways
        self._random = random.Random(seed)
        self._sessions: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._sessions.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._talk(reader, writer)
        finally:
            self._sessions.discard(task)
            writer.transport.abort()

    def _rudeness(self, *moments: str) -> str:
        """How this moment goes wrong (any, where none is named), by how a way ends; empty where it does not."""
        ways = [way for way in self.rude if way.endswith(moments or "")]
        if not ways or self._random.random() > len(ways) / len(self._ways):
            return ""
        way = self._random.choice(ways)
        self.was_rude[way] += 1
        return way
