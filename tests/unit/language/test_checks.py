"""What only the whole playbook shows: names that nothing defines, expressions, journeys, whole files."""

from __future__ import annotations

import pytest
from sample_playbook import CART, RAPPORT, SEGMENTS, journey, said_of, sample

from shared.language import load
from shared.language.playbook import EventTrigger, WaitFor

ORDER = """\
event: Order Completed
properties:
  order_id: {type: string}
  total: {type: number}
  products: {type: array, items: {type: object, properties: {sku: {type: string}}}}
"""
ADDED = "event: Product Added\nproperties: {sku: {type: string}}\n"
CATALOGUE = {"events__order_yaml": ORDER, "events__added_yaml": ADDED}


def of_journey(text: str, **changes: str | None) -> list[str]:
    said = said_of(sample(journeys__cart_yaml=text, **changes))
    return [line.removeprefix("journeys/cart.yaml:") for line in said]


# Names


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


# Expressions


def test_an_expressions_problem_stands_where_it_was_written() -> None:
    segments = "segments:\n  a:\n    when: >-\n      traits.x == 1 and\n      traits.y = 2\n"
    (said,) = said_of(sample(segments_yaml=segments))
    assert said.startswith("segments.yaml:5:16: ")


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        (
            journey("- if: event.total > 1\n  then: [email: cart-reminder]"),
            '6:9: "event" is not known in a step. For the answer',
        ),
        (
            journey("- if: vars.x == 1\n  then: [email: cart-reminder]"),
            "6:9: no step of this journey sets vars.x. Add a step: set: {vars.x: …}.",
        ),
        (CART.replace("event.total >= 20", "key == 1"), '4:10: "key" is not known in a trigger.'),
        (CART.replace("event.cart_id", 'count("Order Completed")'), '5:8: "count" '),
        (
            journey("- email: cart-reminder", trigger="stage: attract\nif: event.total > 1"),
            '4:7: "event" is not known in this trigger.',
        ),
    ],
)
def test_what_is_known_depends_on_the_place(text: str, begins: str) -> None:
    said = of_journey(text)
    assert any(line.startswith(begins) for line in said), said


def test_an_answer_is_asked_of_the_step_that_waited_for_it() -> None:
    steps = """
        - id: answer
          wait_for: {event: Survey Answered}
          timeout: 7d
        - if: %s
          then: [email: cart-reminder]
    """
    assert of_journey(journey(steps % "steps.answer.event.score >= 9")) == []
    assert of_journey(journey(steps % "steps.anwser.event.score >= 9")) == [
        '9:9: no step is called "anwser". Did you mean "answer"?'
    ]
    assert of_journey(journey(steps % "steps.answer.score >= 9")) == [
        "9:9: a wait_for leaves its event behind and nothing else. Write steps.answer.event."
    ]
    assert of_journey(journey("- wait: 1h\n- if: steps.wait-1h.event.x == 1\n  then: [email: cart-reminder]")) == [
        '7:9: step "wait-1h" leaves nothing behind. Ask for a wait_for, a coupon or a split.'
    ]
    turned = """
        - if: steps.answer.event.score >= 9
          then: [email: cart-reminder]
        - id: answer
          wait_for: {event: Survey Answered}
          timeout: 7d
    """
    assert of_journey(journey(turned)) == [
        '6:9: step "answer" never runs before this one. Move it up, or ask for another step.'
    ]


def test_a_condition_whose_flip_cannot_be_foreseen_is_refused_where_it_is_watched() -> None:
    when = 'days_since(last("Order Completed")) == count("Product Viewed")'
    watched = said_of(sample(segments_yaml=f"segments: {{a: {{when: '{when}'}}}}"))
    assert [line[:18] for line in watched] == ["segments.yaml:1:23"]
    assert of_journey(journey(f"- if: {when}\n  then: [email: cart-reminder]")) == []


# Stages and segments


