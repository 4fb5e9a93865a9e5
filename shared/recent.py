"""What is cheap to keep and can be made again, for a process that runs for years."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Recent(Generic[Made]):
    """By name, the `most` that were asked for last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._made: dict[Hashable, Made] = {}
        """Whoever was asked for last stands last."""

    def get(self, name: Hashable) -> Made | None:
        found = self._made.pop(name, None)
        if found is not None:
            self._made[name] = found
        return found

    def keep(self, name: Hashable, made: Made) -> Made:
        self._made.pop(name, None)
        self._made[name] = made
        while len(self._made) > self._most:
            del self._made[next(iter(self._made))]
        return made
