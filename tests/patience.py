"""Waiting for a condition, and not for time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from aiokafka.errors import KafkaError

from shared.errors import Unavailable

PATIENCE = 120.0
"""Seconds. What has not come by then does not come, however busy others keep the machine."""


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = PATIENCE, what: str = "the condition") -> Any:
    """Ask again and again; gives the first answer that is true."""
    deadline = time.monotonic() + seconds
    pause = 0.005
    while not (found := await condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        await asyncio.sleep(pause)
        pause = min(0.05, 1.2 * pause)  # who asks all the time slows down what is asked about
    return found


async def answered(ask: Callable[[], Awaitable[object]], what: str) -> None:
    """Ask a server again and again, since it may have much else to do."""

    async def once() -> bool:
        with suppress(Unavailable, KafkaError, OSError):
            await ask()
            return True
        return False

    await until(once, what=what)
