"""What the shop's customers should have in their inboxes, worked out from outside: from what the shop did and the mails
that arrived, and from nothing that Rapport thinks of itself. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from itertools import pairwise
from typing import NamedTuple

from services.demo.shop import Cart, Shopper

CART_WAIT = timedelta(hours=1)
THANKS_WAIT = timedelta(hours=2)
LEAST_CART = 20.0
"""What the shipped playbook's abandoned cart is worth at least."""

_CAUSE = re.compile(r"\b(cart|order)-\d+-\d+\b")
_FIRST_CART_MAILS = frozenset({"cart-reminder"})
_SECOND_CART_MAILS = frozenset({"cart-old-friend", "cart-last-call"})
_THANKS = frozenset({"thank-you-first", "thank-you-again"})


class Arrived(NamedTuple):
    """A mail in the inbox: to whom, which message of the playbook, and the cart, order or year that it is about."""

    recipient: str
    message: str
    cause: str


class Excused(NamedTuple):
    """A message that was asked for and is held or was not sent, with a reason that the inbox page shows."""

    customer: str
    journey: str


@dataclass
class Findings:
    """`duplicates` are mails beyond the first for one cause, and mails that no cause explains; `lost` are causes whose
    time has come and gone without a mail or a reason."""

    duplicates: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def arrived(data: bytes) -> Arrived:
    """Reads a mail as a person would: its text names the cart or the order; a birthday has the year of its date."""
    mail = message_from_bytes(data, policy=default)
    assert isinstance(mail, EmailMessage)
    body = mail.get_body(("plain",))
    text = body.get_content() if body is not None else ""
    message = mail["Feedback-ID"].split(":")[0]
    named = _CAUSE.search(text)
    cause = named.group() if named else str(mail["Date"].datetime.year)
    return Arrived(mail["To"].addresses[0].addr_spec, message, cause)


def compare(
    shoppers: Mapping[str, Shopper], mails: Iterable[Arrived], excused: Sequence[Excused], now: datetime
) -> Findings:
    """`now` is the shop's time up to which everything that was due should have happened."""
    found = Findings()
    counted = Counter((mail.recipient, _family(mail.message), mail.cause) for mail in mails)
    explained = {}
    for shopper in shoppers.values():
        explained.update(dict.fromkeys(_causes(shopper)))
    for mail, count in counted.items():
        if mail not in explained:
            found.duplicates.append(f"{mail[0]} got {mail[1]} for {mail[2]} without a cause")
        elif count > 1:
            found.duplicates.append(f"{mail[0]} got {mail[1]} for {mail[2]} {count} times")
    excuses = Counter(excused)
    for shopper in shoppers.values():
        for journey, mail in _owed(shopper, now):
            if counted[mail]:
                continue
            excuse = Excused(shopper.user_id, journey)
            if excuses[excuse]:
                excuses[excuse] -= 1
            else:
                found.lost.append(f"{mail[0]} did not get {mail[1]} for {mail[2]}")
    return found


Key = tuple[str, str, str]


def _family(message: str) -> str:
    """Messages that one cause has one of."""
    for name, family in (("cart-first", _FIRST_CART_MAILS), ("cart-second", _SECOND_CART_MAILS), ("thanks", _THANKS)):
        if message in family:
            return name
    return message


def _causes(shopper: Shopper) -> Iterable[Key]:
    """Every mail that this shopper may have got."""
    for cart in shopper.carts:
        if _may_have_waited(cart):
            yield shopper.email, "cart-first", cart.id
            yield shopper.email, "cart-second", cart.id
        if cart.ordered is not None:
            yield shopper.email, "thanks", cart.order_id
    if shopper.joined_at is not None:
        for year in range(shopper.joined_at.year, shopper.joined_at.year + 3):
            yield shopper.email, "birthday", str(year)


def _may_have_waited(cart: Cart) -> bool:
    """Whether an hour may have passed without anything new, counting from what was received to what was."""
    return any(
        then is None or then.answered is None or then.answered >= told.at + CART_WAIT
        for told, then in pairwise([*cart.fills, cart.ordered])
        if told is not None
    )


def _owed(shopper: Shopper, now: datetime) -> Iterable[tuple[str, Key]]:
    """The mails that this shopper must have got by `now`, unless there is a reason."""
    orders = [cart.ordered for cart in shopper.carts if cart.ordered is not None]
    for cart in shopper.carts:
        filled = cart.fills[-1]
        if cart.total >= LEAST_CART and filled.answered is not None:
            due = filled.answered + CART_WAIT
            bought = any(filled.at <= order.at <= due for order in orders)
            if due < now and not bought:
                yield "abandoned-cart", (shopper.email, "cart-first", cart.id)
        ordered = cart.ordered
        if ordered is not None and ordered.answered is not None and ordered.answered + THANKS_WAIT < now:
            yield "thank-you", (shopper.email, "thanks", cart.order_id)
