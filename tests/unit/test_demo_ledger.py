"""What the ledger of the demonstration finds, by what its shop knows: when it told of something, and was answered."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from services.demo.ledger import Arrived, Excused, Findings, compare
from services.demo.shop import Cart, Shopper, Told

OPENING = datetime(2026, 3, 2, 9, tzinfo=UTC)
FIRST = Arrived("ada@example.com", "cart-reminder", "cart-1-1")
THANKS = Arrived("ada@example.com", "thank-you-first", "order-1-1")


def told(at: int, answered: int | None) -> Told:
    """In minutes from the opening."""
    return Told(OPENING + timedelta(minutes=at), None if answered is None else OPENING + timedelta(minutes=answered))


def found(filled: Told, ordered: Told | None, *mails: Arrived, excused: tuple[Excused, ...] = ()) -> Findings:
    cart = Cart("cart-1-1", [filled], 89.0, ordered)
    ada = Shopper(
        *("customer-1", "ada@example.com", "Ada", "Europe/Oslo", "nb-NO", "NO", date(1992, 5, 1)),
        joined_at=OPENING,
        carts=[cart],
    )
    return compare({"customer-1": ada}, mails, excused, OPENING + timedelta(hours=12))


def test_forgotten_cart_without_a_mail_is_lost() -> None:
    assert found(told(0, 5), None).lost == ["ada@example.com did not get cart-first for cart-1-1"]


def test_forgotten_cart_with_a_mail_is_well() -> None:
    assert found(told(0, 5), None, FIRST) == Findings()


def test_mail_that_is_held_is_not_lost() -> None:
    assert found(told(0, 5), None, excused=(Excused("customer-1", "abandoned-cart"),)) == Findings()


def test_cart_that_the_shop_never_heard_of_again_owes_nothing() -> None:
    assert found(told(0, None), None) == Findings()


def test_second_mail_for_one_cart_is_a_duplicate() -> None:
    assert found(told(0, 5), None, FIRST, FIRST).duplicates == ["ada@example.com got cart-first for cart-1-1 2 times"]


def test_mail_to_who_bought_within_the_hour_has_no_cause() -> None:
    said = found(told(0, 5), told(40, 50), FIRST, THANKS)
    assert said.duplicates == ["ada@example.com got cart-first for cart-1-1 without a cause"]


def test_order_long_after_the_hour_leaves_the_mail_owed() -> None:
    assert found(told(0, 5), told(300, 310), THANKS).lost == ["ada@example.com did not get cart-first for cart-1-1"]


def test_busy_machine_that_may_have_received_both_within_the_hour_owes_no_mail() -> None:
    """The shop told of the order 70 minutes after the cart, which was received up to an hour later than told."""
    assert found(told(0, 55), told(70, 75), THANKS) == Findings()


def test_busy_machine_that_may_have_received_the_order_after_the_hour_may_have_sent_the_mail() -> None:
    """The shop told of the order 40 minutes after the cart, and was answered after 65."""
    assert found(told(0, 5), told(40, 65), FIRST, THANKS) == Findings()