def test_the_last_stage_holds_for_everybody_and_only_the_last() -> None:
    assert said_of(sample(stages_yaml='stages:\n  attract: traits.x == "y"\n')) == [
        "stages.yaml:2:12: who matches none of the stages has no stage. Let the last one be true: attract: true."
    ]
    turned = said_of(sample(stages_yaml="stages:\n  attract: true\n  convert: true\n"))
    assert turned == [
        'stages.yaml:2:12: everybody is in "attract", so the stages below are never reached. Move it to the end.'
    ]


def test_segments_do_not_ask_for_one_another_in_a_circle() -> None:
    segments = """\
        segments:
          a: {when: in_segment("b")}
          b: {when: in_segment("c") or traits.x == 1}
          c: {when: customer.stage == "convert"}
          d: {when: not in_segment("d")}
        """
    stages = 'stages: {convert: in_segment("a"), attract: true}'
    assert said_of(sample(segments_yaml=segments)) == [
        'segments.yaml:5:13: "d" asks for "d", so none can be decided first. Take one of them out of the circle.'
    ]
    assert said_of(sample(segments_yaml=segments, stages_yaml=stages)) == [
        'segments.yaml:2:13: "a" asks for "b", which asks for "c", which asks for the stage, which asks for "a", '
        "so none can be decided first. Take one of them out of the circle.",
        'segments.yaml:5:13: "d" asks for "d", so none can be decided first. Take one of them out of the circle.',
    ]


def test_a_segment_does_not_ask_for_all_segments() -> None:
    said = said_of(sample(segments_yaml=SEGMENTS + "  a:\n    when: '\"vip\" in customer.segments'\n"))
    assert said == [
        "segments.yaml:6:21: customer.segments is not known here, since segments are being decided. "
        'Use in_segment("name").'
    ]


# Journeys as graphs


def test_two_steps_of_one_name_are_asked_for_an_id() -> None:
    assert of_journey(journey("- wait: 1h\n- email: cart-reminder\n- wait: 1h")) == [
        '8:5: two steps are called "wait-1h": this one and the one in line 6. Give this one an id: wait-1h-2.'
    ]
    assert of_journey(journey("- {id: a, wait: 1h}\n- {id: a, email: cart-reminder}")) == [
        '7:10: two steps are called "a": this one and the one in line 6. Give one of them another id.'
    ]


def test_a_step_that_nobody_reaches() -> None:
    unreached = "nobody gets here: every way to this step ends with exit before it. Remove it, or the exit above."
    assert of_journey(journey("- exit: done\n- email: cart-reminder")) == [f"7:5: {unreached}"]
    both = """
        - if: traits.a == 1
          then: [exit: yes]
          else:
            - wait_for: {event: Order Completed}
              timeout: 1d
              then: [exit: bought]
              on_timeout: [exit: waited]
        - email: cart-reminder
    """
    assert of_journey(journey(both)) == [f"13:5: {unreached}"]
    assert of_journey(journey(both.replace("then: [exit: bought]", "then: []"))) == []


def test_a_click_is_awaited_in_a_mail_that_was_sent() -> None:
    wait = "- wait_for: {clicked: %s}\n  timeout: 1d\n"
    send = "- email: cart-reminder\n"
    assert of_journey(journey(send + wait % "cart-reminder")) == []
    assert of_journey(journey(send + wait % "cart-remindr")) == [
        '7:25: this journey sends no mail "cart-remindr". Did you mean "cart-reminder"?'
    ]
    assert of_journey(journey(wait % "cart-reminder" + send)) == [
        '6:25: "cart-reminder" has not been sent when this step begins. Move this step behind it.'
    ]
    twice = "- {id: one, email: cart-reminder}\n- {id: two, email: cart-reminder}\n"
    assert of_journey(journey(twice + wait % "two")) == []
    assert of_journey(journey(twice + wait % "cart-reminder")) == [
        '8:25: several steps send "cart-reminder". Name one of them: one or two.'
    ]
    elsewhere = f"- if: traits.a == 1\n  then: [email: cart-reminder]\n  else:\n    {wait % 'cart-reminder'}"
    elsewhere = elsewhere.replace("\n  timeout", "\n      timeout")
    assert of_journey(journey(elsewhere)) == [
        '9:29: "cart-reminder" has not been sent when this step begins. Move this step behind it.'
    ]


