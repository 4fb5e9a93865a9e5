"""How fast one write key may post. Pure: a bucket, the time and a number of events -> how long to wait."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class Rate(NamedTuple):
    """Events per second in the long run, and how many more than that may come at once (at least 1)."""

    events: float
    burst: float


_BURST_SECONDS = 10


def rate_of(events: float, burst: float | None = None) -> Rate:
    """Without a `burst`: what ten seconds bring, so that shops which gather their events are not held up."""
    return Rate(events, burst or max(1.0, _BURST_SECONDS * events))


class Bucket:
    """A token bucket that may go into debt: who has one token left posts a whole request, and waits it off.

    So a batch is never too large for a bucket, and in any stretch of time no more events are let in than `burst`, what
    the rate brings in that time, and the one request that went into debt.
    """

    __slots__ = ("_at", "_tokens", "rate")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._tokens = rate.burst
        self._at: datetime | None = None

    @property
    def spent(self) -> bool:
        """Whether no token was left when it was last asked for some; there may be one by now."""
        return self._tokens < 1

    def take(self, events: int, now: datetime) -> float:
        """0 where these events may come, which then are counted; else the seconds after which to ask again.

        With no events it only asks.
        """
        elapsed = 0.0 if self._at is None else (now - self._at).total_seconds()
        # A clock that was set back gives nothing, and takes nothing away.
        self._at = now
        rate, burst = self.rate
        if elapsed > 0 and self._tokens < burst:
            self._tokens = min(burst, self._tokens + elapsed * rate)
        if self._tokens < 1:
            return (1 - self._tokens) / rate
        self._tokens -= events
        return 0.0
