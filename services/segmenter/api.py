"""The segmenter's HTTP face: what is remembered of a customer, and the story of how it came to be."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, Query, Response
from pydantic import AwareDatetime, BaseModel

from services.segmenter import carts, consent, history, past, store
from services.segmenter.history import Kind, Row
from services.segmenter.past import Rulebook
from services.segmenter.profile import Profile
from shared.contracts.streams import partition_of
from shared.database.engine import Database
from shared.http import error, face, may_read

MOST_ROWS = 200
MOST_NAMES = 1_000
"""Event names in one question: those of all the journeys of a playbook."""

Place = tuple[datetime, int, str, str]
"""Where a page of a timeline ends: time, kind, id and source of its last row."""

_encode_json = msgspec.json.Encoder().encode
_encode_place = msgspec.msgpack.Encoder().encode
_decode_place = msgspec.msgpack.Decoder(Place).decode


class Cart(BaseModel):
    """The open cart, where carts are derived."""

    id: str
    products: list[dict[str, Any]]
    currency: str | None
    changed_at: datetime


class Changed(BaseModel):
    """What a row did to the customer; `stage_before` is absent where the stage stayed."""

    stage: str | None = None
    stage_before: str | None = None
    entered: list[str] = []
    left: list[str] = []
    consent: dict[str, bool] = {}
    address_before: str | None = None


class TimelineRow(BaseModel):
    """Something that happened. `kind` is `event`, `derived` (an event of our own making), `time` (a window ran out),
    `definition` (the playbook changed) or `date` (a date that the journey `name` waits for came)."""

    kind: str
    occurred_at: datetime
    id: str | None = None
    source: str | None = None
    type: str | None = None
    name: str | None = None
    received_at: datetime | None = None
    historical: bool | None = None
    properties: dict[str, Any] | None = None
    traits: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    changed: Changed | None = None


class Timeline(BaseModel):
    """Newest first. `next` is what to give as `before` for the rows before these; null where there are none."""

    rows: list[TimelineRow]
    next: str | None


class CustomerPage(BaseModel):
    """What is remembered of a customer."""

    key: str
    stage: str | None
    segments: list[str]
    address: str | None
    traits: dict[str, Any]
    consent: dict[str, bool]
    locale: str | None
    timezone: str | None
    first_seen: datetime | None
    last_seen: datetime | None
    cart: Cart | None
    timeline: Timeline


def create(
    database: Database, rulebook: Rulebook, partitions: int, read_keys: str, ready: Callable[[], Awaitable[list[str]]]
) -> FastAPI:
    app = face("Rapport segmenter", "Profiles, stages and segments of customers.", ready)
    readers = [Depends(may_read(read_keys))]

    @app.get("/v1/parts/{key:path}", include_in_schema=False, dependencies=readers)
    async def part(
        key: str, since: AwareDatetime, name: Annotated[list[str] | None, Query(max_length=MOST_NAMES)] = None
    ) -> Response:
        """For journeys, which puts the story of a customer together (`shared.contracts.story.Remembered`)."""
        async with database.connect() as connection:
            told = await past.told(connection, rulebook, partition_of(key, partitions), key, since, name or ())
        return Response(_encode_json(told), media_type="application/json", headers={"Cache-Control": "no-store"})

    @app.get(
        "/v1/customers/{key:path}",
        tags=["customers"],
        dependencies=readers,
        response_model=CustomerPage,
    )
    async def customer(
        key: str,
        limit: Annotated[int, Query(ge=1, le=MOST_ROWS, description="How many rows of the timeline.")] = 50,
        before: Annotated[str | None, Query(description="`next` of the page after this one.")] = None,
    ) -> Response:
        """Profile, stage, segments and timeline of the customer with this key (user id, else anonymous id)."""
        place = None
        if before is not None:
            place = _read_place(before)
            if place is None:
                return error(400, "invalid", "query.before: this is no `next` of a timeline. Send one as it came.")
        if "\0" in key:
            return error(404, "not_found", "no customer has a NUL character in the key.")
        partition = partition_of(key, partitions)
        async with database.connect() as connection:
            profile = await store.profile(connection, partition, key)
            rows = await store.timeline(connection, partition, key, place, limit + 1) if profile else []
        if profile is None:
            return error(404, "not_found", f"no customer has the key {key!r}.")
        body = _encode_json(_page(key, profile, rows, limit))
        return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})

    return app


def _page(key: str, profile: Profile, rows: list[Row], limit: int) -> dict[str, Any]:
    cart = carts.unpacked(profile.cart)
    shown = rows[:limit]
    return {
        "key": key,
        "stage": profile.stage or None,
        "segments": profile.segments,
        "address": profile.address,
        "traits": profile.traits,
        "consent": consent.resolved(profile.consent, {}),
        "locale": profile.locale,
        "timezone": profile.timezone,
        "first_seen": profile.first_seen,
        "last_seen": profile.last_seen,
        "cart": {
            "id": cart.id,
            "products": [{**line.product, "quantity": line.quantity} for line in cart.lines],
            "currency": cart.currency,
            "changed_at": cart.changed_at,
        }
        if cart is not None and cart.id is not None
        else None,
        "timeline": {
            "rows": [_row(row) for row in shown],
            "next": _written_place(shown[-1]) if len(rows) > limit else None,
        },
    }


def _row(row: Row) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": Kind(row.kind).name.lower(), "occurred_at": row.occurred_at.astimezone(UTC)}
    if row.id:
        told["id"] = row.id
    if row.name:
        told["name"] = row.name
    if row.body:
        body = history.unpack_body(row.body)
        told |= {"source": row.source, "type": body.type, "received_at": body.received_at}
        if body.historical:
            told["historical"] = True
        for name, raw in (("properties", body.properties), ("traits", body.traits), ("context", body.context)):
            if raw:
                told[name] = msgspec.Raw(raw)
    if row.changes is not None:
        changes = history.unpack_changes(row.changes)
        changed: dict[str, Any] = {}
        if changes.stage_before is not None:
            changed |= {"stage": changes.stage or None, "stage_before": changes.stage_before or None}
        for name, value in (("entered", changes.entered), ("left", changes.left), ("consent", changes.consent)):
            if value:
                changed[name] = value
        if changes.address_before is not None:
            changed["address_before"] = changes.address_before or None
        told["changed"] = changed
    return told


def _written_place(row: Row) -> str:
    place = (row.occurred_at, row.kind, row.id, row.source)
    return base64.urlsafe_b64encode(_encode_place(place)).rstrip(b"=").decode()


def _read_place(text: str) -> Place | None:
    try:
        place: Place = _decode_place(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):  # msgspec's errors are ValueErrors
        return None
    at, kind, id_, source = place
    if at.tzinfo is None or kind not in Kind._value2member_map_ or "\0" in id_ + source:
        return None
    return place
