"""Playbooks by content hash: stored by `rapport playbook apply`, in force from an activation in the streams on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

import cramjam
import msgspec

from shared.contracts import streams
from shared.contracts.events import Activation
from shared.errors import RapportError, Unavailable
from shared.language import PlaybookInvalid, load
from shared.language.changes import compare
from shared.language.folder import NAMED_BY
from shared.language.playbook import Playbook
from shared.log.port import Entry, Log
from shared.processing.port import Connection
from shared.recent import Recent

MOST_LOADED = 500
"""Playbooks, and what a service makes of each, that a process keeps at hand: those that were asked for last."""

_AND_PAUSED = "!"
_LOCK = 0x706C_6179  # one activation at a time, so that every partition sees them in the same order


class PlaybookUnusable(Unavailable):
    """A stream names a playbook that the database does not have, or that this release cannot load. The partition waits:
    no record is at fault."""


def name_in_force(playbook: str, paused: Sequence[str]) -> str:
    """The name that a playbook (a hash) goes by while these of its journeys are paused by hand: the hash alone where
    none is."""
    return _AND_PAUSED.join((playbook, *paused))


def hash_of(name: str) -> str:
    """The playbook's hash in such a name."""
    return name.partition(_AND_PAUSED)[0]


def paused_in(name: str) -> list[str]:
    """The journeys that are paused by hand under such a name."""
    return name.split(_AND_PAUSED)[1:]


class Shelf(Protocol):
    """Where playbooks are found by their content hash, or by the name that they are in force under."""

    async def get(self, connection: Connection, name: str) -> Playbook:
        """Raises PlaybookUnusable."""
        ...


class PlaybookShelf:
    """The playbooks of this process: the `most` that were asked for last stay loaded, at some 150 KB each. A hash never
    changes its meaning, so none of them is ever out of date."""

    def __init__(self, most: int = MOST_LOADED) -> None:
        self._loaded: Recent[Playbook] = Recent(most)

    async def get(self, connection: Connection, name: str) -> Playbook:
        """Raises PlaybookUnusable."""
        return self._loaded.get(name) or self._loaded.keep(name, await self._load(connection, name))

    async def _load(self, connection: Connection, name: str) -> Playbook:
        content_hash, paused = hash_of(name), paused_in(name)
        found = self._loaded.get(content_hash)
        if found is None:
            packed = await connection.fetchval("SELECT files FROM processing.playbooks WHERE hash = $1", content_hash)
            if packed is None:
                raise PlaybookUnusable(f"playbook {content_hash} is not in the database. Restore it.")
            try:
                found = self._loaded.keep(content_hash, load(_unpack(packed)))
            except PlaybookInvalid as error:
                raise PlaybookUnusable(f"this release cannot load playbook {content_hash}: {error}") from error
        return found.pausing(paused) if paused else found


async def activate(
    log: Log,
    connection: Connection,
    playbook: Playbook,
    now: datetime,
    still_in_use: Collection[str] = (),
    *,
    by: str = "",
    paused: Collection[str] | None = None,
    moves: Collection[str] = (),
) -> str:
    """Store `playbook` and switch every partition to it, by a record in each. Running it again is harmless.

    `still_in_use` are the hashes of playbooks under which somebody is in a journey; the one in force is added to them,
    since somebody may enter until the switch. `by` says who or what applies it. `paused` are the journeys that are
    paused by hand; None leaves those that are. Who is inside an older version of one of `moves` is taken along. Returns
    what changes thereby."""
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    try:
        await connection.execute(
            "INSERT INTO processing.playbooks (hash, files, stored_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            playbook.hash,
            _pack(playbook.files),
            now,
        )
        before = await in_force(connection)
        held = await paused_by_hand(connection)
        pausing = held if paused is None else tuple(sorted(paused))
        parts = [
            *(f"paused {name}" for name in pausing if name not in held),
            *(f"resumed {name}" for name in held if name not in pausing),
            *(f"moved those inside {name}" for name in sorted(moves)),
        ]
        if before != playbook.hash or not parts:
            parts.insert(0, await _summary(connection, before, playbook))
        summary = "; ".join(parts)
        keeps = {*still_in_use, *filter(None, [before])} - {playbook.hash}
        activation = Activation(
            playbook=playbook.hash,
            received_at=now,
            keeps=tuple(sorted(keeps)),
            paused=pausing,
            moves=tuple(sorted(moves)),
            # A release that knows neither waits for one that does.
            v=2 if pausing or moves else 1,
        )
        value = msgspec.json.encode(activation)
        for partition in range(log.partitions):
            await log.append(streams.EVENTS, partition, [Entry("", value)])
        await connection.execute(
            "INSERT INTO processing.activations (playbook, at, by, summary, paused) VALUES ($1, $2, $3, $4, $5)",
            playbook.hash,
            now,
            by,
            summary,
            pausing,
        )
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)
    return summary


