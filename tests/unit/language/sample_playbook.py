"""A small sound playbook, for tests that change one thing in it."""

from __future__ import annotations

from textwrap import dedent

from shared.language import check

RAPPORT = """\
name: Lamp & Light
sender: Lamp & Light <hello@lamps.example>
postal_address: Harbour Street 12, Oslo
timezone: Europe/Oslo
locale: en
currency: EUR
urls:
  shop: https://lamps.example
"""
STAGES = """\
stages:
  convert: count("Product Added", within=30d) >= 1
  attract: true
"""
SEGMENTS = """\
segments:
  vip:
    title: Best customers
    when: count("Order Completed") >= 3
"""
TOPICS = """\
topics:
  cart-reminders:
    title: Cart reminders
    kind: promotional
  receipts:
    title: Receipts
    kind: transactional
"""
CART = """\
journey: cart
trigger:
  event: Cart Updated
  where: event.total >= 20
  key: event.cart_id
defaults:
  topic: cart-reminders
steps:
  - wait: 1h
  - email: cart-reminder
"""
SUBJECT = "Your cart waits\n"
BODY = '<p>Hello {{ traits.name }}</p>\n<a href="{{ urls.shop }}">Shop</a>\n<a href="{{ unsubscribe_url }}">Stop</a>\n'

ORDER = """\
event: Order Completed
properties:
  order_id: {type: string}
  total: {type: number}
  products: {type: array, items: {type: object, properties: {sku: {type: string}}}}
"""
ADDED = "event: Product Added\nproperties: {sku: {type: string}}\n"
CATALOGUE = {"events__order_yaml": ORDER, "events__added_yaml": ADDED}
"""Of events: two are described."""


def sample(**changes: str | bytes | None) -> dict[str, bytes]:
    """The files, with some of them changed, added, or (None) left out. In names `__` stands for `/`, `_` for `.`:
    `journeys__cart_yaml`. Text is dedented."""
    files: dict[str, str | bytes | None] = {
        "rapport.yaml": RAPPORT,
        "stages.yaml": STAGES,
        "segments.yaml": SEGMENTS,
        "topics.yaml": TOPICS,
        "journeys/cart.yaml": CART,
        "messages/cart-reminder/subject.txt": SUBJECT,
        "messages/cart-reminder/body.html": BODY,
    }
    for name, text in changes.items():
        files[name.replace("__", "/").replace("_", ".").replace("·", "-")] = text
    return {
        name: dedent(text).encode() if isinstance(text, str) else text
        for name, text in files.items()
        if text is not None
    }


def journey(steps: str, head: str = "", trigger: str = "event: Cart Updated") -> str:
    """A journey called cart with these steps, below `steps:`; `head` stands before them."""
    lines = ["journey: cart", "trigger:", *(f"  {line}" for line in dedent(trigger).strip().splitlines())]
    if "defaults:" not in head:
        lines += ["defaults: {topic: cart-reminders}"]
    lines += dedent(head).strip().splitlines() if head else []
    return "\n".join([*lines, "steps:", *(f"  {line}" for line in dedent(steps).strip("\n").splitlines())]) + "\n"


def said_of(files: dict[str, bytes]) -> list[str]:
    return [str(problem) for problem in check(files)]


def of_journey(text: str, **changes: str | None) -> list[str]:
    """What is said of a sample with this journey, of the journey itself without the file's name."""
    said = said_of(sample(journeys__cart_yaml=text, **changes))
    return [line.removeprefix("journeys/cart.yaml:") for line in said]
