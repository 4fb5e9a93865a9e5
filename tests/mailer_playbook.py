"""A small playbook and a request, for tests of what the mailer writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

from shared.contracts.messages import MessageRequested
from shared.language.playbook import Brand, Cap, Message, Playbook, QuietHours, Topic

DUE = datetime(2026, 3, 2, 7, 0, tzinfo=UTC)


def brand(quiet: tuple[int, int] | None = (21, 8), caps: Sequence[Cap] = ()) -> Brand:
    return Brand(
        name="Lamps",
        sender="hello@lamps.example",
        reply_to=None,
        postal_address="Storgata 1, 0155 Oslo",
        timezone="Europe/Oslo",
        locale="en",
        currency="NOK",
        rates={},
        urls={},
        quiet_hours=QuietHours(time(quiet[0]), time(quiet[1])) if quiet else None,
        caps=tuple(caps),
        carts="derived",
    )


def playbook(
    *,
    subject: str = "You forgot something",
    text: str | None = "Come back: {{ urls.shop }}\n",
    html: str | None = "<p>Come <a href='{{ urls.shop }}'>back</a></p>",
    mjml: str | None = None,
    preheader: str = "",
    sender: str = '"Lamps & Co, Oslo" <hello@lamps.example>',
    brand_name: str = "Lamps & Co",
    brand_locale: str = "en",
    locales: dict[str, dict[str, str]] | None = None,
) -> Playbook:
    files = {"subject.txt": subject}
    if text is not None:
        files["body.txt"] = text
    if mjml is not None:
        files["body.mjml"] = mjml
    elif html is not None:
        files["body.html"] = html
    brand = Brand(
        name=brand_name,
        sender=sender,
        reply_to="help@lamps.example",
        postal_address="Storgata 1, 0155 Oslo",
        timezone="Europe/Oslo",
        locale=brand_locale,
        currency="NOK",
        rates={},
        urls={"shop": "https://lamps.example/"},
        quiet_hours=QuietHours(time(21), time(8)),
        caps=(),
        carts="derived",
    )
    topics = {
        "cart-reminders": Topic("cart-reminders", "Cart reminders", "When a cart is left.", "promotional", "opt_out"),
        "newsletter": Topic("newsletter", "Newsletter", "Monthly.", "promotional", "opt_in"),
        "receipts": Topic("receipts", "Receipts", "Orders.", "transactional", "opt_out"),
    }
    return Playbook(
        hash="p1",
        files={},
        brand=brand,
        stages=(),
        segments={},
        topics=topics,
        journeys={},
        messages={
            "cart-reminder": Message("cart-reminder", "Cart reminder", preheader, {"": files, **(locales or {})})
        },
        aggregates={},
    )


def request(
    *,
    address: str | None = "anna@example.org",
    topic: str = "cart-reminders",
    trigger: dict[str, Any] | None = None,
    traits: dict[str, Any] | None = None,
    given: dict[str, Any] | None = None,
    locale: str | None = None,
    timezone: str | None = None,
    message: str = "cart-reminder",
    id: str = "5b1c0f6e-52f3-5c1e-8a53-0d6f7f4f2b6e",
) -> MessageRequested:
    return MessageRequested(
        as_of=DUE,
        id=id,
        customer="anna",
        address=address,
        message=message,
        topic=topic,
        journey="abandoned-cart",
        enrollment="0c9b3f6e-52f3-5c1e-8a53-0d6f7f4f2b6e",
        step="cart-reminder",
        due=DUE,
        expires=DUE + timedelta(hours=14),
        locale=locale,
        timezone=timezone,
        data={
            "customer": {"key": "anna", "stage": "convert", "segments": ["vip"]},
            "traits": traits or {"first_name": "Anna"},
            "trigger": trigger or {},
            "key": "c1",
            "with": given or {},
        },
    )
