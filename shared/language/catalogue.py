"""What is known of the events that a shop sends: the catalogue under `events/`, and the events that Rapport makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shared.contracts import events as contracts

_TEXT: Mapping[str, Any] = {"type": "string"}
_NUMBER: Mapping[str, Any] = {"type": "number"}
_CART = {"cart_id": _TEXT, "total": _NUMBER, "currency": _TEXT, "products": {"type": "array", "items": {}}}

OWN: Mapping[str, Mapping[str, Any] | None] = {
    contracts.EMAIL_SENT: None,
    contracts.EMAIL_SKIPPED: None,
    contracts.EMAIL_FAILED: None,
    contracts.EMAIL_UNKNOWN: None,
    contracts.EMAIL_LINK_CLICKED: None,
    contracts.EMAIL_OPENED: None,
    contracts.EMAIL_BOUNCED: None,
    contracts.UNSUBSCRIBED: None,
    contracts.WEBHOOK_SENT: None,
    contracts.WEBHOOK_SKIPPED: None,
    contracts.WEBHOOK_FAILED: None,
    contracts.SMS_SENT: None,
    contracts.SMS_SKIPPED: None,
    contracts.SMS_FAILED: None,
    contracts.PUSH_SENT: None,
    contracts.PUSH_SKIPPED: None,
    contracts.PUSH_FAILED: None,
    contracts.TASK_OPENED: None,
    contracts.TASK_DONE: None,
    contracts.TOPIC_SUBSCRIBED: None,
    contracts.TOPIC_UNSUBSCRIBED: None,
}
"""Events that Rapport reports itself; their properties are not checked."""

USUAL = (
    "Products Searched", "Product List Viewed", "Product Viewed", "Product Added", "Product Removed", "Cart Viewed",
    "Checkout Started", "Checkout Step Viewed", "Checkout Step Completed", "Payment Info Entered", "Order Completed",
    "Order Updated", "Order Cancelled", "Order Refunded", "Coupon Entered", "Coupon Applied", "Coupon Denied",
    "Coupon Removed", "Product Added to Wishlist", "Product Reviewed", "Product Shared", "Cart Shared",
    contracts.CART_UPDATED, contracts.CART_EMPTIED,
)  # fmt: skip
"""Names of Segment's e-commerce spec, for the nearest word. https://segment.com/docs/connections/spec/ecommerce/v2/"""


class Catalogue(msgspec.Struct):
    """Events by name; each has its properties as JSON Schema, or None where they are not known."""

    described: bool = False
    """Whether the shop keeps a catalogue at all; without one any event may come."""
    events: dict[str, Mapping[str, Any] | None] = msgspec.field(default_factory=lambda: dict(OWN))
    files: dict[str, str] = {}
    """Event name to the file that describes it."""

    def derive_carts(self) -> None:
        """Adds what Rapport makes of cart events where `carts: derived`."""
        self.events.setdefault(contracts.CART_UPDATED, _CART)
        self.events.setdefault(contracts.CART_EMPTIED, {"cart_id": _TEXT})
        ordered = self.events.get("Order Completed")
        if ordered is not None and "cart_id" not in ordered:
            self.events["Order Completed"] = {**ordered, "cart_id": _TEXT}

    @property
    def properties(self) -> dict[str, Mapping[str, Any]]:
        """The events whose properties are known."""
        return {name: found for name, found in self.events.items() if found is not None}

    def absent(self, event: str | None, path: Sequence[str]) -> tuple[str, Sequence[str]] | None:
        """The first part of a property's path that the catalogue does not have, with what it has there; else None."""
        fields = self.events.get(event) if event is not None else None
        for part in path:
            if fields is None:
                return None
            if part not in fields:
                return part, list(fields)
            fields = _fields(fields[part])
        return None


def _fields(schema: Any) -> Mapping[str, Any] | None:
    """The fields of an object, or of each item of a list; None where nothing is said about them."""
    if not isinstance(schema, Mapping):
        return None
    fields = schema.get("properties")
    if isinstance(fields, Mapping):
        return fields if schema.get("additionalProperties") is not True else None
    return _fields(schema.get("items"))
