"""Named points at which a test kills the process, to prove what survives. Nothing happens where none is named.

`RAPPORT_FAULT=batch.after_commit:3` ends the process with SIGKILL the third time that this point is reached, and first
appends the point's name to the file `RAPPORT_FAULT_PROOF`, so that a test can tell that it was reached.
"""

from __future__ import annotations

import os
import signal

_name, _, _count = os.environ.get("RAPPORT_FAULT", "").partition(":")
_left = int(_count or 1)


def reached(point: str) -> None:
    """Mark a point; kill this process here if that was asked for."""
    global _left
    if point != _name:
        return
    _left -= 1
    if _left > 0:
        return
    proof = os.environ.get("RAPPORT_FAULT_PROOF")
    if proof:
        with open(proof, "a") as file:
            file.write(point + "\n")
            file.flush()
            os.fsync(file.fileno())
    os.kill(os.getpid(), signal.SIGKILL)
