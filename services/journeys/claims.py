"""Claiming codes for a partition, in blocks: the one moment at which partitions meet at a pool."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from services.journeys import store
from services.journeys.coupons import SIGNS
from shared.language.playbook import CouponPool
from shared.processing.port import Connection

BLOCK = 200
"""So many codes are claimed at a time where there is plenty."""

_SHARE = 32
"""Of a pool that ends, a block is at most this part of what is left, so that no partition keeps what others miss."""

_MOST_DRAWS = 50
"""So often codes are drawn anew instead of those that others have; then nearly all of this length are taken."""

Draw = Callable[[CouponPool], str]


def drawn(pool: CouponPool) -> str:
    """A code that nobody can guess."""
    return pool.prefix + "".join(secrets.choice(SIGNS) for _ in range(pool.length))


async def claim(connection: Connection, partition: int, pool: CouponPool, wanted: int, draw: Draw = drawn) -> int:
    """Claim `wanted` codes or more for a partition, in the caller's transaction. How many it got: fewer only where the
    pool has no more."""
    claimed = await store.begin_claim(connection, pool.name)
    if pool.codes is not None:
        left = len(pool.codes) - claimed
        found = await store.unclaimed(connection, pool.name, pool.codes, _block(wanted, left))
        return await store.claim_codes(connection, partition, pool.name, found) if found else 0
    room = None if pool.limit is None else max(pool.limit - claimed, 0)
    want = _block(wanted, room) if room is None else min(_block(wanted, room), room)
    got = 0
    for _ in range(_MOST_DRAWS):
        if got >= want:
            break
        fresh = list({draw(pool) for _ in range(want - got)})
        got += await store.claim_codes(connection, partition, pool.name, fresh)
    return got


def _block(wanted: int, left: int | None) -> int:
    """How many to claim. A list that was edited may hold more than the count says: what is wanted is looked for."""
    if left is None:
        return max(wanted, BLOCK)
    return max(wanted, min(BLOCK, left // _SHARE))
