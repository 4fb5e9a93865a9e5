"""Names that nothing defines: messages, steps, events and their properties, and what counts as spending."""

from __future__ import annotations

import pytest
from sample_playbook import ADDED, CART, CATALOGUE, ORDER, RAPPORT, SEGMENTS, journey, of_journey, said_of, sample

from shared.language import load


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            CART.replace("email: cart-reminder", "email: cart-remindr"),
            '10:12: there is no message "cart-remindr". Did you mean "cart-reminder"?',
        ),
        (
            CART.replace("email: cart-reminder", "email: other"),
            '10:12: there is no message "other". Add the folder messages/other.',
        ),
        (
            CART.replace("topic: cart-reminders", "topic: cart-reminder"),
            '7:10: topics.yaml has no topic "cart-reminder". Did you mean "cart-reminders"?',
        ),
        (
            CART.replace("defaults:\n  topic: cart-reminders\n", ""),
            "8:12: this mail has no topic, so nobody could opt out of it. "
            "Add topic: to it or to defaults: cart-reminders or receipts.",
        ),
        (
            CART + "    topic: news\n",
            '11:12: topics.yaml has no topic "news". Add it there, or use cart-reminders or receipts.',
        ),
        (
            journey("- email: cart-reminder", trigger="segment: vpi"),
            '3:12: segments.yaml has no segment "vpi". Did you mean "vip"?',
        ),
        (
            journey("- email: cart-reminder", trigger="stage: retain"),
            '3:10: stages.yaml has no stage "retain". Add it there, or use attract or convert.',
        ),
        (
            journey('- if: in_segment("vips")\n  then: [email: cart-reminder]'),
            '6:20: segments.yaml has no segment "vips". Did you mean "vip"?',
        ),
        (
            journey('- if: consented("newsletter")\n  then: [email: cart-reminder]'),
            '6:19: topics.yaml has no topic "newsletter". Add it there, or use cart-reminders or receipts.',
        ),
        (
            journey('- if: customer.stage == "delight"\n  then: [email: cart-reminder]'),
            '6:27: stages.yaml has no stage "delight". Add it there, or use attract or convert.',
        ),
        (
            journey("- if: customer.sage == 1\n  then: [email: cart-reminder]"),
            '6:9: "customer" has no "sage". Did you mean customer.stage?',
        ),
        (
            journey("- email: cart-reminder\n- if: key == 1"),
            "7:9: this journey has no key. Add key: to the trigger, such as key: event.cart_id.",
        ),
        (
            journey("- if: trigger.total > 1\n  then: [email: cart-reminder]", trigger="stage: attract"),
            "6:9: this journey does not begin with an event, so trigger is null. Use traits or customer.",
        ),
    ],
)
def test_a_name_that_nothing_defines(text: str, said: str) -> None:
    assert said in of_journey(text)


def test_a_journey_is_called_like_its_file() -> None:
    assert of_journey(CART.replace("journey: cart", "journey: chart")) == [
        '1:10: this file is cart.yaml, and its journey is called "chart". Give both the same name.'
    ]


def test_without_a_catalogue_only_a_near_miss_of_a_usual_name_is_remarked_on() -> None:
    assert of_journey(CART.replace("event: Cart Updated", "event: Contract Signed")) == []
    assert of_journey(CART.replace("event: Cart Updated", "event: Order Delivered")) == []
    assert of_journey(CART.replace("event: Cart Updated", "event: Cart Updates")) == [
        '3:10: warning: "Cart Updates" is not the usual name. Did you mean "Cart Updated"?'
    ]


def test_with_a_catalogue_every_event_is_in_it() -> None:
    text = CART.replace("event: Cart Updated", "event: Order Complete").replace("event.total", "event.sum")
    assert of_journey(text, **CATALOGUE) == [
        '3:10: no file under events/ describes "Order Complete". Did you mean "Order Completed"?'
    ]
    said = said_of(sample(**CATALOGUE, segments_yaml='segments: {a: {when: count("Invoice Paid") >= 1}}'))
    assert said == [
        'segments.yaml:1:28: no file under events/ describes "Invoice Paid". '
        "Add it to the catalogue, or correct the name."
    ]


def test_a_percentile_needs_orders_with_a_total() -> None:
    asks = journey("- if: customer.spend_percentile >= 80\n  then: [email: cart-reminder]")
    assert of_journey(asks) == []
    no_total = "event: Order Completed\nproperties: {revenue: {type: number}}\n"
    assert [line for line in of_journey(asks, events__order_yaml=no_total) if "total" in line and "spent" in line] == [
        '6:9: "Order Completed" has no total in the catalogue, so nobody has spent anything. '
        "Have the shop send total, or say spend: sum(...) in rapport.yaml."
    ]
    assert '6:9: no file under events/ describes "Order Completed". Add it to the catalogue, or correct the name.' in (
        of_journey(asks, events__added_yaml=ADDED)
    )
    assert any("text" in line for line in of_journey(asks.replace("80", '"80"'))), "it is a number"


