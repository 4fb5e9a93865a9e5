"""Who of a process's partitions may use the transport's connections, and when that is worth a transaction."""

from __future__ import annotations

import asyncio
from typing import Protocol

GATHERING_SECONDS = 0.005
"""How long what comes free waits for more of its kind."""

_TURN_SECONDS = 0.05


class Waiting(Protocol):
    """Who asks for connections. `stir` is set when it should ask again."""

    @property
    def stir(self) -> asyncio.Event: ...


class Slots:
    """The transport's connections, which the partitions of a process share: whoever has waited longest takes them.

    A transaction for each few mails would cost more than the mails. So a slot that comes free waits a moment for
    others, and who took them may take them again for a while: one transaction records receipts and takes more.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._worthwhile = (count + 1) // 2
        self._waiting: dict[Waiting, None] = {}
        self._keeper: Waiting | None = None
        self._keeps_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._gathered = False

    def take(self, desk: Waiting) -> int:
        """Every free slot, or 0: then `desk` is stirred when its turn has come."""
        self._waiting.setdefault(desk)
        if self._front() is not desk or not (self._gathered or self._free >= self._worthwhile):
            self._offer()
            return 0
        del self._waiting[desk]
        self._gathered = False
        if self._keeper is None:
            self._keeper, self._keeps_until = desk, asyncio.get_running_loop().time() + _TURN_SECONDS
        taken, self._free = self._free, 0
        return taken

    def give_back(self, count: int) -> None:
        self._free += count
        self._offer()

    def withdraw(self, desk: Waiting) -> None:
        """This desk has nothing to hand over."""
        self._waiting.pop(desk, None)
        if self._keeper is desk:
            self._keeper = None
        self._offer()

    def _front(self) -> Waiting | None:
        """Whose turn it is, whether it is waiting now or not."""
        if self._keeper is not None and asyncio.get_running_loop().time() < self._keeps_until:
            return self._keeper
        self._keeper = None
        return next(iter(self._waiting), None)

    def _offer(self) -> None:
        front = self._front()
        if not self._free or not self._waiting or front is None:
            return
        if front in self._waiting and self._free >= self._worthwhile:
            front.stir.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHERING_SECONDS, self._gathering_over)

    def _gathering_over(self) -> None:
        self._timer = None
        front = self._front()
        if self._free and front is not None and front in self._waiting:
            self._gathered = True
            front.stir.set()
        else:
            self._offer()
