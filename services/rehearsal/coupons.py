"""Pools of coupons where nobody shares them: codes are drawn in the order in which they are wanted, always the same."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b

from services.journeys.coupons import SIGNS, Issued, Stock
from shared.language.playbook import CouponPool


class WholePools(Stock):
    """All pools, whole. `given` counts what was issued of each."""

    def __init__(self) -> None:
        super().__init__()
        self.given: Counter[str] = Counter()

    def take(self, pool: CouponPool) -> str | None:
        number = self.given[pool.name]
        limit = pool.limit if pool.codes is None else len(pool.codes)
        if limit is not None and number >= limit:
            self.refused[pool.name] += 1
            return None
        self.given[pool.name] += 1
        if pool.codes is not None:
            return pool.codes[number]
        drawn = int.from_bytes(blake2b(f"{pool.name}\n{number}".encode()).digest())
        return pool.prefix + "".join(SIGNS[drawn // len(SIGNS) ** place % len(SIGNS)] for place in range(pool.length))

    def note(self, issued: Issued) -> None:
        pass
