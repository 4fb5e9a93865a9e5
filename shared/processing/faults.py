"""Named points at which a test kills or stops the process, to prove what survives. Nothing happens where none is named.

`RAPPORT_FAULT=batch.after_commit:3` ends the process with SIGKILL the third time that this point is reached, and first
appends the point's name to the file `RAPPORT_FAULT_PROOF`, so that a test can tell that it was reached. With
`stop@batch.after_commit:3` the process stands still there (SIGSTOP) until somebody makes it go on.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass


@dataclass
class _Armed:
    point: str
    left: int
    signal: signal.Signals


_armed: _Armed | None = None


def reached(point: str) -> None:
    """Mark a point; kill or stop this process here if that was asked for."""
    global _armed
    if _armed is None:
        # Not at the import: a process may be forked from one that has imported everything.
        _armed = _read(os.environ.get("RAPPORT_FAULT", ""))
    if point != _armed.point:
        return
    _armed.left -= 1
    if _armed.left != 0:
        return
    proof = os.environ.get("RAPPORT_FAULT_PROOF")
    if proof:
        with open(proof, "a") as file:
            file.write(point + "\n")
            file.flush()
            os.fsync(file.fileno())
    os.kill(os.getpid(), _armed.signal)


def _read(wish: str) -> _Armed:
    how, _, what = wish.rpartition("@")
    point, _, count = what.partition(":")
    return _Armed(point, int(count or 1), signal.SIGSTOP if how == "stop" else signal.SIGKILL)
