"""How long to wait before what failed is tried again, where nobody says when it may succeed."""

from __future__ import annotations

import random

_FIRST_SECONDS = 0.1


def back_off(failures: int, most: float = 5.0) -> float:
    """Seconds after so many failures in a row (1 and more): twice as many after each, up to `most`; up to half of it is
    left off by chance, so that those who failed together do not come back together."""
    return min(most, _FIRST_SECONDS * 2.0 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0)