def test_an_open_is_awaited_as_a_click_is() -> None:
    wait = "- email: cart-reminder\n- {id: w, wait_for: {opened: %s}, timeout: 1d}\n"
    assert of_journey(journey(wait % "cart-reminder")) == []
    assert of_journey(journey(wait % "cart-remindr")) == [
        '7:32: this journey sends no mail "cart-remindr". Did you mean "cart-reminder"?'
    ]
    asked = wait % "cart-reminder" + "- if: steps.w.event.x == 1\n  then: [exit: x]"
    assert of_journey(journey(asked)) == [
        '8:9: step "w" waits for no event, and leaves nothing behind. Ask for another step.'
    ]


def test_what_nobody_is_told_of_is_not_waited_for() -> None:
    untracked = RAPPORT + "opens: untracked\n"
    wait = "- email: cart-reminder\n- {wait_for: {opened: cart-reminder}, timeout: 1d}\n"
    assert of_journey(journey(wait), rapport_yaml=untracked) == [
        "7:25: warning: rapport.yaml says opens: untracked, so nothing but a click ends this. "
        "Wait for clicked, or remove opens there."
    ]
    segments = 'segments:\n  a: {when: count("Email Opened") >= 1}'
    assert said_of(sample(segments_yaml=segments, rapport_yaml=untracked)) == [
        'segments.yaml:2:19: warning: "Email Opened" is never reported: rapport.yaml says opens: untracked. '
        "Remove that."
    ]


ANSWERED = "event: Survey Answered\nproperties: {survey: {type: string, enum: [nps, csat]}, score: {type: number}}\n"


def test_a_reply_is_the_event_survey_answered_of_that_survey() -> None:
    wait = """
        - {id: answer, wait_for: {reply: %s, where: event.score >= 0}, timeout: 5d}
        - {if: steps.answer.event.%s <= 6, then: [email: cart-reminder]}
    """
    answered = {"events__answered_yaml": ANSWERED}
    assert of_journey(journey(wait % ("nps", "score"))) == []
    described = {**CATALOGUE, "events__updated_yaml": "event: Cart Updated\nproperties: {total: {}, cart_id: {}}"}
    assert of_journey(journey(wait % ("nps", "score")), **described) == [
        '6:36: no file under events/ describes "Survey Answered". Add it to the catalogue, or correct the name.'
    ]
    assert of_journey(journey(wait % ("nps", "score")), **described, **answered) == []
    assert of_journey(journey(wait % ("npz", "scor")), **described, **answered) == [
        '6:36: warning: "npz" is none of the values that the catalogue has for event.survey. Did you mean "nps"?',
        '7:10: "Survey Answered" has no scor in the catalogue, so this is always null. Did you mean "score"?',
    ]
    silent = {"events__answered_yaml": "event: Survey Answered\nproperties: {score: {type: number}}\n"}
    assert of_journey(journey(wait % ("nps", "score")), **described, **silent) == [
        '6:36: "Survey Answered" has no survey in the catalogue, so this always waits until the timeout. '
        "Have the shop send survey, the name of the survey."
    ]
    step = load(sample(journeys__cart_yaml=journey(wait % ("nps", "score")))).journeys["cart"].steps["answer"]
    assert isinstance(step, WaitFor)
    assert step.match is not None
    assert step.match.where is not None
    assert step.match.where.source == 'event.survey == "nps" and event.score >= 0'


