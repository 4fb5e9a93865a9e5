"""Who gets what is handed over: how much of it each may have at one time, and who is away.

Mails, text messages and notifications go to one server each, whose address is in the settings. Webhooks go to many: one
that is silent keeps each call for 20 seconds, and must not keep the calls to others waiting.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from services.mailer.transport import THE_SERVER, Deferred, Receipt
from shared.trouble import Trouble


class Receivers:
    """Those of one channel. One of many has half of the `connections` at most, and half of what may be in hand.

    `away` says that somebody is. Nothing waits for one that has not been called for `patience_seconds`, the longest
    pause between two attempts: what was for it has ended, or is another process's by now."""

    def __init__(self, away: Trouble, connections: int, patience_seconds: float) -> None:
        self._trouble = away
        self._connections = connections
        self._patience_seconds = patience_seconds
        self._called: Counter[str] = Counter()
        self._in_hand: Counter[str] = Counter()
        self._away: dict[str, asyncio.TimerHandle] = {}

    def may_be_called(self, receiver: str) -> bool:
        """Whether it may have one connection more."""
        return receiver == THE_SERVER or self._called[receiver] < _half(self._connections)

    def room(self, receiver: str, slots: int) -> int:
        """How much more for it may come in hand, where there are so many slots."""
        return slots if receiver == THE_SERVER else _half(slots) - self._in_hand[receiver]

    def is_away(self, receiver: str) -> bool:
        return receiver in self._away

    def take(self, receiver: str) -> None:
        """Something for it has come in hand."""
        self._in_hand[receiver] += 1

    def call(self, receiver: str) -> None:
        self._called[receiver] += 1

    def hang_up(self, receiver: str) -> None:
        _less(self._called, receiver)

    def let_go(self, receiver: str) -> None:
        """Something for it is in hand no more."""
        _less(self._in_hand, receiver)

    def came_to(self, receiver: str, receipt: Receipt) -> None:
        """What a hand-over to it has come to, which may say that it is away."""
        timer = self._away.pop(receiver, None)
        if timer is not None:
            timer.cancel()
        if isinstance(receipt, Deferred) and receipt.reason not in ("deferred", "greylisted"):
            self._trouble.met(receiver, f"{receiver} {receipt.reason}: {receipt.reply}".lstrip())
            later = asyncio.get_running_loop().call_later
            self._away[receiver] = later(self._patience_seconds, self._forget, receiver)
        else:
            self._trouble.over(receiver)

    def close(self) -> None:
        for timer in self._away.values():
            timer.cancel()

    def _forget(self, receiver: str) -> None:
        del self._away[receiver]
        self._trouble.gone(receiver)


def _half(of: int) -> int:
    return max(1, of // 2)


def _less(counter: Counter[str], receiver: str) -> None:
    counter[receiver] -= 1
    if not counter[receiver]:
        del counter[receiver]
