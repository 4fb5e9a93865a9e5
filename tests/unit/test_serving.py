"""What becomes of a service that cannot be started."""

from __future__ import annotations

from typing import Any

import pytest

from services.serving import started


class Door:
    """A service; what was done to it."""

    def __init__(self, *, jams: bool = False) -> None:
        self._jams = jams
        self.done: list[str] = []

    async def start(self) -> None:
        self.done.append("start")
        if self._jams:
            raise OSError("the database is away")

    async def stop(self) -> None:
        self.done.append("stop")


async def test_what_had_begun_of_a_service_that_cannot_be_started_is_ended() -> None:
    door: Any = Door(jams=True)
    with pytest.raises(OSError, match="away"):
        async with started(door):
            door.done.append("open")
    assert door.done == ["start", "stop"]


async def test_a_service_is_stopped_when_it_is_wanted_no_more() -> None:
    door: Any = Door()
    async with started(door):
        door.done.append("open")
    assert door.done == ["start", "open", "stop"]