def test_opens_by_machines_are_none_where_they_are_not_asked_about() -> None:
    def where_of(match: str) -> str | None:
        text = journey("- wait: 1h", trigger=f"event: Email Opened\n{match}".strip())
        trigger = load(sample(journeys__cart_yaml=text)).journeys["cart"].trigger
        assert isinstance(trigger, EventTrigger)
        return trigger.where.source if trigger.where is not None else None

    assert where_of("") == "event.machine != true"
    assert where_of('where: event.step == "a" or event.step == "b"') == (
        '(event.step == "a" or event.step == "b") and event.machine != true'
    )
    assert where_of("where: event.machine in [true, false]") == "event.machine in [true, false]"
    text = 'segments:\n  a: {when: count("Email Opened") >= 1}\n  b:\n    when: count("Email Opened", where=%s) >= 1'
    for asked, meant in (
        ("event.machine", "event.machine"),
        ('event.step == "a"', 'event.step == "a" and event.machine != true'),
    ):
        found = load(sample(segments_yaml=text % asked)).segments
        wheres = [one.when.definitions[0].where for one in (found["a"], found["b"])]
        assert [where and where.canonical for where in wheres] == ["event.machine != true", meant]


def test_a_mail_that_expires_within_the_quiet_hours_is_remarked_on() -> None:
    quiet = RAPPORT + "quiet_hours: 21:00-08:00\n"
    text = journey("- email: cart-reminder", "defaults: {topic: cart-reminders, expires: 6h}")
    said = (
        "6h is shorter than the quiet hours 21:00-08:00: what falls due from 21:00 to 02:00 is never sent. "
        "Use 11h or more."
    )
    assert of_journey(text, rapport_yaml=quiet) == [f"4:44: warning: {said}"]
    assert of_journey(text.replace("6h", "11h"), rapport_yaml=quiet) == []
    assert of_journey(text.replace("cart-reminders", "receipts"), rapport_yaml=quiet) == []
    assert of_journey(journey("- {email: cart-reminder, expires: 6h}"), rapport_yaml=quiet) == [
        f"6:37: warning: {said}"
    ]


def test_a_given_name_does_not_take_the_place_of_one_that_templates_know() -> None:
    assert of_journey(journey("- email: cart-reminder\n  with: {traits: 1}"))[0] == (
        '7:12: "traits" means something else in every template. Give it another name.'
    )


def test_text_given_to_a_template_needs_both_pairs_of_quotes() -> None:
    said = '7:18: "Hello there" is read as an expression, and names nothing that is known in a step. '
    remedy = "For text write '\"Hello there\"', with both pairs of quotes."
    assert said + remedy in of_journey(journey('- email: cart-reminder\n  with: {word: "Hello there"}'))


# Steps that branch, keep and report


def test_what_a_split_leaves_behind_is_its_arm() -> None:
    steps = """
        - id: tone
          split: {warm: {share: 50%%, then: []}, short: {share: 50%%, then: []}}
        - if: %s
          then: [email: cart-reminder]
    """
    assert of_journey(journey(steps % 'steps.tone.arm == "warm"')) == []
    assert of_journey(journey(steps % "steps.tone.event.x == 1")) == [
        "8:9: a split leaves its arm behind and nothing else. Write steps.tone.arm."
    ]


def test_a_variable_is_set_before_it_is_asked_for() -> None:
    steps = """
        - set: {vars.score: trigger.total * 2}
        - if: vars.%s >= 9
          then: [email: cart-reminder]
    """
    assert of_journey(journey(steps % "score")) == []
    assert of_journey(journey(steps % "scroe")) == [
        '7:9: no step of this journey sets vars.scroe. Did you mean "score"?'
    ]


def test_an_item_is_known_where_there_is_for_each() -> None:
    each = "event: Order Completed\nfor_each: event.products\nkey: item.sku"
    mail = "- email: cart-reminder"
    assert of_journey(journey(mail, trigger=each), **CATALOGUE) == []
    assert of_journey(journey(mail, trigger=each.replace("products", "items")), **CATALOGUE) == [
        '4:13: "Order Completed" has no items in the catalogue, so this journey never begins. '
        "Correct it, or have the shop send items."
    ]
    assert of_journey(journey(mail, trigger=each.replace("item.sku", "item.skuu")), **CATALOGUE) == [
        '5:8: "Order Completed" has no skuu in the catalogue, so this is always null. Did you mean "sku"?'
    ]
    assert of_journey(journey(mail, trigger="event: Cart Updated\nkey: item.sku")) == [
        "4:8: this journey has no for_each. Add for_each: to the trigger, such as for_each: event.products."
    ]


