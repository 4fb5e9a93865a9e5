"""The segmenter's part of a customer's story: who they are now, and what in their past decided something."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from services.segmenter import history, store
from services.segmenter.history import Kind, Row
from services.segmenter.profile import Profile, snapshot
from services.segmenter.rules import NO_RULES, Rules, compile_rules
from shared.contracts.events import EMPTY
from shared.contracts.story import Happened, Remembered
from shared.processing import playbooks
from shared.processing.playbooks import Shelf
from shared.processing.port import Connection

MOST = 2_000
"""Rows of one customer that are told, the newest of them."""
MOST_NAMED = 20
"""Events of each name that was asked for, the newest of them."""


class Rulebook:
    """The rules of the playbook in force, made once for each that comes into force."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._made: tuple[str, Rules] = ("", NO_RULES)

    async def rules(self, connection: Connection) -> Rules:
        in_force = await playbooks.in_force(connection)
        if in_force is not None and self._made[0] != in_force:
            self._made = in_force, compile_rules(await self._shelf.get(connection, in_force))
        return self._made[1]


async def remembered(
    connection: Connection, rulebook: Rulebook, partition: int, key: str, since: datetime, names: Sequence[str]
) -> Remembered:
    """What decided something since then, and the latest events of these names, whatever they decided."""
    profile = await store.profile(connection, partition, key)
    if profile is None:
        return Remembered()
    rows = await store.decisive(connection, partition, key, since, MOST)
    for name in names:
        rows += await store.latest_of_name(connection, partition, key, name, since, MOST_NAMED)
    return _remembered(key, profile, await rulebook.rules(connection), rows)


def _remembered(key: str, profile: Profile, rules: Rules, rows: Iterable[Row]) -> Remembered:
    by_place = {(row.occurred_at, row.kind, row.id, row.source): _happened(row) for row in rows}
    past = sorted(by_place.items(), key=lambda item: (item[1].at, item[0]))
    return Remembered(
        customer=snapshot(profile, key, rules),
        dates={journey: pending.due for journey, pending in profile.dates.items()},
        past=tuple(happened for _, happened in past),
    )


_KINDS = {
    Kind.DEFINITION: "definition",
    Kind.TIME: "time",
    Kind.DATE: "date",
    Kind.EVENT: "event",
    Kind.DERIVED: "derived",
}


def _happened(row: Row) -> Happened:
    fields: dict[str, Any] = {"kind": _KINDS[Kind(row.kind)], "id": row.id, "source": row.source, "name": row.name}
    fields |= {"at": row.occurred_at, "occurred_at": row.occurred_at}
    if row.body:
        body = history.unpack_body(row.body)
        fields |= {"at": body.received_at, "type": body.type, "historical": body.historical, "hops": body.hops}
        fields["properties"] = msgspec.Raw(body.properties) if body.properties else EMPTY
    if row.changes is not None:
        fields |= msgspec.structs.asdict(history.unpack_changes(row.changes))
    return Happened(**fields)
