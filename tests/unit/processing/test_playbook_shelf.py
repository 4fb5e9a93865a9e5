"""A process keeps the playbooks that it uses, however many have come and gone."""

from __future__ import annotations

from collections import Counter
from typing import Any

from shared.language import SHIPPED, playbook_hash, read_folder
from shared.processing.playbooks import PlaybookShelf, _pack


class Kept:
    """What the database has; counts what it is asked for."""

    def __init__(self, versions: int) -> None:
        files = read_folder(SHIPPED)
        self._packed: dict[str, bytes] = {}
        for number in range(versions):
            edited = {**files, "topics.yaml": files["topics.yaml"] + b"\n# edit %d" % number}
            self._packed[playbook_hash(edited)] = _pack(edited)
        self.hashes = list(self._packed)
        self.asked: Counter[str] = Counter()

    async def fetchval(self, _: str, content_hash: str) -> bytes:
        self.asked[content_hash] += 1
        return self._packed[content_hash]


async def test_a_playbook_that_is_in_use_is_loaded_once_and_one_that_is_not_is_let_go() -> None:
    kept: Any = Kept(3)
    used, edited, again = kept.hashes
    shelf = PlaybookShelf(most=2)
    for name in (used, edited, used, again, used, edited):
        assert (await shelf.get(kept, name)).hash == name
    assert kept.asked == {used: 1, edited: 2, again: 1}


async def test_with_journeys_paused_by_hand_it_is_the_same_playbook() -> None:
    kept: Any = Kept(1)
    shelf = PlaybookShelf()
    (name,) = kept.hashes
    paused = [await shelf.get(kept, f"{name}!birthday") for _ in range(2)]
    assert [one.journeys["birthday"].status for one in paused] == ["paused", "paused"]
    assert (await shelf.get(kept, name)).journeys["birthday"].status == "live"
    assert kept.asked == {name: 1}
