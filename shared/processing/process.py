"""Which process this is, so that its successor on the same machine knows at once that it is gone.

A name is the machine's boot, the namespace that numbers its processes, the number and the time of start: no other
process ever has the same. Only Linux tells; elsewhere a predecessor's heartbeat has to expire.
"""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def this_process() -> str:
    """The name of this process; empty where the system does not tell."""
    return _name(os.getpid())


def is_gone(name: str) -> bool:
    """Whether this was a process of our own machine and namespace, and is none any more."""
    ours, its = this_process().split("/"), name.split("/")
    if len(ours) != 4 or len(its) != 4 or ours[:2] != its[:2]:
        return False
    return _name(int(its[2])) != name


def _name(pid: int) -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink(_PROC / "self/ns/pid")
        # The command's name stands in brackets and may hold anything; the 20th field after it is the start.
        status = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if status[0] == "Z" else f"{boot}/{namespace}/{pid}/{status[19]}"