def test_journeys_that_keep_people_out_are_looked_up() -> None:
    mail = "- email: cart-reminder"
    assert of_journey(journey(mail, trigger="event: Cart Updated\nunless_in: [crat]")) == [
        '4:15: there is no journey "crat". There are none yet.'
    ]
    assert of_journey(journey(mail, trigger="event: Cart Updated\nunless_in: [cart]")) == [
        '4:15: "cart" is this journey, and who is in it does not enter anyway. Remove it.'
    ]


def test_a_reported_event_stands_in_the_catalogue() -> None:
    assert of_journey(journey("- {emit: Cart Given Up, properties: {total: trigger.total}}")) == []
    assert of_journey(journey("- emit: Email Sent")) == [
        '6:11: "Email Sent" is said by Rapport itself. Give your event another name.'
    ]
    described = "event: Cart Given Up\nproperties: {total: {type: number}}\n"
    said = of_journey(journey("- {emit: Cart Given Up, properties: {totl: 1}}"), events__given·up_yaml=described)
    assert '6:40: "Cart Given Up" has no totl in the catalogue. Did you mean "total"?' in said
    assert any(line.startswith('6:12: no file under events/ describes "Cart Lost"') for line in of_journey(
        journey("- {emit: Cart Lost}"), events__given·up_yaml=described
    ))  # fmt: skip


def test_a_holdout_has_a_goal_to_be_compared_by_and_keeps_nobody_from_a_receipt() -> None:
    goal = "goal: {event: Order Completed, within: 7d}\n"
    held = CART.replace("defaults:", "holdout: 10%\ndefaults:")
    assert of_journey(held) == [
        "6:10: those who are held out are compared by the goal, and this journey has none within a time. "
        "Add goal: {event: Order Completed, within: 7d}, or remove holdout."
    ]
    assert of_journey(held.replace("holdout", f"{goal}holdout")) == []
    assert of_journey(
        held.replace("holdout", f"{goal}holdout").replace("topic: cart-reminders", "topic: receipts")
    ) == [
        '7:10: "cart-reminder" is transactional mail, which has to reach everybody. '
        "Remove holdout, or send it from a journey of its own."
    ]
    assert of_journey(held.replace("10%", "100%").replace("holdout", f"{goal}holdout")) == [
        "7:10: nobody is left to get anything. Hold out less: 10%."
    ]


# Whole files


def test_a_playbook_needs_a_brand_and_stages() -> None:
    assert said_of({}) == [
        "rapport.yaml:1:1: a playbook needs this file, and it is not there. Write at least name: and sender: in it.",
        "stages.yaml:1:1: a playbook needs this file, and it is not there. "
        'Write "stages:" in it, and below that at least "attract: true".',
    ]


def test_a_file_that_cannot_be_read_makes_no_name_unknown() -> None:
    broken = SEGMENTS + " x: 1\n"
    text = journey('- if: in_segment("anything")\n  then: [email: cart-reminder]')
    said = said_of(sample(segments_yaml=broken, journeys__cart_yaml=text))
    assert [line.split(":")[0] for line in said] == ["segments.yaml"]


def test_a_segment_with_a_problem_is_known_all_the_same() -> None:
    segments = SEGMENTS.replace("title:", "tilte:")
    said = said_of(
        sample(
            segments_yaml=segments,
            journeys__cart_yaml=journey('- {if: in_segment("vip"), then: [email: cart-reminder]}'),
        )
    )
    assert [line.split(":")[0] for line in said] == ["segments.yaml"]


def test_advertising_without_a_postal_address_is_remarked_on() -> None:
    said = said_of(sample(rapport_yaml=RAPPORT.replace("postal_address: Harbour Street 12, Oslo\n", "")))
    assert said == [
        "rapport.yaml:1:1: warning: there is no postal_address, which the law asks for in advertising by mail in many "
        "countries. Add postal_address: and show {{ brand.postal_address }} in the mails."
    ]
