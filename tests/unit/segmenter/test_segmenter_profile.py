"""What is remembered of a customer: traits, consent, stages and segments, entered and left by events and by time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from segmenter_world import Road, activation, at, birthday, event, identify, playbook

from services.segmenter.profile import take
from shared.contracts.customers import Activation, DateReached
from shared.contracts.events import MAILER_SOURCE, Refused


def test_customer_goes_from_attract_to_convert_to_retain() -> None:
    road = Road(playbook())
    road.take(event("Page Viewed", at()), event("Product Added", at(1)), event("Order Completed", at(2)))
    assert [(u.stage_before, u.customer.stage) for u in road.updates] == [
        ("", "attract"),
        ("attract", "convert"),
        ("convert", "retain"),
    ]
    assert all(update.cause == "event" for update in road.updates)


def test_stage_that_stays_is_not_told_again() -> None:
    road = Road(playbook())
    road.take(event("Page Viewed", at()), event("Page Viewed", at(1)))
    assert [u.stage_before for u in road.updates] == ["", None]


def test_customer_who_puts_nothing_more_in_a_cart_falls_back_by_time_alone() -> None:
    road = Road(playbook())
    road.take(event("Product Added", at()))
    road.pass_to(at(30) - timedelta(microseconds=1))
    assert road.profile().stage == "convert"
    road.pass_to(at(31))
    (update,) = [u for u in road.updates if u.cause == "time"]
    assert (update.stage_before, update.customer.stage, update.as_of) == ("convert", "attract", at(30))
    assert update.event is None


def test_lapsed_segment_is_entered_to_the_moment_and_left_by_the_next_order() -> None:
    segments = {"lapsed": 'count("Order Completed") >= 1 and count("Order Completed", within=180d) == 0'}
    road = Road(playbook(segments=segments))
    road.take(event("Order Completed", at()))
    road.pass_to(at(200))
    road.take(event("Order Completed", at(201)))
    told = [(u.cause, u.as_of, u.entered, u.left) for u in road.updates if u.entered or u.left]
    assert told == [("time", at(180), ("lapsed",), ()), ("event", at(201), (), ("lapsed",))]


def test_timer_is_moved_only_when_a_flip_comes_earlier_than_it() -> None:
    road = Road(playbook())
    road.take(event("Product Added", at()))
    assert road.timers == {("flip", "ann"): at(30)}
    road.take(event("Product Added", at(10)))
    assert road.timers == {("flip", "ann"): at(30)}, "the flip moved away to day 40; the timer may stand too early"
    road.pass_to(at(35))
    assert road.profile().stage == "convert"
    assert road.timers == {("flip", "ann"): at(40)}
    road.pass_to(at(41))
    assert road.profile().stage == "attract"
    assert road.timers == {}


def test_event_that_comes_late_counts_from_when_it_occurred() -> None:
    road = Road(playbook())
    road.take(event("Product Added", at(-29), received=at()))
    assert road.profile().stage == "convert"
    road.pass_to(at(1))
    assert road.profile().stage == "attract"
    assert road.updates[-1].as_of == at(1)


def test_segment_that_reads_another_follows_it() -> None:
    segments = {
        "happy": 'in_segment("vip") and traits.mood == "good"',
        "vip": 'sum("Order Completed", "total", within=10d) >= 100',
        "known": 'customer.stage == "retain"',
    }
    road = Road(playbook(segments=segments))
    road.take(identify(at(), mood="good"), event("Order Completed", at(1), total=150, currency="EUR"))
    assert set(road.updates[-1].entered) == {"vip", "happy", "known"}
    road.pass_to(at(12))
    assert set(road.updates[-1].left) == {"vip", "happy"}
    assert road.profile().segments == ("known",)


def test_segment_of_those_not_seen_for_a_while() -> None:
    road = Road(playbook(segments={"away": "days_since(customer.last_seen) > 14"}))
    road.take(event("Page Viewed", at()))
    road.take(event("Email Sent", at(10), source=MAILER_SOURCE))
    road.take(event("Email Opened", at(12), source=MAILER_SOURCE, machine=True))
    road.pass_to(at(15))
    assert road.profile().segments == ("away",), "our own mail is no sign of life, nor is a machine that opens it"
    road.take(event("Email Link Clicked", at(16), source=MAILER_SOURCE))
    assert road.profile().segments == ()
    assert road.profile().last_seen == at(16)


def test_what_mailer_has_done_leaves_nothing_to_be_written_of_a_customer() -> None:
    book = playbook(segments={"away": "days_since(customer.last_seen) > 14"})
    road = Road(book)
    road.take(event("Page Viewed", at()))
    before = road.profile()
    after, (told,) = take(before, event("Email Sent", at(10), source=MAILER_SOURCE), road.rules[book.hash], at(10))
    assert after is before
    assert (told.event.name, told.profile) == ("Email Sent", before)
    late, _ = take(before, event("Email Sent", at(15), source=MAILER_SOURCE), road.rules[book.hash], at(15))
    assert late is not before, "the timer is to be set anew"


def test_opens_by_machines_are_counted_only_where_they_are_asked_about() -> None:
    road = Road(
        playbook(
            segments={
                "readers": 'count("Email Opened") >= 1',
                "anybody": 'count("Email Opened", where=event.machine in [true, false]) >= 1',
            }
        )
    )
    road.take(event("Email Opened", at(1), source=MAILER_SOURCE, machine=True, reason="apple_privacy"))
    assert road.profile().segments == ("anybody",)
    road.take(event("Email Opened", at(2), source=MAILER_SOURCE, machine=False, reason=""))
    assert road.profile().segments == ("anybody", "readers")


def test_traits_are_replaced_by_name_and_null_removes_one() -> None:
    road = Road(playbook(segments={"nordic": 'traits.country in ["NO", "SE"]'}))
    road.take(identify(at(), country="NO", plan={"name": "gold", "seats": 3}))
    assert road.updates[-1].entered == ("nordic",)
    road.take(identify(at(1), country=None, plan={"name": "silver"}))
    assert road.profile().traits == {"plan": {"name": "silver"}}
    assert road.updates[-1].left == ("nordic",)


def test_identify_that_comes_late_fills_in_and_overrides_nothing() -> None:
    road = Road(playbook())
    road.take(identify(at(2), country="NO"))
    road.take(identify(at(1), country="SE", city="Gothenburg", received=at(3)))
    assert road.profile().traits == {"country": "NO", "city": "Gothenburg"}


def test_address_language_and_place() -> None:
    road = Road(playbook())
    road.take(event("Page Viewed", at(), context={"locale": "en-US", "timezone": "America/New_York"}))
    road.take(identify(at(1), email=" Ann@example.com ", locale="nb_NO", timezone="Europe/Oslo"))
    customer = road.updates[-1].customer
    assert (customer.address, customer.locale, customer.timezone) == ("Ann@example.com", "nb-NO", "Europe/Oslo")
    assert road.updates[-1].address_before == ""
    road.take(identify(at(2), email="ann@example.org", locale=None, timezone="Mars/Olympus"))
    customer = road.updates[-1].customer
    assert (customer.address, customer.locale, customer.timezone) == ("ann@example.org", "en-US", "America/New_York")
    assert road.updates[-1].address_before == "Ann@example.com"


@pytest.mark.parametrize("email", ["nobody", "a@b@c", "a b@c.d", "a@b\nBcc: x@y.z", 7, None, ["a@b.c"], "@", ""])
def test_trait_that_is_no_address_gives_none(email: object) -> None:
    road = Road(playbook())
    road.take(identify(at(), email=email))
    assert road.updates[-1].customer.address is None


def test_consent_by_event_and_the_segment_that_asks_for_it() -> None:
    road = Road(playbook(segments={"readers": 'consented("newsletter")'}))
    road.take(event("Topic Subscribed", at(), topic="newsletter", source="checkout"))
    (decision,) = road.updates[-1].consent
    assert (decision.topic, decision.subscribed, decision.source) == ("newsletter", True, "checkout")
    assert road.updates[-1].entered == ("readers",)
    road.take(event("Unsubscribed", at(1), source=MAILER_SOURCE))
    assert road.updates[-1].left == ("readers",)
    assert road.updates[-1].customer.consent == {"newsletter": False, "*": False}


@pytest.mark.parametrize("topic", ["News letter", "a\0b", "n" * 65, "-", "", 7.5, None, ["newsletter"]])
def test_what_can_be_no_topic_decides_nothing(topic: object) -> None:
    """Else it would have to be kept, and PostgreSQL takes neither NUL nor a key of any length."""
    road = Road(playbook())
    road.take(event("Topic Unsubscribed", at(), topic=topic))
    road.take(identify(at(1), consent={str(topic): False}))
    assert [update.consent for update in road.updates] == [(), ()]
    assert road.updates[-1].customer.consent == {}


def test_word_on_where_a_decision_was_made_is_kept_short() -> None:
    road = Road(playbook())
    said = msgspec.json.encode({"topic": "newsletter", "source": "\0" + "x" * 5000})
    road.take(msgspec.structs.replace(event("Topic Unsubscribed", at()), properties=msgspec.Raw(said)))
    assert road.updates[-1].consent[0].source == "x" * 200


def test_late_yes_is_no_news() -> None:
    road = Road(playbook())
    road.take(event("Topic Unsubscribed", at(2), topic="newsletter"))
    road.take(event("Topic Subscribed", at(1), topic="newsletter", received=at(3)))
    assert road.updates[-1].consent == ()
    assert road.updates[-1].customer.consent == {"newsletter": False}


def test_shop_that_repeats_old_traits_does_not_undo_an_unsubscribe() -> None:
    road = Road(playbook())
    road.take(identify(at(), consent={"newsletter": True}))
    assert road.updates[-1].customer.consent == {"newsletter": True}
    road.take(event("Topic Unsubscribed", at(1), topic="newsletter", source=MAILER_SOURCE))
    road.take(identify(at(2), consent={"newsletter": True}, city="Oslo"))
    assert road.updates[-1].customer.consent == {"newsletter": False}
    road.take(identify(at(3), consent={"newsletter": False}), identify(at(4), consent={"newsletter": True}))
    assert road.updates[-1].customer.consent == {"newsletter": True}


def test_same_event_twice_counts_once_for_a_day() -> None:
    road = Road(playbook())
    road.take(event("Order Completed", at(), id="o1"), event("Order Completed", at(hours=1), id="o1"))
    road.take(event("Order Completed", at(hours=23), id="o1"))
    assert (road.processed, road.deduplicated, len(road.updates)) == (1, 2, 1)
    road.take(event("Order Completed", at(hours=24), id="o1"))
    assert road.processed == 2


def test_same_id_from_another_source_is_another_event() -> None:
    road = Road(playbook())
    road.take(event("Order Completed", at(), id="1"), event("Order Completed", at(), id="1", source="till"))
    assert road.processed == 2


def test_same_id_with_other_content_is_set_aside() -> None:
    road = Road(playbook())
    road.take(event("Order Completed", at(), id="o1", total=10), event("Order Completed", at(), id="o1", total=11))
    assert (road.processed, road.deduplicated) == (1, 0)
    ((key, _, code, message),) = road.letters
    assert (key, code) == ("ann", "conflicting_duplicate")
    assert "'o1'" in message


def test_event_that_goes_round_in_circles_is_set_aside() -> None:
    road = Road(playbook())
    road.take(event("Reward Given", at(), hops=8), event("Reward Given", at(), hops=9))
    assert road.processed == 1
    assert [code for _, _, code, _ in road.letters] == ["loop"]


def test_what_ingest_refused_is_filed_with_its_bytes() -> None:
    road = Road(playbook())
    road.take(Refused(source="shop", received_at=at(), code="no_id", message="no id.", body=b'{"event": "x"}'))
    assert road.letters == [("shop", b'{"event": "x"}', "no_id", "no id.")]


def test_profile_that_would_grow_too_large_refuses_the_event_and_goes_on() -> None:
    road = Road(playbook())
    road.take(identify(at(), name="Ann"))
    for number in range(20):
        road.take(identify(at(number), **{f"essay-{number}": "x" * 30_000}))
    assert {code for _, _, code, _ in road.letters} == {"profile_too_large"}
    assert len(road.packed["ann"]) <= 256_000
    assert road.processed + len(road.letters) == 21
    road.take(event("Order Completed", at(30)))
    assert road.profile().stage == "retain"


@pytest.mark.parametrize("properties", [b"[1]", b"{", b'{"a": 1e999}', b'{"cart_id": "\\ud800"}'])
def test_event_that_cannot_be_read_is_set_aside(properties: bytes) -> None:
    road = Road(playbook())
    broken = msgspec.structs.replace(event("Order Completed", at()), properties=msgspec.Raw(properties))
    road.take(broken, event("Page Viewed", at()))
    assert [code for _, _, code, _ in road.letters] == ["unreadable"]
    assert road.processed == 1


def test_trait_beyond_64_bits_is_set_aside() -> None:
    road = Road(playbook())
    road.take(identify(at(), points=2**70))
    assert [code for _, _, code, _ in road.letters] == ["unreadable"]
    assert road.packed == {}


def test_derived_cart_follows_its_cause_on_the_road() -> None:
    road = Road(playbook(carts="derived", segments={"carts": 'count("Cart Updated") >= 2'}))
    road.take(event("Product Added", at(), product_id="lamp", price=10))
    road.take(event("Product Added", at(1), product_id="bulb", price=3))
    road.take(event("Order Completed", at(2), order_id="o1"))
    told = [(u.event.name if u.event else "", u.derived) for u in road.updates]
    assert told == [
        ("Product Added", False),
        ("Cart Updated", True),
        ("Product Added", False),
        ("Cart Updated", True),
        ("Order Completed", False),
        ("Cart Emptied", True),
    ]
    assert road.updates[3].entered == ("carts",)
    assert road.processed == 3


def test_shop_that_sends_its_own_carts_gets_none_derived() -> None:
    road = Road(playbook(carts="sent"))
    road.take(event("Product Added", at(), product_id="lamp"), event("Cart Updated", at(), cart_id="c1"))
    assert [u.derived for u in road.updates] == [False, False]


def test_historical_event_keeps_its_mark() -> None:
    road = Road(playbook())
    road.take(event("Order Completed", at(-100), received=at(), historical=True))
    assert road.updates[-1].event is not None
    assert road.updates[-1].event.historical
    assert road.profile().stage == "retain"
    assert road.profile().first_seen == at(-100)


def test_birthday_comes_in_the_customers_own_time() -> None:
    road = Road(playbook(dates={"birthday": birthday()}))
    road.take(identify(at(), birthday="1990-03-05", timezone="Asia/Tokyo"))
    assert road.timers[("date", "birthday\nann")] == datetime(2026, 3, 5, tzinfo=UTC)
    road.pass_to(at(10))
    (reached,) = [r for r in road.records if isinstance(r, DateReached)]
    assert (reached.as_of, reached.journey, reached.occasion) == (datetime(2026, 3, 5, tzinfo=UTC), "birthday", "2026")
    assert reached.customer.traits["birthday"] == "1990-03-05"
    assert road.timers[("date", "birthday\nann")] == datetime(2027, 3, 5, tzinfo=UTC)


def test_birthday_that_is_edited_comes_once_a_year() -> None:
    road = Road(playbook(dates={"birthday": birthday()}))
    road.take(identify(at(), birthday="1990-03-05"))
    road.pass_to(at(10))
    road.take(identify(at(11), birthday="1990-04-01"))
    road.pass_to(at(100))
    road.take(identify(at(101), birthday=None))
    assert ("date", "birthday\nann") not in road.timers
    road.take(identify(at(102), birthday="1990-12-24"))
    road.pass_to(at(500))
    reached = [(r.as_of.date().isoformat(), r.occasion) for r in road.records if isinstance(r, DateReached)]
    assert reached == [("2026-03-05", "2026")]
    assert road.timers[("date", "birthday\nann")] == datetime(2027, 12, 24, 9, tzinfo=UTC)


def test_moving_east_on_the_birthday_does_not_lose_it() -> None:
    road = Road(playbook(dates={"birthday": birthday("15:00")}))
    road.take(identify(at(), birthday="1990-03-02"))
    assert road.timers[("date", "birthday\nann")] == at(hours=3)
    road.take(identify(at(hours=1), timezone="Asia/Tokyo"))
    road.pass_to(at(hours=1))
    assert [r.as_of for r in road.records if isinstance(r, DateReached)] == [at(hours=1)]


def test_before_any_playbook_profiles_are_kept_and_the_first_one_finds_them() -> None:
    first = playbook(segments={"vip": 'sum("Order Completed", "total") >= 100'})
    road = Road()
    road.rules |= Road(first).rules
    road.definitions |= Road(first).definitions
    road.take(identify(at(), name="Ann"), event("Order Completed", at(1), total=150, currency="EUR"))
    assert [u.customer.stage for u in road.updates] == ["", ""]
    road.take(activation(first, at(2)), event("Page Viewed", at(3)))
    by_definition, by_event = road.updates[-2:]
    assert (by_definition.cause, by_definition.customer.stage, by_definition.entered) == (
        "definition",
        "retain",
        ("vip",),
    )
    assert (by_event.cause, by_event.stage_before, by_event.entered) == ("event", None, ())
    assert [r.playbook for r in road.records if isinstance(r, Activation)] == [first.hash]


def test_edited_threshold_moves_customers_without_starting_anything() -> None:
    before = playbook(segments={"vip": 'count("Order Completed") >= 5', "buyers": 'count("Order Completed") >= 1'})
    after = playbook(segments={"vip": 'count("Order Completed") >= 2', "buyers": 'count("Order Completed") >= 1'})
    road = Road(before, after)
    road.take(event("Order Completed", at()), event("Order Completed", at(1)))
    road.take(activation(after, at(2)))
    assert road.profile().segments == ("buyers",)
    road.sweep()
    assert [(u.cause, u.entered) for u in road.updates if u.entered] == [
        ("event", ("buyers",)),
        ("definition", ("vip",)),
    ]


def test_segment_that_is_gone_is_left() -> None:
    before, after = playbook(segments={"a": "true", "b": "true"}), playbook(segments={"b": "true"})
    road = Road(before, after)
    road.take(event("Page Viewed", at()), activation(after, at(1)))
    road.sweep()
    assert (road.updates[-1].cause, road.updates[-1].left) == ("definition", ("a",))
    assert road.profile().segments == ("b",)


def test_new_aggregate_is_built_from_history_when_a_customer_is_touched() -> None:
    before = playbook()
    after = playbook(segments={"lamps": 'count("Product Viewed", where=event.category == "lamps", within=30d) >= 3'})
    road = Road(before, after)
    road.take(*(event("Product Viewed", at(n), category="lamps") for n in range(2)))
    road.take(event("Product Viewed", at(3), category="rugs"))
    road.take(activation(after, at(4)), event("Product Viewed", at(5), category="lamps"))
    assert (road.updates[-1].cause, road.updates[-1].entered) == ("event", ("lamps",))
    road.pass_to(at(40))
    assert (road.updates[-1].cause, road.updates[-1].as_of, road.updates[-1].left) == ("time", at(30), ("lamps",))


def test_flip_by_time_stays_one_when_something_else_was_edited_meanwhile() -> None:
    lapsed = 'count("Order Completed") >= 1 and count("Order Completed", within=180d) == 0'
    before = playbook(segments={"lapsed": lapsed, "vip": 'count("Order Completed") >= 5'})
    after = playbook(segments={"lapsed": lapsed, "vip": 'count("Order Completed") >= 1'})
    road = Road(before, after)
    road.take(event("Order Completed", at()))
    road.take(activation(after, at(100)))
    road.pass_to(at(181))
    assert [(u.cause, u.entered) for u in road.updates if u.entered] == [
        ("definition", ("vip",)),
        ("time", ("lapsed",)),
    ]


def test_birthday_between_applying_and_sweeping_is_not_lost() -> None:
    before, after = playbook(), playbook(dates={"birthday": birthday()})
    road = Road(before, after)
    road.take(identify(at(), birthday="1990-03-05"), identify(at(), key="bob", birthday="1990-03-01"))
    road.take(activation(after, at(1)))
    road.pass_to(at(5))
    assert not [r for r in road.records if isinstance(r, DateReached)]
    road.sweep()
    road.pass_to(at(5))
    (reached,) = [r for r in road.records if isinstance(r, DateReached)]
    assert (reached.customer.key, reached.occasion) == ("ann", "2026")
    assert road.timers[("date", "birthday\nbob")] == datetime(2027, 3, 1, 9, tzinfo=UTC)


def test_removed_date_takes_its_timer_along_and_remembers_what_came() -> None:
    with_date = playbook(dates={"birthday": birthday()})
    without, again = playbook(), playbook(dates={"birthday": birthday("10:00")})
    road = Road(with_date, without, again)
    road.take(identify(at(), birthday="1990-03-05"))
    road.pass_to(at(4))
    road.take(activation(without, at(5)))
    road.sweep()
    assert ("date", "birthday\nann") not in road.timers
    road.take(activation(again, at(6)), identify(at(7), birthday="1990-03-20"))
    assert road.timers[("date", "birthday\nann")] == datetime(2027, 3, 20, 10, tzinfo=UTC)


def test_what_journeys_evaluate_travels_and_the_rest_stays() -> None:
    one = playbook(travelling=['sum("Order Completed", "total", within=90d) > 0'])
    road = Road(one)
    road.take(event("Order Completed", at(), total=10, currency="EUR"))
    assert set(road.updates[-1].customer.aggregates) == one.journey_aggregates


def test_playbook_with_other_words_and_the_same_rules_changes_nobody() -> None:
    one, same_rules = playbook(), playbook()
    road = Road(one, same_rules)
    road.take(event("Product Added", at()))
    packed = road.packed["ann"]
    road.take(activation(same_rules, at(1)))
    road.sweep()
    assert road.packed["ann"] == packed
    assert len(road.updates) == 1