def test_a_percentile_is_compared_with_one() -> None:
    def said(condition: str) -> list[str]:
        return of_journey(journey(f"- if: {condition}\n  then: [email: cart-reminder]"))

    known = "warning: a percentile is a whole number from 0 to 99."
    assert said("customer.spend_percentile >= 0.8") == [f"6:38: {known} Write 80."]
    assert said("100 < customer.spend_percentile") == [f"6:9: {known} The best hundredth are at 99."]
    assert said("customer.spend_percentile > 0 and customer.spend_percentile <= 99") == []


def test_spending_is_counted_where_something_asks_for_a_percentile_and_nowhere_else() -> None:
    assert load(sample()).spend is None
    top = "segments:\n  top: {when: customer.spend_percentile >= 80}\n"
    found = load(sample(segments_yaml=SEGMENTS + top.removeprefix("segments:\n")))
    assert found.spend is not None
    assert found.aggregates[found.spend.id] == found.spend
    assert found.spend.id not in found.journey_aggregates


def test_a_brand_says_what_counts_as_spending() -> None:
    def brand(spend: str) -> dict[str, bytes]:
        top = "  top: {when: customer.spend_percentile >= 80}\n"
        return sample(rapport_yaml=f"{RAPPORT}spend: '{spend}'\n", segments_yaml=SEGMENTS + top)

    found = load(brand('sum("Order Paid", "amount", where=event.channel == "web")'))
    assert found.spend is not None
    assert (found.spend.event, found.spend.field) == ("Order Paid", ("amount",))
    assert found.brand.spend == found.spend
    unasked = load(sample(rapport_yaml=f'{RAPPORT}spend: \'sum("Order Paid", "amount")\'\n'))
    assert unasked.spend is None
    assert "Order Paid" not in {aggregate.event for aggregate in unasked.aggregates.values()}
    remedy = 'customers are ranked by one sum over all time, and this is none. Write sum("Order Completed", "total").'
    for wrong in ('sum("Order Paid", "amount", within=30d)', 'sum("A", "b") - sum("C", "d")', "5"):
        assert [line for line in said_of(brand(wrong)) if remedy in line], wrong
    for wrong in ('count("Order Paid")', "traits.total", "customer.spend_percentile"):
        assert [line for line in said_of(brand(wrong)) if line.startswith("rapport.yaml:")], wrong


def test_what_rapport_reports_and_derives_needs_no_catalogue() -> None:
    segments = 'segments:\n  a: {when: count("Email Link Clicked") >= 1}'
    assert said_of(sample(**CATALOGUE, segments_yaml=segments)) == []
    said = said_of(sample(**CATALOGUE, rapport_yaml=RAPPORT + "carts: sent\n"))
    assert said == [
        'journeys/cart.yaml:3:10: no file under events/ describes "Cart Updated". '
        "Add it to the catalogue, or correct the name."
    ]


GOAL = "goal:\n  event: Order Completed\n  where: event.cart_id == key\n"
KEYED = "event: Cart Updated\nkey: event.cart_id"


def test_a_property_that_the_catalogue_does_not_have_says_what_comes_of_it() -> None:
    steps = "- email: cart-reminder"
    sent = {"events__cart_yaml": "event: Cart Updated\nproperties: {cart_id: {type: string}}\n", **CATALOGUE}
    rapport = RAPPORT + "carts: sent\n"
    assert of_journey(journey(steps, GOAL, KEYED), rapport_yaml=rapport, **sent) == [
        '8:10: "Order Completed" has no cart_id in the catalogue, so this goal is never reached and buyers keep '
        "getting mail. Remove where, or have the shop send cart_id."
    ]
    exits = "exit_on:\n  - {event: Order Completed, where: event.product.sku == key}\n"
    assert of_journey(journey(steps, exits, KEYED), **CATALOGUE) == [
        '7:37: "Order Completed" has no product in the catalogue, so this exit never happens. Did you mean "products"?'
    ]
    assert of_journey(journey("- if: trigger.cart == 1\n  then: [exit: so]\n" + steps, trigger=KEYED), **CATALOGUE) == [
        '7:9: "Cart Updated" has no cart in the catalogue, so this is always null. Did you mean "cart_id"?'
    ]
    assert said_of(
        sample(**CATALOGUE, segments_yaml='segments:\n  a:\n    when: sum("Order Completed", "totl") > 5')
    ) == [
        'segments.yaml:3:34: "Order Completed" has no totl in the catalogue, so this is always null. '
        'Did you mean "total"?'
    ]


def test_derived_carts_stamp_the_carts_id_on_orders() -> None:
    assert of_journey(journey("- email: cart-reminder", GOAL, KEYED), **CATALOGUE) == []


def test_a_path_through_a_list_is_followed() -> None:
    text = journey("- email: cart-reminder", trigger="event: Order Completed\nwhere: \"'a' in event.products.skuu\"")
    assert of_journey(text, **CATALOGUE)[-1].endswith(
        '"Order Completed" has no skuu in the catalogue, so this journey never begins. Did you mean "sku"?'
    )


def test_an_event_is_described_once() -> None:
    said = said_of(sample(**CATALOGUE, events__again_yaml=ORDER + "required: [totl]\n"))
    assert 'events/order.yaml:1:8: "Order Completed" is described in events/again.yaml already. ' in said[-1]
    assert said[0] == 'events/again.yaml:6:12: "totl" is not among the properties. Did you mean "total"?'
