"""The shapes of a playbook's files: what is said of fields that are unknown, missing, of a wrong kind, or for later."""

from __future__ import annotations

import pytest
from sample_playbook import CART, RAPPORT, SEGMENTS, STAGES, TOPICS, journey, said_of, sample

from shared.language.journey_file import JourneyFile
from shared.language.problems import Problem
from shared.language.reading import read
from shared.language.source import parse


def of_journey(text: str) -> list[str]:
    """What is said of journeys/cart.yaml, without the file's name."""
    said = said_of(sample(journeys__cart_yaml=text))
    return [line.removeprefix("journeys/cart.yaml:") for line in said if line.startswith("journeys/cart.yaml:")]


def of_steps(steps: str) -> list[str]:
    """What is said of the steps of a journey, which begin in line 6."""
    return of_journey(journey(steps))


def test_the_sample_has_nothing_wrong() -> None:
    assert said_of(sample()) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("trigger:", "tirgger:", '2:1: unknown journey field "tirgger". Did you mean "trigger"?'),
        ("  where:", "  were:", '4:3: unknown trigger field "were". Did you mean "where"?'),
        ("  topic:", "  tpoic:", '7:3: unknown default field "tpoic". Did you mean "topic"?'),
        (
            "  key:",
            "  zzz:",
            '5:3: unknown trigger field "zzz". Known here: event, where, key, for_each, if and unless_in.',
        ),
        ("trigger:\n", "holdout: 0.1\ntrigger:\n", "2:10: a share is a percentage. Write it from 0% to 100%: 50%."),
        ("  key:", "  unless_in: [Cart]\n  key:", '5:15: "Cart" cannot be a name. '
         "Use small letters, digits and single hyphens, 64 at most: cart."),
        ("  key:", "  for_each: products\n  key:", '5:13: "products" is no property of the event. '
         "Name a list that it brings: event.products."),
        ("  key: event.cart_id", "  for_each: event.products", "3:3: for_each needs a key, which tells one item "
         "from another. Add key: item.sku, or the like."),
        ("journey: cart", "journey: Cart", '1:10: "Cart" cannot be a name. '
         "Use small letters, digits and single hyphens, 64 at most: cart."),
        ("journey: cart", "journey: cart\nstatus: lvie", '2:9: "lvie" is not known here. Did you mean "live"?'),
        ("journey: cart", "journey: cart\nstatus: on", '2:9: "on" is not known here. Use live, draft or paused.'),
        ("journey: cart", "journey: cart\nmode: twice", '2:7: "twice" is not known here. Use single or restart.'),
        ("journey: cart", "journey: cart\nagain: 3 days", '2:8: "3 days" is no duration. '
         'Did you mean "3d"?'),
        ("journey: cart", "journey: cart\nagain: 14", "2:8: 14 is no duration. "
         "Write a whole number and one of m, h, d, w: 30m, 1h, 2d, 1w."),
        ("journey: cart", "journey: cart\nmax_age: 0m", "2:10: this takes no time at all. "
         "Write at least 1m, or leave it out."),
        ("journey: cart", "journey: cart\ntitle: 2024", '2:8: "title" takes text, and here stands a number. '
         'Put it in quotes: "2024".'),
        ("journey: cart", "journey: cart\ntitle: [a]", '2:8: "title" takes text, and here stands a list. '
         "Write the text on the same line."),
        ("journey: cart", "journey: cart\ntitle:", '2:1: "title" is empty. Write a value, or remove the line.'),
        ("journey: cart", "journey: cart\ngoal: 3", '2:7: "goal" takes fields, and here stands a number. '
         "Write each field on a line of its own below, indented."),
        ("journey: cart", "journey: cart\nexit_on: A", '2:10: "exit_on" takes a list, and here stands text. '
         "Put it in brackets: [{event: A}]."),
        ("journey: cart", "journey: cart\nexit_on: {event: A}", '2:10: "exit_on" takes a list, and here stands '
         'a group of fields. Begin each item with "- ".'),
        ("journey: cart", "journey: cart\ngoal: {within: 7d}", '2:7: this goal has no "event". '
         "Add event: Order Completed."),
        ("  topic:", "  priority: high\n  topic:", '7:13: "priority" takes a whole number, and here stands text. '
         "Write digits only, without quotes."),
        ("  topic:", "  priority: 101\n  topic:", '7:13: "101" is out of bounds. Use 100 or less.'),
        ("  topic:", "  priority: 1.5\n  topic:", '7:13: "priority" takes a whole number, and here stands a number. '
         "Write digits only, without quotes."),
        ("  event: Cart Updated\n", "", "3:3: nothing here says what this trigger is. "
         "It needs one of event, stage, segment or date."),
        ("  event: Cart", "  evnet: Cart", '3:3: unknown trigger field "evnet". Did you mean "event"?'),
        ("  event: Cart", "  stage: attract\n  event: Cart", "4:3: stage and event stand in one trigger. "
         "A trigger has one of them. Keep one of them."),
    ],
)  # fmt: skip
def test_a_journeys_fields(old: str, new: str, said: str) -> None:
    assert old in CART
    assert said in of_journey(CART.replace(old, new))


