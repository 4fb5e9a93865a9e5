"""A process knows what was defined when customers were last brought up, however many playbooks have come and gone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from services.segmenter.definitions import Definitions
from services.segmenter.rules import NOTHING_DEFINED, Definition


class Kept:
    """What the database has; counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: Counter[bytes] = Counter()

    async def fetch(self, _: str, hashes: list[bytes]) -> list[tuple[bytes, bytes]]:
        self.asked.update(hashes)
        return [(hash, msgspec.msgpack.encode(Definition(hash))) for hash in hashes]


async def test_what_is_in_use_is_read_once_and_what_is_not_is_let_go() -> None:
    kept: Any = Kept()
    definitions = Definitions(most=2)
    for hash in (b"used", b"edited", b"used", b"again", b"used", b"edited"):
        assert (await definitions.of(kept, {hash}))[hash].hash == hash
    assert kept.asked == {b"used": 1, b"edited": 2, b"again": 1}


async def test_more_than_are_kept_are_all_there_for_who_asks_for_them_at_once() -> None:
    kept: Any = Kept()
    hashes = {b"%d" % number for number in range(9)}
    assert hashes < (await Definitions(most=2).of(kept, hashes)).keys()


async def test_customers_from_before_any_playbook_need_no_database() -> None:
    kept: Any = Kept()
    assert (await Definitions().of(kept, {b""}))[b""] is NOTHING_DEFINED
    assert not kept.asked
