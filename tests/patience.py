"""Waiting for a condition, and not for time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

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
