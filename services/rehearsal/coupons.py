"""Pools of coupons where nobody shares them. The same is drawn in every rehearsal."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b

from services.journeys.coupons import SIGNS, Issued, Stock
from shared.language.playbook import CouponPool


class WholePools(Stock):
    """All pools, whole; codes go in the order in which they are wanted. `given` counts what was issued of each."""

    def __init__(self) -> None:
        super().__init__()
        self.given: Counter[str] = Counter()

    def take(self, pool: CouponPool, cause: str) -> str | None:
        number = self.given[pool.name]
        limit = most_of(pool)
        if limit is not None and number >= limit:
            self.refused[pool.name] += 1
            return None
        self.given[pool.name] += 1
        return self._code(pool, number, cause)

    def note(self, issued: Issued) -> None:
        pass

    def _code(self, pool: CouponPool, number: int, cause: str) -> str:
        if pool.codes is not None:
            return pool.codes[number]
        return _code_of(pool, _drawn(f"{pool.name}\n{number}"))


class PoolsByCause(WholePools):
    """Which code it is depends on what it is for, and not on how many were given before, so that customers can be
    rehearsed apart. There are as many as the pool has; two may get the same."""

    def _code(self, pool: CouponPool, number: int, cause: str) -> str:
        drawn = _drawn(f"{pool.name}\n{cause}")
        return _code_of(pool, drawn) if pool.codes is None else pool.codes[drawn % len(pool.codes)]


def most_of(pool: CouponPool) -> int | None:
    """How many codes there are at most."""
    return pool.limit if pool.codes is None else len(pool.codes)


def _drawn(text: str) -> int:
    return int.from_bytes(blake2b(text.encode()).digest())


def _code_of(pool: CouponPool, drawn: int) -> str:
    return pool.prefix + "".join(SIGNS[drawn // len(SIGNS) ** place % len(SIGNS)] for place in range(pool.length))
