"""What the log says while something is away: one line when it begins, one a minute, one when it is over.

Many meet the same trouble at once, and each again and again: partitions, publishers, heartbeats. They tell it here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any

import structlog

from shared.errors import words_of
from shared.telemetry import WAITING

SAY_AGAIN_SECONDS = 60.0


class Trouble:
    """`what` is what stands still meanwhile; `remedy` what a person may do, or that nothing needs to be done."""

    def __init__(
        self,
        what: str,
        remedy: str,
        *,
        logger: Any = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._remedy, self._now = what, remedy, now
        self._logger = logger or structlog.get_logger()
        self._met_by: set[Hashable] = set()
        self._began = self._said = 0.0
        self._times = 0
        self._error = ""

    def met(self, who: Hashable, error: BaseException | str) -> None:
        """`who` could not go on, and will try again."""
        now = self._now()
        self._error = error if isinstance(error, str) else words_of(error)
        self._times += 1
        begins = not self._met_by
        self._met_by.add(who)
        if begins:
            self._began = self._said = now
            WAITING.labels(self._what).set(1)
            self._logger.warning(f"{self._what} waits", error=self._error, remedy=self._remedy)
        elif now - self._said >= SAY_AGAIN_SECONDS:
            self._said = now
            self._logger.warning(
                f"{self._what} still waits",
                seconds=round(now - self._began),
                times=self._times,
                error=self._error,
                remedy=self._remedy,
            )

    def over(self, who: Hashable) -> None:
        """`who` has gone on, or has ended; the trouble is over when nobody is left who met it."""
        self._leave(who, "goes on")

    def gone(self, who: Hashable) -> None:
        """Nobody waits for `who` any more; whether it has come back nobody knows."""
        self._leave(who, "waits no more")

    def _leave(self, who: Hashable, how: str) -> None:
        if who not in self._met_by:
            return
        self._met_by.discard(who)
        if not self._met_by:
            self._logger.warning(f"{self._what} {how}", seconds=round(self._now() - self._began), times=self._times)
            self._times = 0
            WAITING.labels(self._what).set(0)

    def problems(self, after: float) -> list[str]:
        """For `/readyz`: what has waited for so many seconds, and why; nothing where all goes on."""
        waited = self._now() - self._began
        return [f"{self._what} has waited for {waited:.0f} s: {self._error}"] if self._met_by and waited > after else []