async def in_force(connection: Connection) -> str | None:
    """The hash of the playbook that was activated last, in every partition."""
    found: str | None = await connection.fetchval(
        "SELECT playbook FROM processing.activations ORDER BY id DESC LIMIT 1"
    )
    return found


async def paused_by_hand(connection: Connection) -> tuple[str, ...]:
    """The journeys that somebody has paused without the playbook, in the order of their names."""
    found = await connection.fetchval("SELECT paused FROM processing.activations ORDER BY id DESC LIMIT 1")
    return tuple(found or ())


class Applied(NamedTuple):
    """A time that a playbook came into force, by whom or what, and how it differs from the one before."""

    playbook: str
    at: datetime
    by: str
    summary: str


async def history(connection: Connection, limit: int) -> list[Applied]:
    """The latest first; the first of all is in force."""
    rows = await connection.fetch(
        "SELECT playbook, at, by, summary FROM processing.activations ORDER BY id DESC LIMIT $1", limit
    )
    return [Applied(*row) for row in rows]


async def named(connection: Connection, beginning: str) -> str:
    """The hash of the one playbook that was ever applied whose hash begins so. Raises RapportError."""
    rows = await connection.fetch(
        "SELECT hash FROM processing.playbooks WHERE starts_with(hash, $1) ORDER BY stored_at DESC LIMIT 2",
        beginning.lower(),
    )
    if len(rows) == 1:
        found: str = rows[0]["hash"]
        return found
    fact = f"several playbooks begin with {beginning!r}" if rows else f"no playbook begins with {beginning!r}"
    raise RapportError(f"{fact}. `rapport playbook history` lists those that were applied.")


async def files_of(connection: Connection, beginnings: Collection[str]) -> dict[str, dict[str, bytes]]:
    """The files of the playbooks whose hashes begin so, by that beginning; of those that are kept."""
    rows = await connection.fetch(
        "SELECT b.beginning, p.files FROM unnest($1::text[]) AS b (beginning)"
        " JOIN processing.playbooks p ON starts_with(p.hash, b.beginning)",
        list(beginnings),
    )
    return {row["beginning"]: _unpack(row["files"]) for row in rows}


async def _summary(connection: Connection, before: str | None, after: Playbook) -> str:
    """How a playbook differs from the one in force."""
    if before is None:
        return "the first"
    if before == after.hash:
        return "applied anew"
    try:
        return compare(await PlaybookShelf().get(connection, before), after).summary
    except PlaybookUnusable:
        # Going on from it is what mends it.
        return f"instead of {before[:NAMED_BY]}, which this release cannot load"


def _pack(files: Mapping[str, bytes]) -> bytes:
    return bytes(cramjam.zstd.compress(msgspec.msgpack.encode(dict(files))))


def _unpack(packed: bytes) -> dict[str, bytes]:
    return msgspec.msgpack.decode(bytes(cramjam.zstd.decompress(packed)), type=dict[str, bytes])
