"""Playbooks by content hash: stored by `rapport playbook apply`, in force from an activation in the streams on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Protocol

import cramjam
import msgspec

from shared.contracts import streams
from shared.contracts.events import Activation
from shared.errors import Unavailable
from shared.language import PlaybookInvalid, load
from shared.language.playbook import Playbook
from shared.log.port import Entry, Log
from shared.processing.port import Connection

_LOCK = 0x706C_6179  # one activation at a time, so that every partition sees them in the same order


class PlaybookUnusable(Unavailable):
    """A stream names a playbook that the database does not have, or that this release cannot load. The partition waits:
    no record is at fault."""


class Shelf(Protocol):
    """Where playbooks are found by their content hash."""

    async def get(self, connection: Connection, content_hash: str) -> Playbook:
        """Raises PlaybookUnusable."""
        ...


class PlaybookShelf:
    """The playbooks of this process, loaded once each. A hash never changes its meaning, so nothing expires."""

    def __init__(self) -> None:
        self._loaded: dict[str, Playbook] = {}

    async def get(self, connection: Connection, content_hash: str) -> Playbook:
        """Raises PlaybookUnusable."""
        found = self._loaded.get(content_hash)
        if found is None:
            packed = await connection.fetchval("SELECT files FROM processing.playbooks WHERE hash = $1", content_hash)
            if packed is None:
                raise PlaybookUnusable(f"playbook {content_hash} is not in the database. Restore it.")
            try:
                found = self._loaded[content_hash] = load(_unpack(packed))
            except PlaybookInvalid as error:
                raise PlaybookUnusable(f"this release cannot load playbook {content_hash}: {error}") from error
        return found


async def activate(
    log: Log, connection: Connection, playbook: Playbook, now: datetime, still_in_use: Collection[str] = ()
) -> None:
    """Store `playbook` and switch every partition to it, by a record in each. Running it again is harmless.

    `still_in_use` are the hashes of playbooks under which somebody is in a journey; the one in force is added to them,
    since somebody may enter until the switch."""
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    try:
        await connection.execute(
            "INSERT INTO processing.playbooks (hash, files, stored_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            playbook.hash,
            _pack(playbook.files),
            now,
        )
        keeps = {*still_in_use, *filter(None, [await in_force(connection)])} - {playbook.hash}
        value = msgspec.json.encode(Activation(playbook=playbook.hash, received_at=now, keeps=tuple(sorted(keeps))))
        for partition in range(log.partitions):
            await log.append(streams.EVENTS, partition, [Entry("", value)])
        await connection.execute(
            "UPDATE processing.playbooks SET activated_at = $2 WHERE hash = $1", playbook.hash, now
        )
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


async def in_force(connection: Connection) -> str | None:
    """The hash of the playbook that was activated last, in every partition."""
    found: str | None = await connection.fetchval(
        "SELECT hash FROM processing.playbooks WHERE activated_at IS NOT NULL ORDER BY activated_at DESC LIMIT 1"
    )
    return found


def _pack(files: Mapping[str, bytes]) -> bytes:
    return bytes(cramjam.zstd.compress(msgspec.msgpack.encode(dict(files))))


def _unpack(packed: bytes) -> dict[str, bytes]:
    return msgspec.msgpack.decode(bytes(cramjam.zstd.decompress(packed)), type=dict[str, bytes])
