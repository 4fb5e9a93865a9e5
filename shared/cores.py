"""How many processes may run at once."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_V1 = ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct")
_V2 = ("sys/fs/cgroup", "sys/fs/cgroup/unified")


def cores(root: Path = Path("/")) -> int:
    """The processors that this process may use: a container is shown all of the machine's, and given less of their time
    by its control group. A part of one counts as one, as the JVM and Go have it. `root` is where /proc and /sys are."""
    shown = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([shown, *map(math.ceil, _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """How many processors' time each control group around this process allows it, where one of them limits it.

    https://docs.kernel.org/admin-guide/cgroup-v2.html and https://docs.kernel.org/scheduler/sched-bwc.html"""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        # A container sees its own group at the top, whatever it is called outside.
        groups = [PurePosixPath(group.lstrip("/")), *PurePosixPath(group.lstrip("/")).parents]
        if not controllers:
            for folder in (root / mount / one for mount in _V2 for one in groups):
                yield from _quotient(_read(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for folder in (root / mount / one for mount in _V1 for one in groups):
                yield from _quotient(_read(folder / "cpu.cfs_quota_us") + " " + _read(folder / "cpu.cfs_period_us"))


def _quotient(said: str) -> Iterator[float]:
    """`100000 100000` is one processor; `max` and -1 are no limit."""
    quota, period = [*said.split(), "", ""][:2]
    if quota.isdecimal() and period.isdecimal() and int(period):
        yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
