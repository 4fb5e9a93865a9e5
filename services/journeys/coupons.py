"""Codes of coupons that a partition has claimed and not issued yet, as one batch sees them. Pure.

Codes are claimed from their pools in blocks, beside the batches (`worker`), so that issuing one asks nobody else. Where
a batch needs more than the partition has, the enrollment is parked until more has been claimed; it then goes on as of
when it came to the step.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from shared.language.playbook import CouponPool

SIGNS = "34679CDFGHJKMNPQRTVWXY"
"""What codes are made of: no sign that is easily mistaken for another (0 O, 1 I L, 2 Z, 5 S, 8 B), and no vowel, so
that no code spells a word."""

DRAFT = "DRAFT"
"""The code that a draft gives, which issues none."""


class Issued(NamedTuple):
    """A code, and to whom and for what it was given. `expires_at` is None where the pool says nothing of it."""

    pool: str
    code: str
    customer: str
    journey: str
    enrollment: str
    step: str
    issued_at: datetime
    expires_at: datetime | None


class Stock:
    """`codes` by pool, in the order in which they are issued. `dry` are the pools of which nothing is left to claim.
    `ask` is told at the batch's end of which pools more was needed, and how much."""

    def __init__(
        self,
        codes: Mapping[str, Sequence[str]] | None = None,
        dry: Collection[str] = (),
        ask: Callable[[Counter[str]], None] = lambda short: None,
    ) -> None:
        self._codes = {pool: deque(some) for pool, some in (codes or {}).items()}
        self._dry = dry
        self.issued: list[Issued] = []
        self._short: Counter[str] = Counter()
        self._ask = ask
        self.refused: Counter[str] = Counter()
        """How often a pool was empty."""

    def is_short(self, pool: CouponPool) -> bool:
        """Whether it has to be seen first if there is more of this pool."""
        if self._codes.get(pool.name) or pool.name in self._dry:
            return False
        self._short[pool.name] += 1
        return True

    def take(self, pool: CouponPool) -> str | None:
        """The next code; None where the pool is empty. Ask `is_short` first."""
        codes = self._codes.get(pool.name)
        if not codes:
            self.refused[pool.name] += 1
            return None
        return codes.popleft()

    def close(self) -> None:
        if self._short:
            self._ask(self._short)

    def note(self, issued: Issued) -> None:
        """A code that was taken went to this enrollment."""
        self.issued.append(issued)
