"""Carts of a shop that reports only what is put into them and taken out."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.segmenter.carts import MOST_LINES, Cart, Followed, follow
from shared.contracts.events import CART_EMPTIED, CART_UPDATED, Event

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
LAMP = {"product_id": "lamp", "name": "Lamp", "price": 49.9, "currency": "EUR"}
BULB = {"product_id": "bulb", "name": "Bulb", "price": 3.3, "currency": "EUR"}

_ids = itertools.count()


def event(name: str, minute: float = 0, /, id: str | None = None, **properties: Any) -> Event:
    at = NOON + timedelta(minutes=minute)
    return Event(
        id=id or f"e{next(_ids)}",
        source="shop",
        key="ann",
        name=name,
        occurred_at=at,
        received_at=at,
        properties=msgspec.Raw(msgspec.json.encode(properties)),
    )


def after(*events: Event, cart: Cart | None = None) -> Followed:
    followed = None
    for one in events:
        followed = follow(cart, one, said(one))
        cart = followed.cart
    assert followed is not None
    return followed


def said(of: Event) -> dict[str, Any]:
    return msgspec.json.decode(of.properties)  # type: ignore[no-any-return]


def test_first_product_opens_a_cart_whose_id_derives_from_it() -> None:
    one, again = (after(event("Product Added", id="first", **LAMP)) for _ in range(2))
    (updated,) = one.derived
    assert updated.name == CART_UPDATED
    assert said(updated) == {
        "cart_id": one.cart.id if one.cart else None,
        "products": [{"product_id": "lamp", "name": "Lamp", "price": 49.9, "quantity": 1}],
        "quantity": 1,
        "total": 49.9,
        "currency": "EUR",
    }
    assert one == again


def test_shops_own_cart_id_is_kept() -> None:
    followed = after(event("Product Added", cart_id="c1", **LAMP))
    assert said(followed.derived[0])["cart_id"] == "c1"


def test_total_is_exact_and_the_same_product_is_one_line() -> None:
    adding = [event("Product Added", i, **BULB) for i in range(3)]
    followed = after(*adding, event("Product Added", 3, **{**LAMP, "quantity": 2}))
    contents = said(followed.derived[0])
    assert contents["total"] == 109.7
    assert [(p["product_id"], p["quantity"]) for p in contents["products"]] == [("bulb", 3), ("lamp", 2)]
    assert contents["quantity"] == 5


def test_cart_without_all_prices_has_no_total() -> None:
    followed = after(event("Product Added", **LAMP), event("Product Added", 1, product_id="gift"))
    assert "total" not in said(followed.derived[0])


def test_taking_out_some_updates_and_taking_out_the_rest_empties() -> None:
    full = after(event("Product Added", **{**LAMP, "quantity": 3}))
    less = after(event("Product Removed", 1, product_id="lamp", quantity=1), cart=full.cart)
    assert said(less.derived[0])["quantity"] == 2
    none = after(event("Product Removed", 2, product_id="lamp"), cart=less.cart)
    (emptied,) = none.derived
    assert emptied.name == CART_EMPTIED
    assert said(emptied) == {"cart_id": said(less.derived[0])["cart_id"], "reason": "removed"}


def test_taking_out_what_is_not_there_says_nothing() -> None:
    full = after(event("Product Added", **LAMP))
    assert after(event("Product Removed", 1, product_id="bulb"), cart=full.cart).derived == ()
    assert after(event("Product Removed", 1, name="Lamp"), cart=full.cart).derived == ()
    assert after(event("Product Removed", 1, product_id="lamp")).derived == ()


def test_order_bears_the_carts_id_and_empties_it() -> None:
    full = after(event("Product Added", **LAMP))
    assert full.cart is not None
    ordered = after(event("Order Completed", 5, order_id="o1", total=49.9), cart=full.cart)
    assert said(ordered.event) == {"order_id": "o1", "total": 49.9, "cart_id": full.cart.id}
    assert [one.name for one in ordered.derived] == [CART_EMPTIED]
    assert said(ordered.derived[0]) == {"cart_id": full.cart.id, "reason": "ordered"}
    next_one = after(event("Product Added", 9, **LAMP), cart=ordered.cart)
    assert next_one.cart is not None
    assert next_one.cart.id != full.cart.id


def test_order_of_another_cart_of_the_shop_leaves_ours_open() -> None:
    full = after(event("Product Added", cart_id="mine", **LAMP))
    ordered = after(event("Order Completed", 5, cart_id="other"), cart=full.cart)
    assert ordered.cart == full.cart
    assert ordered.derived == ()
    assert said(ordered.event)["cart_id"] == "other"


def test_addition_that_comes_late_does_not_reopen_what_was_bought() -> None:
    full = after(event("Product Added", **LAMP))
    ordered = after(event("Order Completed", 5), cart=full.cart)
    late = after(event("Product Added", 4, **BULB), cart=ordered.cart)
    assert late.derived == ()
    assert late.cart == ordered.cart


def test_addition_from_before_an_order_of_a_customer_without_cart_opens_none() -> None:
    ordered = after(event("Order Completed", 5))
    assert ordered.derived == ()
    assert after(event("Product Added", 4, **BULB), cart=ordered.cart).derived == ()
    assert after(event("Product Added", 6, **BULB), cart=ordered.cart).derived != ()


def test_cart_of_last_month_is_forgotten() -> None:
    old = after(event("Product Added", **LAMP))
    new = after(event("Product Added", 31 * 24 * 60, **BULB), cart=old.cart)
    assert old.cart is not None
    assert new.cart is not None
    assert new.cart.id != old.cart.id
    assert len(new.cart.lines) == 1


def test_derived_event_is_as_historical_as_its_cause() -> None:
    cause = msgspec.structs.replace(event("Product Added", **LAMP), historical=True, hops=2)
    (updated,) = after(cause).derived
    assert updated.historical
    assert (updated.hops, updated.key, updated.occurred_at) == (2, "ann", cause.occurred_at)


def test_hostile_properties_do_not_break_a_cart() -> None:
    for hostile in (
        {"product_id": ["x"], "price": "free", "quantity": -4, "cart_id": {}, "currency": 7},
        {"price": "1e999999999", "quantity": "many"},
        {"price": True, "quantity": True, "cart_id": ""},
        {},
    ):
        followed = after(event("Product Added", **hostile))
        assert said(followed.derived[0])["quantity"] == 1
        assert "total" not in said(followed.derived[0])


def test_cart_keeps_so_many_products_and_no_more() -> None:
    many = [event("Product Added", i, product_id=f"p{i}", price=1) for i in range(MOST_LINES + 20)]
    followed = after(*many)
    assert followed.cart is not None
    assert len(followed.cart.lines) == MOST_LINES


moves = st.lists(
    st.tuples(
        st.sampled_from(["Product Added", "Product Removed", "Order Completed"]),
        st.sampled_from(["lamp", "bulb", "rug"]),
        st.integers(1, 4),
    ),
    max_size=30,
)


@given(moves)
def test_cart_holds_what_was_put_in_and_not_taken_out(steps: list[tuple[str, str, int]]) -> None:
    cart: Cart | None = None
    expected: dict[str, int] = {}
    for minute, (name, product, quantity) in enumerate(steps):
        one = event(name, minute, product_id=product, quantity=quantity, price=2)
        followed = follow(cart, one, said(one))
        cart = followed.cart
        if name == "Product Added":
            expected[product] = expected.get(product, 0) + quantity
        elif name == "Product Removed":
            expected[product] = max(0, expected.get(product, 0) - quantity)
        else:
            expected = {}
        held = {line.product["product_id"]: line.quantity for line in cart.lines} if cart else {}
        assert held == {p: q for p, q in expected.items() if q}
        for derived in followed.derived:
            if derived.name == CART_UPDATED:
                assert said(derived)["total"] == 2 * sum(held.values())
            else:
                assert held == {}
