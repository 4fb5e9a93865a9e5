"""The calls of the Segment HTTP tracking API: what each is named, carries and requires, and the limits of all.

This is the one definition: requests are decoded by it, and the OpenAPI pages are made from it.
https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Raw

from shared.contracts.events import CallType

MAX_EVENT_BYTES = 32 * 1024
MAX_BATCH_BYTES = 500 * 1024
MAX_BATCH_EVENTS = 2500
MAX_MERGED_BYTES = 4 * 1024 * 1024
"""What a batch may grow to when its context is merged into each of its events; else 500 KB could become a gigabyte."""
MAX_MESSAGE_ID = 99
MAX_ID = 255
MAX_NAME = 1000
MAX_DEPTH = 64

ABSENT = Raw(b"")
NULL = Raw(b"null")

Identifier = str | int | float | None
_Object = Meta(extra_json_schema={"type": ["object", "null"], "additionalProperties": True})
_Instant = Meta(extra_json_schema={"format": "date-time"})


class Call(msgspec.Struct, rename="camel"):
    """One call, as clients post it. Fields that are not named here are kept as they come."""

    type: Annotated[str | None, Meta(description="Which call this is; required in a batch, else the path says it.")] = (
        None
    )
    message_id: Annotated[
        Identifier,
        Meta(description="Names this event: the same id again within a day is the same event. Under 100 characters."),
    ] = None
    user_id: Annotated[Identifier, Meta(description="The shop's id of a known customer.")] = None
    anonymous_id: Annotated[Identifier, Meta(description="The id of a visitor who is not known yet.")] = None
    event: Annotated[str | None, Meta(description="What happened: `Order Completed`.")] = None
    name: Annotated[str | None, Meta(description="The page's or screen's name.")] = None
    category: Annotated[Any, Meta(description="The page's or screen's category.")] = None
    previous_id: Annotated[Identifier, Meta(description="The id that this customer had before.")] = None
    group_id: Annotated[Identifier, Meta(description="The group that the customer belongs to.")] = None
    properties: Annotated[Raw, _Object, Meta(description="What is known of the event.")] = ABSENT
    traits: Annotated[Raw, _Object, Meta(description="What is known of the customer (or of the group).")] = ABSENT
    context: Annotated[
        Raw, _Object, Meta(description="Where it came from. `historical: true` marks imported history.")
    ] = ABSENT
    integrations: Annotated[Any, _Object, Meta(description="Kept; Rapport does not act on it.")] = None
    timestamp: Annotated[str | None, _Instant, Meta(description="When it happened, by the client's clock.")] = None
    original_timestamp: Annotated[str | None, _Instant, Meta(description="RudderStack's name for `timestamp`.")] = None
    sent_at: Annotated[Any, _Instant, Meta(description="When the request left, by the client's clock.")] = None
    write_key: Annotated[Any, Meta(description="The source's write key, where there is no Basic auth.")] = None
    channel: Annotated[Any, Meta(description="Kept.")] = None
    version: Annotated[Any, Meta(description="Kept.")] = None
    received_at: Annotated[Any, Meta(description="Kept; Rapport goes by its own clock.")] = None
    metadata: Annotated[Any, Meta(description="Kept.")] = msgspec.field(default=None, name="_metadata")


class ExactCall(Call, forbid_unknown_fields=True, rename="camel"):
    """A call without fields that the protocol does not name: nearly all of them. Decoding it proves that."""


_Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Scalar = None | bool | _Int | float | str
_Nested = _Scalar | list[_Scalar] | dict[str, _Scalar]
_TwiceNested = _Scalar | list[_Nested] | dict[str, _Nested]
ShallowObject = dict[str, _Scalar | list[_TwiceNested] | dict[str, _TwiceNested]] | None
"""What nearly all properties, traits and contexts are. Decoding one proves that it can be read and kept by everybody:
the depth and the integers are bounded."""


class UsualCall(ExactCall, forbid_unknown_fields=True, rename="camel"):
    """A call in which nothing is nested but its objects, which are cut out unread: nearly all of them."""

    category: str | None = None
    integrations: dict[str, _Nested] | None = None
    sent_at: str | None = None
    write_key: str | None = None
    channel: str | None = None
    version: str | _Int | None = None
    received_at: str | None = None
    metadata: dict[str, _Scalar] | None = msgspec.field(default=None, name="_metadata")


class BatchCall(msgspec.Struct, rename="camel"):
    """Many calls in one body. Its context and integrations are merged into each event, whose own win."""

    batch: Annotated[list[Raw], Meta(description="Up to 2,500 calls, each with its `type`.")]
    sent_at: Annotated[Any, _Instant, Meta(description="When the request left, by the client's clock.")] = None
    write_key: Annotated[Any, Meta(description="The source's write key, where there is no Basic auth.")] = None
    context: Annotated[Raw, _Object, Meta(description="Merged into every event's context.")] = ABSENT
    integrations: Annotated[Any, _Object, Meta(description="Merged into every event's integrations.")] = None


class UsualBatch(msgspec.Struct, rename="camel"):
    """A batch that says nothing of its events in common, and whose events are usual calls: nearly all of them."""

    batch: list[UsualCall]
    sent_at: Any = None
    write_key: Any = None
    context: None = None
    integrations: None = None


class Definition(NamedTuple):
    """What one call is: its path (and the short one), the fields it must have and those it carries beside them."""

    type: CallType
    letter: str
    summary: str
    required: tuple[str, ...]
    carries: tuple[str, ...]
    example: dict[str, Any]


TRACK = Definition(
    "track",
    "t",
    "A customer did something.",
    ("event",),
    ("properties",),
    {
        "userId": "4711",
        "event": "Order Completed",
        "messageId": "order-1001-completed",
        "timestamp": "2025-03-01T12:30:00Z",
        "properties": {"order_id": "1001", "total": 59.9, "currency": "EUR"},
    },
)
IDENTIFY = Definition(
    "identify",
    "i",
    "Who a customer is. Without `traits`, those in `context.traits` count.",
    (),
    ("traits",),
    {"userId": "4711", "traits": {"email": "ada@example.com", "first_name": "Ada", "birthday": "1990-12-10"}},
)
PAGE = Definition(
    "page",
    "p",
    "A customer saw a page.",
    (),
    ("name", "category", "properties"),
    {"anonymousId": "b7c1", "name": "Shoes", "properties": {"url": "https://shop.example/shoes"}},
)
SCREEN = Definition(
    "screen",
    "s",
    "A customer saw a screen of an app.",
    (),
    ("name", "category", "properties"),
    {"userId": "4711", "name": "Wishlist"},
)
GROUP = Definition(
    "group",
    "g",
    "A customer belongs to a group; the traits are the group's.",
    ("group_id",),
    ("group_id", "traits"),
    {"userId": "4711", "groupId": "club-gold", "traits": {"name": "Gold club"}},
)
ALIAS = Definition(
    "alias",
    "a",
    "A customer had another id before. Kept; Rapport does not act on it.",
    ("previous_id", "user_id"),
    ("previous_id",),
    {"previousId": "b7c1", "userId": "4711"},
)

CALLS = (TRACK, IDENTIFY, PAGE, SCREEN, GROUP, ALIAS)
BY_TYPE: dict[str | None, Definition] = {call.type: call for call in CALLS}

BATCH = ("batch", "b")
"""The batch's path and its letter."""

COMMON = ("message_id", "user_id", "anonymous_id", "context", "integrations", "timestamp", "sent_at", "write_key")
"""What every call may carry."""

NAMES = {field.name: field.encode_name for field in msgspec.structs.fields(Call)}
"""From our names of the fields to those on the wire."""