def test_missing_fields_are_named_with_an_example() -> None:
    assert of_journey("journey: cart\n") == [
        '1:1: this file has no "steps". Add steps: - email: welcome.',
        '1:1: this file has no "trigger". Add trigger: {event: Order Completed}.',
    ]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("- emial: cart-reminder", '6:5: unknown step "emial". Did you mean "email"?'),
        ("- holdout: 3", "6:5: nothing here says what this step is. "
         "It needs one of wait, wait_for, email, sms, push, if, choose, split, set, emit, coupon, task, webhook, "
         "pause or exit."),
        ("- cart-reminder", "6:5: a step consists of fields, and here stands text. Write it as - wait: 1h."),
        ("- email: cart-reminder\n  wait: 1h", "7:5: email and wait stand in one step. A step does one thing. "
         'Begin each with "- ".'),
        ("- email: cart-reminder\n  tempalte: x", '7:5: unknown step field "tempalte". '
         "Known here: id, topic, priority, expires, with and email."),
        ("- email: cart-reminder\n  wiht: {a: key}", '7:5: unknown step field "wiht". Did you mean "with"?'),
        ("- email: cart-reminder\n  with: {a-b: 1}", '7:12: "a-b" cannot be written in a template. '
         "Use letters, digits and underscores: a_b."),
        ("- wait: {between: [300d, 20d]}", "6:21: between takes the shortest and the longest wait. "
         "Write it as [20d, 300d]."),
        ("- wait: {between: [20d]}", "6:21: between takes the shortest and the longest wait. Write it as [20d, 300d]."),
        ("- wait: {until: trait.renewal}", '6:19: "trait.renewal" is no time of day. '
         'Write hours and minutes, from "00:00" to "23:59".'),
        ("- wait: {until: traits}", '6:19: "traits" is no trait. Name the trait that holds the date: traits.birthday.'),
        ('- wait: {until: "10:00", at: "11:00"}', "6:11: at belongs to a date, and until names none. "
         'Write until: "10:00" alone.'),
        ("- wait: {until: traits.renewal, on: [tue]}", "6:11: a date falls on the day on which it falls. Remove on."),
        ("- wait: {for: 1d}", '6:11: nothing here says until when. Add until: "10:00" or on: [tue], '
         "or write wait: 2d."),
        ("- choose:\n    - {iff: 1 == 1, then: []}", '7:10: unknown way field "iff". Did you mean "if"?'),
        ("- choose:\n    - {else: [{email: cart-reminder}]}\n    - {if: 1 == 1}", "6:5: else stands before other ways, "
         "which are then never taken. Move it to the end."),
        ("- split: {a: {share: 100%}}", '6:5: this step has no "id". Add id: tone.'),
        ("- id: tone\n  split: {a: {share: 50%}, b: {share: 40%}}", "6:5: these shares make 90%. Let them make 100%."),
        ("- id: tone\n  split: {a: {share: half}}", "7:24: a share is a percentage. Write it from 0% to 100%: 50%."),
        ("- set: {score: 1}", '6:11: "score" cannot be set. '
         "Set a trait, or a name of this enrollment's own: vars.score."),
        ("- set: {traits.consent: true}", "6:11: a journey cannot decide what a customer consents to. "
         "Have the shop send Topic Subscribed or Topic Unsubscribed."),
        ('- wait: {until: "25:00"}', '6:19: "25:00" is no time of day. '
         'Write hours and minutes, from "00:00" to "23:59".'),
        ('- wait: {until: "10:00", on: [tues]}', '6:33: "tues" is not known here. Did you mean "tue"?'),
        ('- wait: "9:30"', '6:11: "9:30" is a time of day. Write wait: {until: "09:30"}.'),
        ("- wait: Tuesday", '6:11: "Tuesday" is a day of the week. Write wait: {on: [tue]}.'),
        ("- wait: 0m", "6:11: this takes no time at all. Write at least 1m, or leave it out."),
        ("- wait: 9999999w", '6:11: "9999999w" is longer than a hundred years. Write at most 5214w.'),
        ("- wait_for: {open: cart-reminder}\n  timeout: 1d", '6:16: unknown wait_for field "open". '
         'Did you mean "opened"?'),
        ("- wait_for: {opened: a, reply: b}\n  timeout: 1d", "6:27: opened and reply stand in one wait_for. "
         "A wait_for has one of them. Keep one of them."),
        ("- wait_for: {event: Order Completed}", "6:15: without timeout this waits for ever. "
         "Add timeout: 10d, or as long as you want to wait."),
        ("- exit:", '6:5: "exit" is empty. Write a value, or remove the line.'),
        ("- exit: true", '6:11: "exit" takes text, and here stands true or false. Put it in quotes: "true".'),
        ("- if: 1 == 1\n  then: {exit: a}", '7:11: "then" takes a list, and here stands a group of fields. '
         'Begin each item with "- ".'),
    ],
)  # fmt: skip
def test_a_journeys_steps(steps: str, said: str) -> None:
    assert said in of_steps(steps)


