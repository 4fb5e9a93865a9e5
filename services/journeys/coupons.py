"""Codes of coupons that a partition has claimed and not issued yet, as one batch sees them. Pure.

Codes are claimed from their pools in blocks, so that issuing one asks nobody else. Where a batch needs more than the
partition has, more is claimed before anything of it is written, and it is computed anew (`worker`): so nobody waits for
a code, and what is decided is what would have been with all codes at hand.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
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


class Short(NamedTuple):
    """So many codes of a pool more than there were have been wanted."""

    pool: CouponPool
    wanted: int


class Stock:
    """`codes` by pool, in the order in which they are issued. `dry` are the pools, by name, of which nothing is left to
    claim: as long as they are those very ones, which no other playbook has refilled."""

    def __init__(
        self, codes: Mapping[str, Sequence[str]] | None = None, dry: Mapping[str, CouponPool] | None = None
    ) -> None:
        self._codes = {pool: deque(some) for pool, some in (codes or {}).items()}
        self._dry = dry or {}
        self.issued: list[Issued] = []
        self.short: dict[str, Short] = {}
        """By pool, what it is worth looking for before the batch counts."""
        self.refused: Counter[str] = Counter()
        """How often a pool was empty."""

    def take(self, pool: CouponPool, cause: str) -> str | None:
        """The next code, whatever it is for; None where there is none."""
        codes = self._codes.get(pool.name)
        if codes:
            return codes.popleft()
        self.refused[pool.name] += 1
        if self._dry.get(pool.name) is not pool:
            before = self.short.get(pool.name)
            self.short[pool.name] = Short(pool, 1 + (before.wanted if before else 0))
        return None

    def note(self, issued: Issued) -> None:
        """A code that was taken went to this enrollment."""
        self.issued.append(issued)
