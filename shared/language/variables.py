"""What expressions and templates find under their standing names. The checks know the names from here, and who
evaluates or renders gives exactly these."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict


class TemplateCustomer(TypedDict):
    """`customer`, in templates."""

    key: str
    stage: str
    segments: tuple[str, ...]
    first_seen: datetime | None
    last_seen: datetime | None
    locale: str | None
    timezone: str | None


class CustomerFields(TemplateCustomer):
    """`customer`, in expressions."""

    spend_percentile: int | None


class BrandFields(TypedDict):
    """`brand`, in templates."""

    name: str
    sender: str
    reply_to: str | None
    postal_address: str
    timezone: str
    locale: str
    currency: str
    urls: Mapping[str, str]


class MessageFields(TypedDict):
    """`message`, in templates: `topic` is its title."""

    id: str
    name: str
    topic: str


class TemplateVariables(TypedDict):
    """What every template knows; the other names come from the step that sends it, under `with`."""

    customer: Mapping[str, Any]
    traits: Mapping[str, Any]
    trigger: Mapping[str, Any]
    key: str | int | float | None
    brand: BrandFields
    urls: Mapping[str, str]
    message: MessageFields
    unsubscribe_url: str


CUSTOMER = tuple(CustomerFields.__annotations__)
CUSTOMER_IN_TEMPLATES = tuple(TemplateCustomer.__annotations__)
BRAND = tuple(BrandFields.__annotations__)
MESSAGE = tuple(MessageFields.__annotations__)
STANDARD = tuple(TemplateVariables.__annotations__)
