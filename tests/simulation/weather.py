"""What goes wrong, and when: drawn from the history's seed, and counted by kind."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from tests.simulation.machine import Process, VirtualLoop

KINDS: dict[str, float] = {
    "database: no connection": 0.02,
    "database: connection cut": 0.004,
    "database: answer lost": 0.004,
    "database: cut before COMMIT": 0.02,
    "database: cut before COMMIT of hand-overs": 0.1,
    "database: COMMIT comes late": 0.02,
    "database: COMMIT of hand-overs is slow": 0.4,
    "database: heard twice": 0.05,
    "database: cut after COMMIT": 0.02,
    "log: append refused": 0.02,
    "log: answer lost": 0.03,
    "log: a beginning taken": 0.02,
    "log: append comes late": 0.02,
    "log: append unanswered": 0.01,
    "log: fetch fails": 0.01,
    "log: silent": 0.005,
    "log: short fetch": 0.03,
    "smtp: no connection": 0.05,
    "smtp: late for DATA": 0.02,
    "smtp: dropped before the dot": 0.06,
    "smtp: 4xx": 0.08,
    "smtp: 5xx": 0.02,
    "smtp: no such address": 0.01,
    "smtp: dropped after the dot, taken": 0.1,
    "smtp: dropped after the dot, lost": 0.1,
    "smtp: silent after the dot": 0.06,
    "call: no connection": 0.05,
    "call: 503": 0.08,
    "call: 410": 0.01,
    "call: answer lost": 0.1,
    "slow": 0.004,
    "killed at append": 0.005,
    "killed at appended": 0.005,
    "killed at append silence": 0.5,
    "killed at commit": 0.005,
    "killed at answer": 0.001,
    "killed at smtp data": 0.01,
    "killed at smtp dot": 0.01,
    "killed at smtp answer": 0.04,
    "killed at call answer": 0.02,
    "stopped at smtp silence": 0.8,
}
"""How likely each is, at every moment at which it could happen."""

_OF_MAILS = ("smtp", "call", "killed at smtp", "killed at call", "stopped", "database: cut", "database: COMMIT")
"""What goes on while mails go out: most do when all else has been done."""

OUTAGES = ("database", "log", "smtp")

_FOR_MAILS = 1.0
"""The roughest that it is for mails alone, which have to go out some time."""


class Weather:
    """`roughness` scales how likely faults are; 0 is fine weather. `for_mails` does where it is fine for all others."""

    def __init__(self, dice: random.Random, loop: VirtualLoop, roughness: float, tell: Callable[[str, str], None]):
        self.dice = dice
        self.roughness = roughness
        self.for_mails = 0.0
        self.injected: Counter[str] = Counter()
        self._loop = loop
        self._tell = tell
        self._away: dict[str, float] = {}
        self._stalled_until = 0.0

    def strikes(self, process: Process, kind: str) -> bool:
        """Whether this fault happens to this process now."""
        roughness = self.roughness
        if not roughness and kind.startswith(_OF_MAILS) and process.name.startswith("mailer"):
            roughness = self.for_mails
        if self.dice.random() >= KINDS[kind] * roughness:
            return False
        self.injected[kind] += 1
        self._tell(process.name, f"! {kind}")
        return True

    def kills(self, process: Process, step: str) -> bool:
        """Whether this process dies at this very step."""
        return f"killed at {step}" in KINDS and self.strikes(process, f"killed at {step}")

    def stops(self, process: Process, step: str) -> bool:
        """Whether this process stands still from this very step on."""
        return f"stopped at {step}" in KINDS and self.strikes(process, f"stopped at {step}")

    def delay(self, process: Process, what: str) -> float:
        """How long something is on its way, in seconds."""
        if self.roughness and self.strikes(process, "slow"):
            return self.dice.uniform(0.2, 7.0)
        stalled = max(0.0, self._stalled_until - self._loop.time()) if what == "database" else 0.0
        return stalled + self.dice.uniform(0.0001, 0.003)

    def begin_outage(self, what: str, seconds: float) -> None:
        self.injected[f"{what} away"] += 1
        self._away[what] = self._loop.time() + seconds

    def begin_stall(self, seconds: float) -> None:
        """What the database answers meanwhile comes when it is over."""
        self.injected["database stalls"] += 1
        self._stalled_until = self._loop.time() + seconds

    def away(self, what: str) -> bool:
        return self._away.get(what, 0.0) > self._loop.time()

    def clear_up(self) -> None:
        """Fine weather from now on; where mails go out, from the second time on."""
        self.for_mails = min(self.roughness, _FOR_MAILS)
        self.roughness = 0.0
        self._away.clear()
