"""The segmenter's HTTP face: what is remembered of a customer, and the story of how it came to be."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, Path, Query, Response
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


class Cart(BaseModel, use_attribute_docstrings=True):
    """The open cart, where carts are derived."""

    id: str
    """The shop's own, or one of ours where the shop gives none."""
    products: list[dict[str, Any]]
    """What the shop said of each product, with its `quantity`."""
    currency: str | None
    """ISO 4217, where the shop said one."""
    changed_at: datetime
    """When something was last put in or taken out."""


class Changed(BaseModel, use_attribute_docstrings=True):
    """What a row did to the customer. What it did not change is absent."""

    stage: str | None = None
    """The stage after it, where that is another one than before."""
    stage_before: str | None = None
    """The stage before it; null where there was none."""
    entered: list[str] = []
    """Segments."""
    left: list[str] = []
    """Segments."""
    consent: dict[str, bool] = {}
    """Yes or no by topic, where it was said anew; `*` stands for every promotional one."""
    address_before: str | None = None
    """The address before it, where that was another one; null where there was none."""


class TimelineRow(BaseModel, use_attribute_docstrings=True):
    """Something that happened. What does not apply is absent."""

    kind: str
    """`event`, `derived` (an event of our own making), `time` (a window ran out; or a night has passed, where `name` is
    `customer.spend_percentile` and `id` what it is then), `definition` (the playbook changed) or `date` (the date that
    a journey waits for)."""
    occurred_at: datetime
    """When it happened, by the shop's word; never after `received_at`."""
    id: str | None = None
    """The event's own; of a date its occasion; of a night the percentile."""
    source: str | None = None
    """Who posted the event."""
    type: str | None = None
    """The call: `track`, `identify`, `page`, `screen`, `group` or `alias`."""
    name: str | None = None
    """The event's; of a date the journey's."""
    received_at: datetime | None = None
    """When ingest took it."""
    historical: bool | None = None
    """True where it was imported: it began no journey."""
    properties: dict[str, Any] | None = None
    """As the shop sent them."""
    traits: dict[str, Any] | None = None
    """As the shop sent them."""
    context: dict[str, Any] | None = None
    """As the shop sent it."""
    changed: Changed | None = None
    """What it changed."""


class Timeline(BaseModel, use_attribute_docstrings=True):
    """A page of what happened."""

    rows: list[TimelineRow]
    """The newest first."""
    next: str | None
    """What to give as `before` for the rows before these; null where there are none."""


class CustomerPage(BaseModel, use_attribute_docstrings=True):
    """What is remembered of a customer."""

    key: str
    """The user id, else the anonymous id."""
    stage: str | None
    """The stage of the relationship; null before a playbook is in force."""
    segments: list[str]
    """Those that the customer is in."""
    address: str | None
    """Where mails go."""
    traits: dict[str, Any]
    """What the shop said of them, the latest of each."""
    consent: dict[str, bool]
    """The last yes or no by topic; `*` stands for every promotional one. Where a topic is missing, nothing was said."""
    locale: str | None
    """Their language, where they or their device said one."""
    timezone: str | None
    """An IANA name, where they or their device said one."""
    first_seen: datetime | None
    """When the first event happened."""
    last_seen: datetime | None
    """When the latest one did."""
    spend_percentile: int | None
    """How many per cent of the buyers had spent less last night, 0 to 99. Null before the first night that is asked."""
    cart: Cart | None
    """Null where none is open, or carts are not derived."""
    timeline: Timeline
    """What happened, and what it changed."""


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
            remembered = await past.remembered(
                connection, rulebook, partition_of(key, partitions), key, since, name or ()
            )
        return Response(_encode_json(remembered), media_type="application/json", headers={"Cache-Control": "no-store"})

    @app.get(
        "/v1/customers/{key:path}",
        tags=["customers"],
        dependencies=readers,
        response_model=CustomerPage,
    )
    async def customer(
        key: Annotated[str, Path(description="The user id, else the anonymous id; percent-encoded.")],
        limit: Annotated[int, Query(ge=1, le=MOST_ROWS, description="How many rows of the timeline.")] = 50,
        before: Annotated[str | None, Query(description="`next` of a page, for the rows that follow it.")] = None,
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
        "spend_percentile": profile.percentile,
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
    shown: dict[str, Any] = {"kind": Kind(row.kind).name.lower(), "occurred_at": row.occurred_at.astimezone(UTC)}
    if row.id:
        shown["id"] = row.id
    if row.name:
        shown["name"] = row.name
    if row.body:
        body = history.unpack_body(row.body)
        shown |= {"source": row.source, "type": body.type, "received_at": body.received_at}
        if body.historical:
            shown["historical"] = True
        for name, raw in (("properties", body.properties), ("traits", body.traits), ("context", body.context)):
            if raw:
                shown[name] = msgspec.Raw(raw)
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
        shown["changed"] = changed
    return shown


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
