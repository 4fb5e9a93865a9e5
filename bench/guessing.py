"""Whether time tells how near a guess is: a key that ends wrongly after all of the right one, or one that begins so.

Both take turns, call by call, with new keys each time, so that nothing has been seen before. What is reported is the
median of each, and by how much they differ, as a part of how far the middle half of either is spread.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import quantiles

from starlette.exceptions import HTTPException
from starlette.requests import Request

from bench.measure import Series
from services.ingest.sources import GivenSources
from shared.http import may_read
from shared.security import hash_key

GUESSES = 100_000


def reading(folder: Path) -> Mapping[str, float]:
    key = secrets.token_urlsafe(24)
    check = may_read(hash_key(key))

    def refused(guess: str) -> None:
        headers = [(b"authorization", f"Bearer {guess}".encode())]
        try:
            check(Request({"type": "http", "headers": headers}), None)
        except HTTPException:
            return
        raise AssertionError("a wrong key may read")

    return _compared(key, refused)


def writing(folder: Path) -> Mapping[str, float]:
    key = secrets.token_urlsafe(24)
    sources = GivenSources({"shop": [key]})

    def refused(guess: str) -> None:
        assert sources.find(guess) is None, "a wrong key may write"

    return _compared(key, refused)


def _compared(key: str, refused: Callable[[str], None]) -> Mapping[str, float]:
    took: dict[bool, list[int]] = {True: [], False: []}
    for number in range(GUESSES):
        tail = f"{number:08x}"
        for near in (True, False) if number % 2 else (False, True):
            guess = key + tail if near else tail + key
            began = time.perf_counter_ns()
            refused(guess)
            took[near].append(time.perf_counter_ns() - began)
    (near_low, alike, near_high), (far_low, unlike, far_high) = quantiles(took[True]), quantiles(took[False])
    spread = max(near_high - near_low, far_high - far_low, 1)
    return {"nearly right": alike, "quite wrong": unlike, "difference": abs(alike - unlike) / spread}


SERIES = (
    Series("guessing a read key", "ns (difference: spreads)", reading, more_is_better=False, rounds=3),
    Series("guessing a write key", "ns (difference: spreads)", writing, more_is_better=False, rounds=3),
)
