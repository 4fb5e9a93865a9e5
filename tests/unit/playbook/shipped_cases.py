"""Requests for the mails of the shipped playbook, with the data that real shops send: rich, poor and odd."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from services.mailer.links import Links
from services.mailer.mime import compose
from services.mailer.rendering import Renderer
from services.mailer.transport import Mail
from shared.contracts.messages import MessageRequested
from shared.language import SHIPPED, load, read_folder

NOW = datetime(2026, 3, 2, 7, tzinfo=UTC)
PLAYBOOK = load(read_folder(SHIPPED))
RENDERER = Renderer(PLAYBOOK, Links(b"s" * 32, "https://mail.lamps.example/mailer"))

Product = Mapping[str, Any]

LANTERN = {"product_id": "lamp-01", "name": "Lantern Nord", "price": 89.0, "url": "https://lamps.example/lantern"}
BULBS = {"sku": "bulb-02", "name": "Filament bulb G95", "variant": "Amber", "price": 19.5, "quantity": 3}
PICTURED = {**LANTERN, "name": "Pendant Måne", "price": 1249, "image_url": "https://lamps.example/måne.jpg?a=1&b=2"}
AS_TEXT = {"name": "Reading lamp", "price": "179.90", "quantity": "2"}
LONG = {"name": "Donaudampfschifffahrtsgesellschaftskapitänskajütenlaterne " * 3, "price": 12.5, "variant": "x" * 90}
NAMELESS = {"sku": "shade-01", "price": 39}
PRICELESS = {"product_id": "cable-3m"}
NASTY = {"name": '<b>"{{ 7 * 7 }}"</b>', "price": "soon", "quantity": "some", "url": "javascript:alert(1)"}

BASKETS: Mapping[str, tuple[Product, ...] | None] = {
    "plain": (LANTERN, BULBS),
    "pictures": (PICTURED, BULBS, AS_TEXT),
    "one": (LANTERN,),
    "odd": (NAMELESS, PRICELESS, LONG, NASTY, {}),
    "many": (LANTERN, BULBS) * 20,
    "empty": (),
    "untold": None,
}


class Reader(NamedTuple):
    """Who reads: traits, locale and currency."""

    traits: Mapping[str, Any]
    locale: str | None
    currency: str | None


READERS: Mapping[str, Reader] = {
    "english": Reader({"first_name": "Ada"}, "en-GB", "GBP"),
    "norwegian": Reader({"firstName": "Oda"}, "nb-NO", "NOK"),
    "german": Reader({"first_name": "Jörg-Maximilian"}, "de-DE", "EUR"),
    "american": Reader({"first_name": ""}, "en-US", "USD"),
    "unknown": Reader({}, None, None),
    "wicked": Reader({"first_name": "<script>alert(1)</script>\r\nBcc: all@example.com"}, "tlh", "XYZ"),
}

CART, ORDER = "cart-7-1", "order-7-1"
_TOPICS = {"abandoned-cart": "cart-reminders", "thank-you": "thank-you", "birthday": "birthday"}
JOURNEYS = {
    "cart-reminder": "abandoned-cart",
    "cart-last-call": "abandoned-cart",
    "cart-old-friend": "abandoned-cart",
    "thank-you-first": "thank-you",
    "thank-you-again": "thank-you",
    "birthday": "birthday",
}
CART_MAILS = tuple(name for name, journey in JOURNEYS.items() if journey == "abandoned-cart")
THANKS = tuple(name for name, journey in JOURNEYS.items() if journey == "thank-you")


def asked(
    message: str,
    basket: str = "plain",
    reader: str = "english",
    *,
    stage: str = "retain",
    **trigger: Any,
) -> MessageRequested:
    """What journeys ask for; `trigger` are more properties of the event that began it."""
    journey = JOURNEYS[message]
    traits, locale, currency = READERS[reader]
    began: dict[str, Any] = {}
    if journey != "birthday":
        began = {"cart_id": CART} if journey == "abandoned-cart" else {"cart_id": CART, "order_id": ORDER}
        products = BASKETS[basket]
        if products is not None:
            began |= {"products": list(products), "total": 146.5}
        if currency is not None:
            began["currency"] = currency
    return MessageRequested(
        as_of=NOW,
        id="5b1c0f6e-52f3-5c1e-8a53-0d6f7f4f2b6e",
        customer="ada",
        address="ada@example.com",
        message=message,
        topic=_TOPICS[journey],
        journey=journey,
        enrollment="0c9b3f6e-52f3-5c1e-8a53-0d6f7f4f2b6e",
        step=message,
        due=NOW,
        expires=NOW + timedelta(hours=14),
        locale=locale,
        timezone="Europe/Oslo",
        data={
            "customer": {"key": "ada", "stage": stage, "segments": []},
            "traits": dict(traits),
            "trigger": began | trigger,
            "key": CART,
            "with": {"orders": 3} if message == "thank-you-again" else {},
        },
    )


def mailed(message: str, basket: str = "plain", reader: str = "english", **more: Any) -> Mail:
    return compose(RENDERER, asked(message, basket, reader, **more), NOW)