def test_a_misspelt_field_is_not_reported_as_missing_too() -> None:
    assert of_steps("- wait_for: {event: Order Completed}\n  timout: 1d") == [
        '7:5: unknown step field "timout". Did you mean "timeout"?'
    ]


def test_a_wait_that_any_event_ends_is_told_what_to_compare() -> None:
    text = journey("- wait_for: {event: Order Completed}", trigger="event: Cart Updated\nkey: event.cart_id")
    assert of_journey(text) == [
        "7:15: without timeout this waits for ever, and any Order Completed ends it. "
        "Add timeout: 10d and where: event.cart_id == key."
    ]


def test_a_date_trigger_needs_a_time_and_counts_whole_days_before() -> None:
    assert of_journey(journey("- email: cart-reminder", trigger="date: traits.birthday\nevery: year")) == [
        '3:3: this trigger has no "at". Add at: 09:00.'
    ]
    text = journey("- email: cart-reminder", trigger="date: birthday\nat: 9:00\nbefore: 12h\nevery: month")
    assert of_journey(text) == [
        '3:9: "birthday" is no trait. Name the trait that holds the date: traits.birthday.',
        '4:7: "9:00" is no time of day. Write "09:00".',
        "5:11: before counts whole calendar days. Write 1d, 3d or 1w.",
        '6:10: "month" is not known here. Use year.',
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: Lamp & Light\n", "", '1:1: this file has no "name". Add name: Lamp & Light.'),
        ("sender: Lamp & Light <hello@lamps.example>", "sender: hello", '2:9: "hello" is no mail address: '
         "An email address must have an @-sign. Write Name <name@shop.example>."),
        ("Europe/Oslo", "Oslo", '4:11: "Oslo" is no timezone. Did you mean "Europe/Oslo"?'),
        ("Europe/Oslo", "Europe/Olso", '4:11: "Europe/Olso" is no timezone. Did you mean "Europe/Oslo"?'),
        ("locale: en", "locale: English", '5:9: "English" is no locale. '
         "Write a language, or a language and a country: nb, nb-NO."),
        ("currency: EUR", "currency: eur", '6:11: "eur" is no currency. Write its three capital letters: EUR.'),
        ("currency: EUR", "currency: EUR\nrates: {SEK: 0}", "7:14: a rate is a number above zero. "
         "Write what one unit is worth in your currency: SEK: 0.087."),
        ("https://lamps", "lamps", '8:9: "lamps.example" is no web address. Begin it with https://.'),
        ("  shop:", "  my-shop:", '8:3: "my-shop" cannot be written in a template. '
         "Use letters, digits and underscores: my_shop."),
        ("urls:", "quiet_hours: 21-8\nurls:", '7:14: "21" is no time of day. '
         'Write hours and minutes, from "00:00" to "23:59".'),
        ("urls:", "quiet_hours: at night\nurls:", "7:14: quiet hours are two times of day. Write them as 21:00-08:00."),
        ("urls:", "quiet_hours: 08:00-08:00\nurls:", "7:14: these quiet hours begin and end at the same time. "
         "Write them as 21:00-08:00."),
        ("urls:", "caps: {fax: []}\nurls:", '7:8: unknown channel "fax". Known here: email, sms and push.'),
        ("urls:", "caps: {email: [{limit: 0, within: 1d}]}\nurls:", '7:24: "0" is out of bounds. Use 1 or more.'),
        ("urls:", "caps: {email: [{limit: 1}]}\nurls:", '7:16: this cap has no "within". Add within: 1d.'),
        ("urls:", "carts: no\nurls:", '7:8: "no" is not known here. Use derived or sent.'),
        ("urls:", "logo: x\nurls:", '7:1: unknown field "logo". Known here: name, sender, reply_to, '
         "postal_address, timezone, locale, currency, rates, urls, quiet_hours, caps, carts, opens and spend."),
    ],
)  # fmt: skip
def test_the_brands_fields(old: str, new: str, said: str) -> None:
    assert old in RAPPORT
    assert f"rapport.yaml:{said}" in said_of(sample(rapport_yaml=RAPPORT.replace(old, new)))


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("stages_yaml", "stages: {}", 'stages.yaml:1:9: "stages" is empty. Write something there, or remove it.'),
        ("stages_yaml", "- attract", "stages.yaml:1:1: this file holds a list, and should hold fields. "
         "Begin with stages:."),
        ("stages_yaml", STAGES.replace("attract", "At first"), 'stages.yaml:3:3: "At first" cannot be a name. '
         "Use small letters, digits and single hyphens, 64 at most: at-first."),
        ("segments_yaml", SEGMENTS.replace("    when", "    if"), 'segments.yaml:4:5: unknown segment field "if". '
         "Known here: title and when."),
        ("segments_yaml", SEGMENTS.replace("    when", "    if"), 'segments.yaml:3:5: this segment has no "when". '
         'Add when: count("Order Completed") >= 3.'),
        ("topics_yaml", TOPICS.replace("promotional", "marketing"), 'topics.yaml:4:11: "marketing" is not known here. '
         "Use promotional, service or transactional."),
        ("topics_yaml", TOPICS.replace("kind", "knid", 1), 'topics.yaml:4:5: unknown topic field "knid". '
         'Did you mean "kind"?'),
        ("events__a_yaml", "event: A\nproperties: {b: {type: strng}}", 'events/a.yaml:2:17: "strng" is no type. '
         'Did you mean "string"?'),
        ("messages__cart·reminder__message_yaml", "titel: x", "messages/cart-reminder/message.yaml:1:1: "
         'unknown field "titel". Did you mean "title"?'),
    ],
)  # fmt: skip
def test_the_other_files(file: str, text: str, said: str) -> None:
    assert said in said_of(sample(**{file: text}))


def test_everything_wrong_with_a_journey_is_said_at_once_in_order() -> None:
    text = journey(
        """
        - wait: soon
        - if: traits.x ==
          then:
            - emial: cart-reminder
        - email: cart-remindr
          piority: 3
        """,
        head="status: alive",
    )
    assert [line.split(" ", 1)[0] for line in of_journey(text)] == [
        "5:9:",
        "7:11:",
        "8:20:",
        "10:9:",
        "11:12:",
        "12:5:",
    ]


def test_a_part_that_cannot_be_read_leaves_the_rest_to_be_checked() -> None:
    found: list[Problem] = []
    document = parse("a.yaml", journey("- wait: soon\n- email: cart-reminder").encode(), found.append)
    assert document is not None
    shape = read(document, JourneyFile, found.append)
    assert shape is not None
    assert len(found) == 1
    assert document.is_broken(("steps", 0, "wait"))
