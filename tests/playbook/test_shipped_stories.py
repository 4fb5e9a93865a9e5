"""What customers of a shop with the shipped playbook live to see, from the posted event to the words of the mail."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from shipped_shop import BULB, LAMP, Shop

TOKYO = ZoneInfo("Asia/Tokyo")


def test_stages_move_with_what_customers_do_and_with_time_alone() -> None:
    shop = Shop()
    shop.joins()
    assert shop.stage() == "attract"
    shop.adds(LAMP, when="1h")
    assert shop.stage() == "convert"
    shop.passes("31d")
    assert shop.stage() == "attract"
    for number, moment in enumerate(("32d", "40d", "50d"), 1):
        shop.orders(f"order-1-{number}", moment)
        assert shop.stage() == ("delight" if number == 3 else "retain")


def test_segments_are_entered_and_left_to_the_day() -> None:
    shop = Shop()
    shop.joins()
    for minute in ("1m", "2m", "3m"):
        shop.posts("Product Viewed", minute, product_id="lamp-01")
    assert shop.segments() == ("window-shoppers",)
    shop.orders("order-1-1", "1h")
    assert shop.segments() == ("new-customers",)
    shop.passes("59d")
    assert shop.segments() == ()
    shop.passes("61d")
    assert shop.segments() == ("one-order",)
    shop.passes("181d")
    assert set(shop.segments()) == {"one-order", "lapsed"}
    shop.posts("Order Completed", "182d", order_id="order-1-2", total=450, currency="EUR")
    assert shop.segments() == ("vip",)


def test_a_forgotten_cart_gets_a_word_after_an_hour_and_a_last_one_a_day_later() -> None:
    shop = Shop()
    shop.joins()
    shop.adds(LAMP, BULB, when="5m")
    shop.passes("10d")
    assert shop.mails == [("cart-reminder", shop.at("65m")), ("cart-last-call", shop.at("1445m"))]
    first, last = shop.texts
    assert "Dear Ada,\n" in first
    assert "- Lantern Nord: €89.00\n- Warm bulb E27: €12.00\nTotal: €101.00\n" in first
    assert "cart-1-1" in first
    assert "cart-1-1" in last
    assert "our last\nnote about this cart" in last


def test_each_change_to_the_cart_begins_the_hour_anew() -> None:
    shop = Shop()
    shop.joins()
    shop.adds(LAMP, when="5m")
    shop.adds(BULB, when="50m")
    shop.passes("109m")
    assert shop.mails == []
    shop.passes("110m")
    assert shop.mails == [("cart-reminder", shop.at("110m"))]
    assert "Total: €101.00" in shop.texts[0]


def test_a_second_order_within_the_two_hours_leaves_the_first_one_first() -> None:
    shop = Shop()
    shop.joins()
    shop.orders("order-1-1", "1h")
    shop.orders("order-1-2", "2h")
    shop.passes("1d")
    assert shop.mails == [("thank-you-first", shop.at("3h")), ("thank-you-again", shop.at("4h"))]
    assert "That makes 2 orders by now." in shop.texts[1]


def test_birthdays_are_at_nine_in_the_morning_where_the_customer_lives() -> None:
    shop = Shop()
    shop.joins(birthday="1990-03-10", timezone="Asia/Tokyo")
    shop.joins(customer="bo", birthday="1985-03-10")  # who did not tell, lives where the shop does: in Oslo
    shop.passes("30d")
    assert shop.mails == [
        ("birthday", datetime(2026, 3, 10, 9, tzinfo=TOKYO).astimezone(UTC)),
        ("birthday", datetime(2026, 3, 10, 8, tzinfo=UTC)),
    ]
    assert shop.texts[0].startswith("Happy birthday, Ada!\n")


def test_a_norwegian_is_written_to_in_norwegian() -> None:
    shop = Shop()
    shop.joins(locale="nb-NO")
    shop.adds(LAMP, when="5m")
    shop.passes("2h")
    assert "- Lantern Nord: 89,00\u00a0€\nTil sammen: 89,00\u00a0€\n" in shop.texts[0]
