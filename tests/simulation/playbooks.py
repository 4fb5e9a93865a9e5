"""The playbooks that histories are played under: a small shop's, and what its marketer makes of it in mid-flight."""

from __future__ import annotations

from functools import cache
from textwrap import dedent

from shared.language import load
from shared.language.playbook import Playbook

_FILES = {
    "rapport.yaml": """
        name: Lamps
        sender: Lamps <hello@lamps.example>
        postal_address: Storgata 1, Oslo
        timezone: Europe/Oslo
        locale: en
        currency: EUR
        urls: {shop: "https://lamps.example"}
        quiet_hours: 22:00-07:00
        caps: {email: [{limit: 3, within: 1d}], sms: [{limit: 2, within: 1d}]}
        carts: derived
        """,
    "stages.yaml": """
        stages:
          delight: count("Order Completed") >= 3
          retain: count("Order Completed") >= 1
          convert: count("Product Added", within=2d) >= 1
          attract: true
        """,
    "segments.yaml": """
        segments:
          busy: {title: Two orders in two days, when: 'count("Order Completed", within=2d) >= 2'}
          spender: {title: A hundred in a week, when: 'sum("Order Completed", "total", within=7d) >= 100'}
          named: {title: We know the name, when: 'traits.first_name != null'}
        """,
    "topics.yaml": """
        topics:
          reminders: {title: Reminders, description: A cart that was left., kind: promotional, default: opt_out}
          greetings: {title: Greetings, description: Now and then., kind: promotional, default: opt_in}
          thanks: {title: Thanks, description: After an order., kind: service, default: opt_out}
          receipts: {title: Receipts, description: What was paid., kind: transactional}
        """,
    "journeys/cart.yaml": """
        journey: cart
        trigger: {event: Cart Updated, where: event.total >= 20, key: event.cart_id}
        mode: restart
        again: 2d
        goal: {event: Order Completed, within: 7d, value: event.total}
        exit_on:
          - {event: Cart Emptied, where: event.cart_id == key}
        defaults: {topic: reminders, priority: 60, expires: 14h}
        steps:
          - id: pause
            wait: 1h
          - email: reminder
          - id: came-back
            wait_for: {clicked: reminder}
            timeout: 23h
            then:
              - exit: came back
          - email: last-call
        """,
    "journeys/thanks.yaml": """
        journey: thanks
        trigger: {event: Order Completed, key: event.order_id}
        again: never
        defaults: {topic: thanks, priority: 80, expires: 3d}
        steps:
          - if: count("Order Completed") == 1
            then:
              - id: first
                wait: 2h
              - email: thanks
            else:
              - id: later
                wait: {for: 30m, until: "10:00"}
              - email: thanks-again
                with: {orders: 'count("Order Completed")'}
        """,
    "journeys/receipt.yaml": """
        journey: receipt
        trigger: {event: Order Completed, key: event.order_id}
        again: never
        defaults: {topic: receipts}
        steps:
          - email: receipt
        """,
    "journeys/birthday.yaml": """
        journey: birthday
        trigger: {date: traits.birthday, every: year, at: "09:00"}
        again: always
        defaults: {topic: greetings, expires: 12h}
        steps:
          - email: greeting
        """,
    "journeys/busy.yaml": """
        journey: busy
        trigger: {segment: busy, change: entered}
        again: always
        defaults: {topic: thanks, priority: 40, expires: 1d}
        steps:
          - wait: 3h
          - email: thanks-again
            with: {orders: 'count("Order Completed", within=2d)'}
        """,
    "journeys/gift.yaml": """
        journey: gift
        trigger: {event: Order Completed, key: event.order_id}
        again: never
        defaults: {priority: 70, expires: 2d}
        steps:
          - id: code
            coupon: gift
          - id: tell
            webhook: {url: "https://shop.example/gift", with: {code: steps.code.code}}
          - email: gift
            topic: reminders
            with: {code: steps.code.code}
        """,
    "journeys/rare.yaml": """
        journey: rare
        trigger: {event: Product Viewed, key: event.look}
        again: never
        defaults: {expires: 1d}
        steps:
          - id: code
            coupon: rare
          - sms: voucher
            topic: thanks
            with: {code: steps.code.code}
        """,
    "journeys/care.yaml": """
        journey: care
        trigger: {event: Order Completed, where: event.total >= 40, key: event.order_id}
        again: never
        defaults: {topic: receipts, expires: 2d}
        steps:
          - id: pack
            task: {title: '"Pack " + key', due: 1d}
          - email: survey
          - id: answer
            wait_for: {reply: survey}
            timeout: 20h
            then:
              - id: ring
                task: {title: '"Ring " + customer.key'}
          - push: parcel
          - id: text
            sms: parcel
        """,
    "journeys/looks.yaml": """
        journey: looks
        trigger: {event: Product Viewed}
        again: 2d
        defaults: {topic: thanks, priority: 30, expires: 1d}
        steps:
          - email: look
          - id: looked
            wait_for: {opened: look}
            timeout: 5h
            then:
              - id: tell
                webhook: {url: "https://shop.example/look", with: {who: customer.key}}
        """,
    "coupons/gift.yaml": """
        title: A present
        prefix: GIFT-
        length: 8
        expires: 3d
        announce: webhook
        url: https://shop.example/codes
        """,
    "coupons/rare.yaml": """
        title: Not for everybody
        prefix: RARE-
        length: 8
        limit: 2
        """,
}
_LINKS = '<a href="{{ urls.shop }}">shop</a> <a href="{{ unsubscribe_url }}">stop</a>'
_MAILS = {
    **dict.fromkeys(("reminder", "last-call", "thanks", "receipt", "greeting", "survey", "look"), ""),
    "thanks-again": "orders",
    "gift": "code",
}
_SHORT = {
    "messages/voucher/sms.txt": "Take {{ code | default('nothing') }}\n",
    "messages/voucher/message.yaml": "title: voucher\nvariables: [code]\n",
    "messages/parcel/sms.txt": "On its way\n",
    "messages/parcel/push.yaml": "title: On its way\nbody: Soon\n",
    "messages/parcel/message.yaml": "title: parcel\n",
}


