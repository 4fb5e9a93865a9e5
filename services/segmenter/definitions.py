"""What was defined when customers were last brought up to date, for a process that runs for years."""

from __future__ import annotations

from collections.abc import Collection

from services.segmenter import store
from services.segmenter.rules import NOTHING_DEFINED, Definition
from shared.processing.playbooks import MOST_LOADED
from shared.processing.port import Connection
from shared.recent import Recent


class Definitions:
    """By hash: the `most` that were asked for last stay in memory. A hash never changes its meaning."""

    def __init__(self, most: int = MOST_LOADED) -> None:
        self._known: Recent[Definition] = Recent(most)

    async def of(self, connection: Connection, hashes: Collection[bytes]) -> dict[bytes, Definition]:
        found = {NOTHING_DEFINED.hash: NOTHING_DEFINED}
        for hash in hashes:
            known = self._known.get(hash)
            if known is not None:
                found[hash] = known
        unknown = set(hashes) - found.keys()
        if unknown:
            for hash, definition in (await store.definitions(connection, unknown)).items():
                found[hash] = self._known.keep(hash, definition)
        return found
