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
    assert shop.ended("abandoned-cart") == ["completed"]


def test_who_has_bought_before_gets_another_last_word() -> None:
    shop = Shop()
    shop.joins()
    shop.orders("order-1-1", "1m")
    shop.adds(LAMP, when="10d")
    shop.passes("20d")
    assert [message for message, _ in shop.mails] == ["thank-you-first", "cart-reminder", "cart-old-friend"]


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


def test_a_small_cart_is_not_worth_a_mail() -> None:
    shop = Shop()
    shop.joins()
    shop.adds(BULB, when="5m")
    shop.passes("10d")
    assert shop.mails == []


def test_an_emptied_cart_is_not_spoken_of() -> None:
    shop = Shop()
    shop.joins()
    shop.adds(LAMP, when="5m")
    shop.posts("Product Removed", "20m", product_id="lamp-01", cart_id="cart-1-1")
    shop.passes("10d")
    assert shop.mails == []
    assert shop.ended("abandoned-cart") == ["exit_on"]


def test_buying_within_the_hour_brings_thanks_and_no_reminder() -> None:
    shop = Shop()
    shop.joins()
    shop.adds(LAMP, when="5m")
    shop.orders("order-1-1", "30m", cart_id="cart-1-1")
    shop.passes("10d")
    assert shop.mails == [("thank-you-first", shop.at("150m"))]
    assert shop.ended("abandoned-cart") == ["goal"]


def test_an_order_takes_back_a_reminder_that_waits_for_the_morning() -> None:
    shop = Shop()
    shop.joins()
    shop.adds(LAMP, when="5m")
    shop.holds = True
    shop.passes("2h")
    shop.orders("order-1-1", "3h")
    assert shop.cancelled() == ["cart-reminder"]


def test_who_came_back_from_the_reminder_is_left_alone() -> None:
    shop = Shop()
    shop.joins()
    shop.adds(LAMP, when="5m")
    shop.clicks("3h")
    shop.passes("10d")
    assert [message for message, _ in shop.mails] == ["cart-reminder"]
    assert shop.ended("abandoned-cart") == ["came back"]
    assert "readers" in shop.segments()


def test_each_order_is_thanked_for_once_and_a_later_one_otherwise() -> None:
    shop = Shop()
    shop.joins()
    shop.orders("order-1-1", "1h")
    shop.orders("order-1-1", "90m")  # the shop's server sends it once more, under another id
    shop.passes("5d")
    shop.orders("order-1-2", "6d")
    shop.passes("10d")
    assert [message for message, _ in shop.mails] == ["thank-you-first", "thank-you-again"]
    assert "order-1-1" in shop.texts[0]
    assert "order-1-2" in shop.texts[1]


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


def test_a_birthday_comes_once_in_every_year_and_on_the_28th_where_there_is_no_29th() -> None:
    shop = Shop()
    shop.joins(birthday="2000-02-29", timezone="UTC")
    shop.passes(datetime(2029, 1, 1, tzinfo=UTC))
    assert [due.date().isoformat() for _, due in shop.mails] == ["2027-02-28", "2028-02-29"]


def test_a_customer_without_an_address_gets_nothing_and_stops_nothing() -> None:
    shop = Shop()
    shop.joins(email=None)
    shop.adds(LAMP, when="5m")
    shop.passes("10d")
    assert shop.mails == []
    assert shop.ended("abandoned-cart") == ["completed"]


def test_a_norwegian_is_written_to_in_norwegian() -> None:
    shop = Shop()
    shop.joins(locale="nb-NO")
    shop.adds(LAMP, when="5m")
    shop.passes("2h")
    assert "- Lantern Nord: 89,00\u00a0€\nTil sammen: 89,00\u00a0€\n" in shop.texts[0]
