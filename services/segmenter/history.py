"""One customer's past, as it is kept: every event, and what events, time and playbooks changed. Pure.

A row has typed columns for what is asked for, and the rest packed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import IntEnum
from typing import Any, NamedTuple

import msgspec

from shared.contracts.customers import CustomerUpdated, DateReached
from shared.contracts.events import EMPTY, CallType
from shared.language.aggregates import Aggregate, observe


class Kind(IntEnum):
    """What a row tells. Of rows of the same instant, the smaller kind came first."""

    DEFINITION = 0
    """The playbook changed, and with it stage or segments."""
    TIME = 1
    """A window ran out; or a night has passed, then the name is `customer.spend_percentile` and the id what it is."""
    DATE = 2
    """A date that a journey waits for has come; the name is the journey's, the id the occasion."""
    EVENT = 3
    DERIVED = 4
    """An event that segmenter made itself."""


class Row(NamedTuple):
    """Something in a customer's history, as the table has it: `body` and `changes` are packed (`unpack_body`,
    `unpack_changes`); None where it changed nothing."""

    customer: str
    occurred_at: datetime
    kind: int
    id: str
    source: str
    name: str
    body: bytes
    changes: bytes | None = None


class Body(msgspec.Struct, array_like=True, frozen=True):
    """What an event says beside its row's columns; b"" stands for an empty object."""

    type: CallType
    received_at: datetime
    user_id: str | None
    anonymous_id: str | None
    historical: bool
    hops: int
    properties: bytes
    traits: bytes
    context: bytes
    extra: bytes


class Changes(msgspec.Struct, array_like=True, frozen=True):
    """What a row's event did to its customer."""

    stage_before: str | None
    stage: str
    entered: tuple[str, ...]
    left: tuple[str, ...]
    consent: dict[str, bool]
    address_before: str | None
    playbook: str = ""
    """What begins the hash of the playbook that was in force."""


_encoder = msgspec.msgpack.Encoder()
_decode_body = msgspec.msgpack.Decoder(Body).decode
_decode_changes = msgspec.msgpack.Decoder(Changes).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode

_new = tuple.__new__
"""As the class itself would make it, without a call in between."""

_EVENT, _DERIVED = int(Kind.EVENT), int(Kind.DERIVED)
_KINDS = {"time": Kind.TIME, "definition": Kind.DEFINITION}


def row(record: CustomerUpdated | DateReached, playbook: str = "", word: str = "") -> Row:
    """The row that a record leaves behind; `playbook` is the one in force, as `Changes` has it. `word` is
    `customer.spend_percentile` where a night has changed that."""
    if isinstance(record, DateReached):
        return Row(record.customer.key, record.as_of, Kind.DATE, record.occasion, "", record.journey, b"", None)
    event = record.event
    changed = record.stage_before is not None or record.entered or record.left or record.consent
    changes = (
        _encoder.encode(
            Changes(
                record.stage_before,
                record.customer.stage,
                record.entered,
                record.left,
                {decision.topic: decision.subscribed for decision in record.consent},
                record.address_before,
                playbook,
            )
        )
        if changed or record.address_before is not None
        else None
    )
    if event is None:
        percentile = record.customer.spend_percentile if word else None
        id = "" if percentile is None else str(percentile)
        return Row(record.customer.key, record.as_of, _KINDS[record.cause], id, "", word, b"", changes)
    # As a `Body` is encoded, without making one: there is a row for each event.
    body = (
        event.type,
        event.received_at,
        event.user_id,
        event.anonymous_id,
        event.historical,
        event.hops,
        _packed(event.properties),
        b"" if event.traits is EMPTY else _packed(event.traits),
        b"" if event.context is EMPTY else _packed(event.context),
        b"" if event.extra is EMPTY else _packed(event.extra),
    )
    kind = _DERIVED if record.derived else _EVENT
    packed = _encoder.encode(body)
    return _new(Row, (event.key, event.occurred_at, kind, event.id, event.source, event.name, packed, changes))


def unpack_body(body: bytes) -> Body:
    return _decode_body(body)


def unpack_changes(changes: bytes) -> Changes:
    return _decode_changes(changes)


def rebuild(
    states: Mapping[str, Any], aggregates: Mapping[str, Sequence[Aggregate]], rows: Iterable[Row]
) -> dict[str, Any]:
    """Aggregate states (by id) after the events among a customer's rows; `aggregates` are by event name."""
    after = dict(states)
    for row in rows:
        if row.kind < Kind.EVENT:
            continue
        fed = aggregates.get(row.name)
        if fed is None:
            continue
        body = _decode_body(row.body)
        if body.type != "track":
            continue
        properties = _decode_object(body.properties) if body.properties else {}
        for aggregate in fed:
            state = observe(aggregate, after.get(aggregate.id), row.id, row.occurred_at, properties, body.received_at)
            if state is not None:
                after[aggregate.id] = state
    return after


def _packed(raw: msgspec.Raw) -> bytes:
    said = bytes(raw)
    return said if said != _NOTHING else b""


_NOTHING = bytes(EMPTY)
