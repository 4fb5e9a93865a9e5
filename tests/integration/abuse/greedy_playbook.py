"""A playbook that looks at everything a shop can send, and prints all of it in its mails."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

READ: dict[str, tuple[str, ...]] = {
    "Order Completed": ("total", "currency", "cart_id", "products"),
    "Product Added": ("price", "quantity", "currency", "cart_id", "product_id"),
    "Product Removed": ("quantity", "cart_id", "product_id"),
    "Topic Subscribed": ("topic", "source"),
    "Topic Unsubscribed": ("topic", "source"),
    "Anything": ("total", "price", "quantity", "cart_id", "product_id", "products", "source", "reason"),
}
"""By event, the properties that the services, or this playbook, read by their names."""
EVENTS = tuple(READ)
FIELDS = tuple(dict.fromkeys(field for fields in READ.values() for field in fields))
TRAITS = ("email", "locale", "timezone", "birthday", "consent", "first_name", "country", "likes")
"""Traits that the services, or this playbook, read by their names."""

_FILES = {
    "rapport.yaml": """
        name: Lamps
        sender: Lamps <hello@lamps.example>
        postal_address: Storgata 1, Oslo
        timezone: Europe/Oslo
        locale: en
        currency: EUR
        rates: {NOK: 0.1}
        urls: {shop: "https://lamps.example"}
        carts: derived
        """,
    "stages.yaml": """
        stages:
          delight: sum("Order Completed", "total", within=30d) > 100 or max("Anything", "total") == "x"
          retain: count("Order Completed", where=event.total > 5 and event.currency != null) >= 1
          convert: last("Product Added", "price") != first("Product Added", "price")
          attract: true
        """,
    "segments.yaml": """
        segments:
          named: {when: 'traits.first_name != null and len(traits.first_name) > 2'}
          rich: {when: 'avg("Order Completed", "total") > 10 and min("Order Completed", "total") < 1000000000'}
          recent: {when: 'days_since(last("Anything")) < 3 and exists("Anything", within=1h)'}
          born: {when: 'days_since(date(traits.birthday)) > 100 and date(traits.birthday) < now'}
          liked: {when: '"a" in traits.likes.name or contains(traits.likes, "a") or lower(traits.country) == "no"'}
          placed: {when: 'round(traits.likes) > 3 or coalesce(traits.likes, traits.email, 1) + 1 > 2'}
          willing: {when: 'consented("news") and in_segment("named") and starts_with(customer.key, "a")'}
          spending: {when: 'sum("Anything", "quantity", within=7d) * 2 - 1 > 3 / max("Anything", "price", within=7d)'}
        """,
    "topics.yaml": """
        topics:
          news: {title: News, kind: promotional, default: opt_out}
          receipts: {title: Receipts, kind: transactional}
        """,
    "journeys/anything.yaml": """
        journey: anything
        trigger: {event: Anything, key: event.cart_id}
        mode: restart
        again: always
        goal: {event: Order Completed, where: event.cart_id == key, value: event.total}
        exit_on:
          - {event: Product Removed, where: event.product_id == trigger.product_id}
        defaults: {topic: receipts}
        steps:
          - email: everything
            with: {one: trigger.total * trigger.total + 1, two: trigger.products, three: traits.likes, four: key}
          - id: later
            wait_for: {event: Order Completed, where: event.total == trigger.total}
            timeout: 1h
          - if: trigger.total > 3 or traits.likes == trigger.products or steps.later.event.total == 3
            then:
              - email: again
        """,
    "journeys/ordered.yaml": """
        journey: ordered
        trigger: {event: Order Completed, where: event.total != 17}
        again: always
        mode: restart
        defaults: {topic: receipts}
        steps:
          - email: everything
            with: {one: trigger.total, two: traits.likes, three: customer.key, four: trigger.currency}
        """,
    "journeys/cart.yaml": """
        journey: cart
        trigger: {event: Cart Updated, key: event.cart_id}
        again: always
        mode: restart
        defaults: {topic: receipts}
        steps:
          - email: cart
        """,
    "journeys/birthday.yaml": """
        journey: birthday
        trigger: {date: traits.birthday, every: year, at: "09:00", before: 3d}
        defaults: {topic: news}
        steps:
          - email: again
        """,
    "journeys/liked.yaml": """
        journey: liked
        trigger: {segment: liked, change: entered}
        again: always
        defaults: {topic: news}
        steps:
          - email: again
        """,
}
_PRINTED = """\
{{ one }} {{ two }} {{ three }} {{ four }} {{ key }} {{ customer.key }} {{ customer.locale }} {{ traits.first_name }}
{{ trigger.total | money(trigger.currency) }} {{ trigger.reason | date }} {{ traits.birthday | date }}
{{ one | money }} {{ two | length }} {{ two | join(",") }} {{ one | upper }} {{ three | round(2) }}
{% for each in trigger.products %}{{ each.name }} {{ each.price | money }} {{ loop.index }}{% endfor %}
"""
_BODY = '<p>{}</p><a href="{{{{ trigger.source }}}}">a</a><a href="{{{{ traits.likes }}}}" title="{{{{ one }}}}">b</a>'
_STOP = '<a href="{{ unsubscribe_url }}">stop</a>'
_CART = "{% for each in trigger.products %}{{ each.name }} {{ each.price | money(trigger.currency) }}{% endfor %}"
_AGAIN = "{{ traits.country }} {{ traits.first_name | upper }} {{ customer.stage }} {{ key }}"


def write(folder: Path) -> Path:
    """The playbook, in `folder`."""
    files = {name: dedent(text).lstrip() for name, text in _FILES.items()}
    files["messages/everything/message.yaml"] = "title: Everything\nvariables: [one, two, three, four]\n"
    files["messages/everything/subject.txt"] = "S {{ one }} {{ trigger.total }} {{ traits.first_name }} {{ key }}\n"
    files["messages/everything/body.html"] = _BODY.format(_PRINTED) + _STOP
    files["messages/everything/body.txt"] = _PRINTED + "{{ trigger.source }} {{ unsubscribe_url }}\n"
    files["messages/again/message.yaml"] = "title: Again\n"
    files["messages/again/subject.txt"] = "S {{ customer.key }} {{ traits.likes }}\n"
    files["messages/again/body.html"] = f"<p>{_AGAIN}</p>" + _STOP
    files["messages/cart/message.yaml"] = "title: Cart\n"
    files["messages/cart/subject.txt"] = "S {{ trigger.total }} {{ trigger.currency }}\n"
    files["messages/cart/body.html"] = f"<p>{_AGAIN}{_CART}</p>" + _STOP
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