def _variant(**changes: tuple[str, str]) -> Playbook:
    """`changes` replace a piece of a file, by the file's name without its folder."""
    files = {name: dedent(text).lstrip() for name, text in _FILES.items()}
    files |= _SHORT
    for mail, variable in _MAILS.items():
        declared = f"variables: [{variable}]\n" if variable else ""
        said = f"{{{{ {variable} }}}}" if variable else ""
        files[f"messages/{mail}/message.yaml"] = f"title: {mail}\n{declared}"
        files[f"messages/{mail}/subject.txt"] = f"{mail} {said}\n"
        files[f"messages/{mail}/body.html"] = f"<p>{said}</p>{_LINKS}\n"
    for name, (old, new) in changes.items():
        path = next(path for path in files if f"/{path}".endswith(f"/{name}.yaml"))
        assert old in files[path], (path, old)
        files[path] = files[path].replace(old, new)
    return load({name: text.encode() for name, text in files.items()})


@cache
def variants() -> tuple[Playbook, ...]:
    """The playbook at the beginning, and those that may follow. The last, which a history may begin with, too, ranks
    customers by what they have spent."""
    return (
        _variant(),
        _variant(cart=("wait: 1h", "wait: 2h")),
        _variant(cart=("mode: restart", "mode: restart\nstatus: paused")),
        _variant(segments=("within=7d) >= 100", "within=5d) >= 60"), birthday=('"09:00"', '"11:00"')),
        _variant(stages=("within=2d", "within=1d"), busy=("wait: 3h", "wait: 5h")),
        _variant(
            rapport=("22:00-07:00", "20:00-08:00"),
            thanks=("wait: 2h", "wait: 40m"),
            **{"coupons/rare": ("limit: 2", "limit: 3")},
        ),
        _variant(
            segments=("'count(\"Order Completed\", within=2d) >= 2'", "customer.spend_percentile >= 50"),
            busy=("- wait: 3h", "- wait: 3h\n  - if: customer.spend_percentile < 60\n    then: [exit: outspent]"),
        ),
    )
