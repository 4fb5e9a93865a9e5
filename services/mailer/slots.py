"""How many mails a process may have in hand, and when that is worth a transaction."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection
from typing import Protocol

_GATHERING_SECONDS = 0.02
"""How long who has a backlog waits for more slots."""
_SOON_SECONDS = 0.25
"""A mail that goes out within this after it was taken makes room for one more in hand."""
_DEEPEST = 8
"""So many in hand for each connection, at most."""


class Waiting(Protocol):
    """Who asks for slots. `stir` is set when it should ask again."""

    @property
    def stir(self) -> asyncio.Event: ...

    @property
    def backlog(self) -> bool:
        """It had more to hand over than it could take, the last time that it looked."""
        ...

    @property
    def in_hand(self) -> bool:
        """It has slots that it will give back."""
        ...


class Slots:
    """What may be in hand, shared by the partitions of a process.

    A slot is used from the moment that a message is taken until what became of it is recorded. There is one for each of
    the transport's `connections`, and where mails go out soon after they were taken, up to `_DEEPEST`: then a
    transaction is under way for some while others go out. Where the server is slow, nothing is taken that would only
    wait for a connection.

    A transaction for each few mails would cost more than the mails. So who has a backlog waits until half of the slots
    are free, or a moment for more of them; who has a mail or two does not.
    """

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._count = connections
        self._used = 0
        self._waiting: dict[Waiting, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._gathered = False
        self.turns = itertools.count(1)
        """Numbers for those who take some: whose is the least has waited longest."""

    @property
    def count(self) -> int:
        """How many there are at present."""
        return self._count

    def offered(self, desk: Waiting) -> bool:
        """Whether it should take some now. If not, it is stirred when it should."""
        if self._free and (self._worthwhile or self._gathered or not desk.backlog):
            self._waiting.pop(desk, None)
            return True
        self._waiting.setdefault(desk)
        self._offer()
        return False

    def take(self, recorded: int, present: Collection[Waiting] = ()) -> int:
        """Every free slot, and those of what the same transaction records, for those `present` in it. One of the latter
        is left to each who waits elsewhere with nothing in hand: else whoever has slots would take them again until its
        backlog is over."""
        self._gathered = False
        left = sum(not (desk.in_hand or desk in present) for desk in self._waiting)
        taken = max(0, self._count - self._used + max(0, recorded - left))
        self._used += taken
        return taken

    def keep(self, count: int) -> None:
        """So many are in use, whether free or not."""
        self._used += count

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

    def wanted(self, recorded: int) -> bool:
        """Whether somebody waits for slots, and enough of them would be free once so many hand-overs are recorded."""
        return bool(self._waiting) and 2 * (self._count - self._used + recorded) >= self._count

    @property
    def _free(self) -> int:
        return max(0, self._count - self._used)

    @property
    def _worthwhile(self) -> bool:
        return 2 * self._free >= self._count

    def _offer(self) -> None:
        if not self._free or not self._waiting:
            return
        if self._worthwhile or self._gathered or not all(desk.backlog for desk in self._waiting):
            self._stir()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHERING_SECONDS, self._gathering_over)

    def _stir(self) -> None:
        for desk in self._waiting:
            desk.stir.set()
        self._waiting.clear()

    def _gathering_over(self) -> None:
        self._timer = None
        if self._free and self._waiting:
            self._gathered = True
            self._stir()
