"""Coupons: one code for each enrollment."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from journeys_road import NOON, Shop, email, journey, on, playbook
from msgspec.structs import replace

from services.journeys.coupons import Stock
from shared.language.playbook import Coupon, CouponPool, Journey

WEEK = timedelta(days=7)
POOL = CouponPool("ten", "Ten off", "TEN-", 8, None, WEEK)
ANNOUNCED = replace(POOL, announced_to="https://shop.example/hooks")
CODE = {"code": "steps.code.code", "until": "steps.code.expires"}


def thanks(**changes: Any) -> Journey:
    return journey(Coupon("code", "hello", "ten"), email("hello", **CODE), **on("Thanked", **changes))


def given(story: Shop) -> list[Any]:
    return [message.data["with"] for message in story.requested()]


def test_a_code_is_known_to_the_mail_and_noted_with_its_cause() -> None:
    story = Shop(playbook(thanks(), coupons=[POOL]))
    story.road.stock = Stock({"ten": ["TEN-A", "TEN-B"]})
    story.posts("Thanked", when="0m")
    assert given(story) == [{"code": "TEN-A", "until": "2026-03-09T12:00:00Z"}]
    (issued,) = story.road.stock.issued
    assert (issued.pool, issued.code, issued.customer, issued.journey, issued.step) == (
        *("ten", "TEN-A", "anna", "cart", "code"),
    )
    assert (issued.issued_at, issued.expires_at) == (NOON, NOON + timedelta(days=7))


def test_a_batch_says_of_which_pool_it_wants_more_codes_and_how_many() -> None:
    story = Shop(playbook(thanks(again="always"), coupons=[POOL]))
    story.road.stock = Stock({"ten": ["TEN-A"]})
    for minute in ("0m", "1m", "2m"):
        story.posts("Thanked", when=minute)
    assert story.road.stock.short == {"ten": (POOL, 2)}


def test_an_empty_pool_gives_null_and_the_journey_goes_on() -> None:
    story = Shop(playbook(thanks(), coupons=[POOL]))
    story.road.stock = Stock({}, {"ten": POOL})
    story.posts("Thanked", when="0m")
    assert given(story) == [{"code": None, "until": None}]
    assert (story.road.stock.refused, story.road.stock.short) == ({"ten": 1}, {})


def test_a_pool_that_was_empty_is_asked_anew_when_it_has_been_edited() -> None:
    story = Shop(playbook(thanks(), coupons=[replace(POOL, limit=20)]))
    story.road.stock = Stock({}, {"ten": replace(POOL, limit=10)})
    story.posts("Thanked", when="0m")
    assert list(story.road.stock.short) == ["ten"]


def test_a_pool_that_the_playbook_has_no_more_gives_null() -> None:
    story = Shop(playbook(thanks()))
    story.posts("Thanked", when="0m")
    assert given(story) == [{"code": None, "until": None}]


def test_steps_that_begin_again_keep_their_code() -> None:
    cart = journey(Coupon("code", "hello", "ten"), email("hello", **CODE))
    story = Shop(playbook(cart, coupons=[POOL]), mailer="holds")
    story.road.stock = Stock({"ten": ["TEN-A", "TEN-B"]})
    story.posts("Cart Updated", {"cart_id": "c1"}, when="0m")
    story.posts("Cart Updated", {"cart_id": "c1"}, when="1h")
    (first,) = story.requested()
    story.outcome(first, "Email Skipped", when="2h")
    assert [told["code"] for told in given(story)] == ["TEN-A", "TEN-A"]
    assert len(story.road.stock.issued) == 1


def test_the_shop_is_told_of_a_code_once_and_nobody_waits_for_its_answer() -> None:
    cart = journey(Coupon("code", "hello", "ten"), email("hello", **CODE))
    story = Shop(playbook(cart, coupons=[ANNOUNCED]), mailer="holds")
    story.road.stock = Stock({"ten": ["TEN-A", "TEN-B"]})
    story.posts("Cart Updated", {"cart_id": "c1"}, when="0m")
    call, mail = story.requested()
    assert (call.channel, call.announces, call.step, call.expires) == ("webhook", "ten", "code", NOON + WEEK)
    assert call.data == {
        "url": "https://shop.example/hooks",
        "type": "coupon.issued",
        "key": "c1",
        "with": {"pool": "ten", "code": "TEN-A", "expires": "2026-03-09T12:00:00Z"},
    }
    assert (mail.message, mail.announces) == ("hello", "")
    story.posts("Cart Updated", {"cart_id": "c1"}, when="1h")
    story.outcome(mail, "Email Skipped", when="2h")
    assert [message.message for message in story.requested()] == ["coupons/ten", "hello", "hello"]


def test_of_an_empty_pool_and_by_a_draft_nothing_is_told() -> None:
    for status, stock in (("live", Stock({}, {"ten": ANNOUNCED})), ("draft", Stock({"ten": ["TEN-A"]}))):
        story = Shop(playbook(thanks(status=status), coupons=[ANNOUNCED]))
        story.road.stock = stock
        story.posts("Thanked", when="0m")
        assert [message.message for message in story.requested()] == ["hello"]


def test_a_draft_issues_nothing() -> None:
    story = Shop(playbook(thanks(status="draft"), coupons=[POOL]))
    story.road.stock = Stock({"ten": ["TEN-A"]})
    story.posts("Thanked", when="0m")
    assert given(story) == [{"code": "TEN-DRAFT", "until": "2026-03-09T12:00:00Z"}]
    assert story.road.stock.issued == []
