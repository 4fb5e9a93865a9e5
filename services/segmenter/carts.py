"""Carts that a shop does not report itself: kept up from Product Added, Product Removed and Order Completed. Pure.

A customer has one open cart. Its id is the shop's `cart_id` where it sends one, else derived from the event that
opened it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from shared.causes import named
from shared.contracts.events import CART_EMPTIED, CART_UPDATED, SEGMENTER_SOURCE, Event

PRODUCT_ADDED = "Product Added"
PRODUCT_REMOVED = "Product Removed"
ORDER_COMPLETED = "Order Completed"

CAUSES = frozenset({PRODUCT_ADDED, PRODUCT_REMOVED, ORDER_COMPLETED})

FORGOTTEN = timedelta(days=30)
"""A cart that nobody touched for so long is not added to: the next product opens another."""

MOST_LINES = 100
"""Different products that a cart keeps; what comes beyond them is left out."""

_IDENTIFYING = ("product_id", "sku", "variant")
_NOT_OF_THE_LINE = frozenset({"cart_id", "currency", "quantity"})
_LARGEST = Decimal(10**9)
_NAMESPACE = UUID("5d0c7a4e-6c1f-5d0e-9b39-0b1a6f3f8f5c")

_encode = msgspec.json.Encoder().encode


class Line(msgspec.Struct, array_like=True):
    """A product in a cart: its properties as the shop sent them last, and how many."""

    product: dict[str, Any]
    quantity: int | float


class Cart(msgspec.Struct, array_like=True):
    """`id` is None where no cart is open; `changed_at` is then when the last one was closed."""

    changed_at: datetime
    id: str | None = None
    shops_own: bool = False
    """Whether `id` came from the shop."""
    lines: tuple[Line, ...] = ()
    currency: str | None = None


NONE = msgspec.Raw(b"\xc0")
"""As `packed` writes the cart of a customer who never had one."""

_encode_cart = msgspec.msgpack.Encoder().encode
_decode_cart = msgspec.msgpack.Decoder(Cart | None).decode


def packed(cart: Cart | None) -> msgspec.Raw:
    """As it is kept in a profile: only the few events that are about carts read it."""
    return NONE if cart is None else msgspec.Raw(_encode_cart(cart))


def unpacked(cart: msgspec.Raw) -> Cart | None:
    found: Cart | None = _decode_cart(cart)
    return found


class Followed(NamedTuple):
    """The cart after an event, the event (with the cart's id on an order), and the events that follow from it."""

    cart: Cart | None
    event: Event
    derived: tuple[Event, ...]


def follow(cart: Cart | None, event: Event, properties: Mapping[str, Any]) -> Followed:
    """What one of CAUSES does to the cart.

    An event older than the cart's last change came late: an addition then says nothing of the cart of now, and must
    not reopen one that was bought.
    """
    late = cart is not None and event.occurred_at < cart.changed_at
    if event.name == ORDER_COMPLETED:
        return _ordered(cart, event, properties, late)
    if late:
        return Followed(cart, event, ())
    if event.name == PRODUCT_ADDED:
        return _added(cart, event, properties)
    return _removed(cart, event, properties)


def _added(cart: Cart | None, event: Event, properties: Mapping[str, Any]) -> Followed:
    sent = _cart_id(properties)
    keeps = (
        cart is not None
        and cart.id is not None
        and event.occurred_at - cart.changed_at < FORGOTTEN
        and (sent is None or sent == cart.id)
    )
    lines = list(cart.lines) if cart is not None and keeps else []
    quantity = _quantity(properties, otherwise=1)
    product = {name: value for name, value in properties.items() if name not in _NOT_OF_THE_LINE}
    same = _place_of(lines, product)
    if same is not None:
        lines[same] = Line({**lines[same].product, **product}, _plain(lines[same].quantity + quantity))
    elif len(lines) < MOST_LINES:
        lines.append(Line(product, quantity))
    after = Cart(
        changed_at=event.occurred_at,
        id=cart.id if cart is not None and keeps else sent or named(_NAMESPACE, f"{event.source}\0{event.id}"),
        shops_own=cart.shops_own if cart is not None and keeps else sent is not None,
        lines=tuple(lines),
        currency=_currency(properties) or (cart.currency if cart is not None and keeps else None),
    )
    return Followed(after, event, (_derived(event, CART_UPDATED, _contents(after)),))


def _removed(cart: Cart | None, event: Event, properties: Mapping[str, Any]) -> Followed:
    sent = _cart_id(properties)
    if cart is None or cart.id is None or (sent is not None and cart.shops_own and sent != cart.id):
        return Followed(cart, event, ())
    found = next((i for i, line in enumerate(cart.lines) if _matches(line.product, properties)), None)
    if found is None:
        return Followed(cart, event, ())
    line = cart.lines[found]
    left = _plain(line.quantity - _quantity(properties, otherwise=line.quantity))
    lines = cart.lines[:found] + ((Line(line.product, left),) if left > 0 else ()) + cart.lines[found + 1 :]
    if not lines:
        emptied = _derived(event, CART_EMPTIED, {"cart_id": cart.id, "reason": "removed"})
        return Followed(Cart(changed_at=event.occurred_at), event, (emptied,))
    after = Cart(event.occurred_at, cart.id, cart.shops_own, lines, cart.currency)
    return Followed(after, event, (_derived(event, CART_UPDATED, _contents(after)),))


def _ordered(cart: Cart | None, event: Event, properties: Mapping[str, Any], late: bool) -> Followed:
    if cart is None or cart.id is None:
        # Remembered all the same: an addition from before the order may still be on its way.
        closed_at = event.occurred_at if cart is None else max(cart.changed_at, event.occurred_at)
        return Followed(Cart(changed_at=closed_at), event, ())
    sent = _cart_id(properties)
    if cart.shops_own and sent is not None:
        if sent != cart.id:
            return Followed(cart, event, ())
    elif late:
        return Followed(cart, event, ())
    if sent is None:
        stamped = msgspec.Raw(_encode({**properties, "cart_id": cart.id}))
        event = msgspec.structs.replace(event, properties=stamped)
    emptied = _derived(event, CART_EMPTIED, {"cart_id": cart.id, "reason": "ordered"})
    return Followed(Cart(changed_at=max(cart.changed_at, event.occurred_at)), event, (emptied,))


def _contents(cart: Cart) -> dict[str, Any]:
    """The properties of `Cart Updated`. Without prices for all there is no total."""
    total = Decimal(0)
    products = []
    for line in cart.lines:
        price = _decimal(line.product.get("price"))
        total = total + price * _decimal_or_zero(line.quantity) if price is not None else Decimal("NaN")
        products.append({**line.product, "quantity": line.quantity})
    contents: dict[str, Any] = {
        "cart_id": cart.id,
        "products": products,
        "quantity": _plain(sum(line.quantity for line in cart.lines)),
    }
    if total.is_finite():
        contents["total"] = _plain(float(round(total, 2)))
    if cart.currency is not None:
        contents["currency"] = cart.currency
    return contents


def _derived(cause: Event, name: str, properties: Mapping[str, Any]) -> Event:
    return Event(
        id=named(_NAMESPACE, f"{cause.source}\0{cause.id}\0{name}"),
        source=SEGMENTER_SOURCE,
        key=cause.key,
        name=name,
        user_id=cause.user_id,
        anonymous_id=cause.anonymous_id,
        occurred_at=cause.occurred_at,
        received_at=cause.received_at,
        properties=msgspec.Raw(_encode(properties)),
        historical=cause.historical,
        hops=cause.hops,
    )


def _place_of(lines: Sequence[Line], added: Mapping[str, Any]) -> int | None:
    """Where the line of the same product stands."""
    said = [added.get(name) for name in _IDENTIFYING]
    for place, line in enumerate(lines):
        if [line.product.get(name) for name in _IDENTIFYING] == said:
            return place
    return None


def _matches(held: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether all that the shop says of the removed product fits; it must say something."""
    said = [name for name in _IDENTIFYING if asked.get(name) is not None]
    return bool(said) and all(held.get(name) == asked[name] for name in said)


def _cart_id(properties: Mapping[str, Any]) -> str | None:
    sent = properties.get("cart_id")
    if isinstance(sent, int) and not isinstance(sent, bool):
        return str(sent)
    return sent if isinstance(sent, str) and sent else None


def _currency(properties: Mapping[str, Any]) -> str | None:
    sent = properties.get("currency")
    return sent if isinstance(sent, str) and sent else None


def _quantity(properties: Mapping[str, Any], otherwise: float) -> int | float:
    sent = properties.get("quantity")
    if isinstance(sent, (int, float)) and not isinstance(sent, bool) and 0 < sent <= 1_000_000:
        return _plain(sent)
    return otherwise


def _plain(number: float) -> int | float:
    """Whole numbers as such, so that a cart looks the same before and after it was stored."""
    return int(number) if number == int(number) else number


def _decimal(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() and -_LARGEST < number < _LARGEST else None


def _decimal_or_zero(value: Any) -> Decimal:
    return _decimal(value) or Decimal(0)
