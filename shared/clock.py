"""The one place that reads time. Everything below a `main` is given it as an argument."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time, in UTC, and how fast it runs beside the machine's."""

    @property
    def speed(self) -> float:
        """Seconds of this clock for each second of the machine's."""
        ...

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's own time."""

    speed = 1.0

    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass(frozen=True)
class ScaledClock:
    """Time that runs `speed` times as fast as the machine's, counted from an anchor.

    The anchor pairs an instant of the machine's time (`real`) with the instant that this clock showed then
    (`shown`). It is kept with the installation, so a restart carries on and never goes back.
    """

    speed: float
    real: datetime
    shown: datetime

    def now(self) -> datetime:
        return self.shown + (datetime.now(UTC) - self.real) * self.speed


class ManualClock:
    """Time that stands still until it is told to move; for tests and simulations."""

    speed = 1.0

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> datetime:
        self._now += by
        return self._now

    def set(self, to: datetime) -> None:
        self._now = to
