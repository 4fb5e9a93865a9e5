"""How many mails a process has in hand, which of its partitions may take more, and when that is worth a transaction."""

from __future__ import annotations

import asyncio
from typing import Protocol

_GATHERING_SECONDS = 0.02
_TURN_SECONDS = 0.5
_SOON_SECONDS = 0.25
_DEEPEST = 8


class Waiting(Protocol):
    """Who asks for slots. `stir` is set when it should ask again."""

    @property
    def stir(self) -> asyncio.Event: ...

    @property
    def backlog(self) -> bool:
        """It had more to hand over than it could take, the last time that it looked."""
        ...


class Slots:
    """What may be in hand, shared by the partitions of a process: whoever has waited longest takes what is free.

    There is a slot for each of the transport's `connections`, and where mails go out soon after they were taken, up to
    eight: then a transaction is under way for some while others go out. Where the server is slow, nothing is taken that
    would only wait for a connection.

    A transaction for each few mails would cost more than the mails. So a slot that comes free waits a moment for
    others, and who took them may take them again for a while: one transaction records receipts and takes more. Who has
    no backlog has a mail or two, and neither waits for others nor for its turn.
    """

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._count = connections
        self._used = 0
        self._waiting: dict[Waiting, None] = {}
        self._keeper: Waiting | None = None
        self._keeps_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._gathered = False

    def take(self, desk: Waiting) -> int:
        """Every free slot, or 0: then `desk` is stirred when its turn has come."""
        self._waiting.setdefault(desk)
        if self._front() is not desk or not (self._gathered or self._worthwhile or (self._free and not desk.backlog)):
            self._offer()
            return 0
        del self._waiting[desk]
        self._gathered = False
        if self._keeper is None and desk.backlog:
            self._keeper, self._keeps_until = desk, asyncio.get_running_loop().time() + _TURN_SECONDS
        taken = self._free
        self._used += taken
        return taken

    def give_back(self, count: int) -> None:
        self._used -= count
        self._offer()

    def paced(self, seconds: float) -> None:
        """A mail went out this long after it was taken."""
        if seconds <= _SOON_SECONDS:
            self._count = min(self._count + 1, self._connections * _DEEPEST)
        else:
            self._count = max(self._count // 2, self._connections)

    def withdraw(self, desk: Waiting) -> None:
        """This desk has nothing to hand over."""
        self._waiting.pop(desk, None)
        if self._keeper is desk:
            self._keeper = None
        self._offer()

    @property
    def _free(self) -> int:
        return max(0, self._count - self._used)

    @property
    def _worthwhile(self) -> bool:
        return 2 * self._free >= self._count

    def _front(self) -> Waiting | None:
        """Whose turn it is, whether it is waiting now or not."""
        quick = next((desk for desk in self._waiting if not desk.backlog), None)
        if quick is not None:
            return quick
        if self._keeper is not None and asyncio.get_running_loop().time() < self._keeps_until:
            return self._keeper
        self._keeper = None
        return next(iter(self._waiting), None)

    def _offer(self) -> None:
        front = self._front()
        if not self._free or not self._waiting or front is None:
            return
        if front in self._waiting and (self._worthwhile or not front.backlog):
            front.stir.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHERING_SECONDS, self._gathering_over)

    def _gathering_over(self) -> None:
        self._timer = None
        front = self._front()
        if self._free and front is not None and front in self._waiting:
            self._gathered = True
            front.stir.set()
        else:
            self._offer()
