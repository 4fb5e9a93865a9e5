"""What the compiler says about a wrong or doubtful expression: everything at once, each with its place and a remedy."""

from __future__ import annotations

from typing import Any

import pytest

from shared.language.analysis import ROOTS, Mention
from shared.language.expressions import ExpressionError, compile_expression
from shared.language.functions import FUNCTIONS, PLAIN_FUNCTIONS
from shared.language.kinds import schema_at
from shared.language.syntax import MAX_DEPTH, MAX_LENGTH

CATALOGUE: dict[str, dict[str, dict[str, Any]]] = {
    "Order Completed": {
        "total": {"type": "number"},
        "order_id": {"type": "string"},
        "status": {"type": "string", "enum": ["paid", "open"]},
        "placed_at": {"type": "string", "format": "date-time"},
        "gift": {"type": ["boolean", "null"]},
        "products": {
            "type": "array",
            "items": {"type": "object", "properties": {"sku": {"type": "string"}, "price": {"type": "number"}}},
        },
    }
}
STEP = ROOTS - {"event"}


def problems(text: str, **where: Any) -> list[tuple[int, str, str]]:
    given: dict[str, Any] = {"allowed": ROOTS, "condition": True, **where}
    with pytest.raises(ExpressionError) as refusal:
        compile_expression(text, **given)
    return [(p.offset, p.message, p.remedy) for p in refusal.value.problems]


def warnings(text: str, **where: Any) -> list[tuple[int, str, str]]:
    given: dict[str, Any] = {"allowed": ROOTS, "event": "Order Completed", "catalogue": CATALOGUE, **where}
    return [(w.offset, w.message, w.remedy) for w in compile_expression(text, **given).warnings]


def test_every_problem_is_found_at_once_and_in_order() -> None:
    found = problems('cuont("Order Completed") >= 3 and trait.country = "NO" and customer.stge == "x"')
    assert found == [
        (0, 'There is no function "cuont".', 'Did you mean count("Order Completed")?'),
        (34, '"trait" is not known here.', "Did you mean traits.country?"),
        (48, '"=" alone compares nothing.', 'Write "==".'),
        (59, '"customer" has no "stge".', "Did you mean customer.stage?"),
    ]


@pytest.mark.parametrize(
    ("text", "offset", "message", "remedy"),
    [
        ("", 0, "There is no expression here.", 'Write one, such as traits.country == "NO".'),
        ("traits.a and", 12, "Something is missing at the end.", "Complete it, or remove the last word."),
        ('traits.a == "x', 12, "This quotation is not closed.", 'Close it with " .'),
        ("(traits.a", 0, 'The "(" here is not closed.', 'Close it with ")".'),
        ("traits.a)", 8, '")" closes nothing.', "Remove it, or open the bracket before."),
        ("traits.a && traits.b", 9, '"&&" is not known.', 'Write "and".'),
        ("!traits.a", 0, '"!" is not known.', 'Write "not".'),
        ("traits.a OR traits.b", 9, '"OR" is not known.', 'Write "or".'),
        ("traits.a == None", 12, '"None" is not known.', 'Write "null".'),
        ("traits.a == “x”", 12, "“ is no quotation mark for text.", "Write 'x'."),
        ("traits.a == NO", 12, '"NO" is not known here.', 'For text write "NO". Did you mean now?'),
        ('traits.a is "x"', 9, 'An operator is missing before "is".', 'Write "==" instead.'),
        ("1 < traits.a < 3", 13, "Comparisons cannot be chained.", 'Compare twice, joined by "and": a < b and b < c.'),
        ("traits.a in (1, 2)", 12, "A list stands in [ and ].", 'Write ["a", "b"].'),
        ("traits.a > 2026-03-01", 11, "A date stands in quotation marks.", 'Write date("2026-03-01").'),
        ("traits.a > 20%", 11, '"20%" is not known in an expression.', "Write 0.2."),
        ("traits.a > 1e5", 11, '"1e5" is no number.', "Write digits, and a point before decimals: 1000.50"),
        ("count == 3", 0, '"count" is a function.', 'Call it: count("Order Completed").'),
        ("customer.email == 'x'", 0, '"customer" has no "email".', "What the shop told is in traits: traits.email."),
        (
            "customer.spend_percentile.top",
            0,
            '"customer.spend_percentile" has no fields.',
            "Write customer.spend_percentile.",
        ),
        ("now.year == 2026", 0, '"now" has no fields.', "Write now."),
        ("median_gap > 3", 0, '"median_gap" is a function.', 'Call it: median_gap("Order Completed").'),
        ('list("E")', 0, "This is a list, and a condition is true or false.", "Compare it with something."),
        ("in_segment(vip)", 11, '"vip" is not known here.', None),
        ("in_segment(traits.a)", 11, "The segment must stand in quotation marks, so that it can be checked.", None),
        ('lower("a", "b") == "a"', 0, '"lower" takes 1 argument, not 2.', "Write lower(traits.city)."),
        ('count("E") and traits.a', None, None, None),
        ('count("E")', 0, "This is a number, and a condition is true or false.", "Compare it: count(...) >= 1."),
        ('"true"', 0, "This is text, and a condition is true or false.", "Write true without quotation marks."),
    ],
)
def test_a_slip_is_named_with_its_place_and_what_to_write(
    text: str, offset: int | None, message: str | None, remedy: str | None
) -> None:
    if offset is None:
        assert warnings(text)
        return
    found = problems(text)[0]
    assert found[:2] == (offset, message)
    assert remedy is None or found[2] == remedy


@pytest.mark.parametrize("text", ["traits.a- 3 > 1", "traits.a -3 > 1", "3-2 > traits.a", "(traits.a)-(3) > 1"])
def test_a_minus_stands_between_spaces(text: str) -> None:
    assert problems(text)[0][1:] == (
        "A minus stands between spaces, since names may hold hyphens.",
        'Write " - ".',
    )


def test_an_event_in_a_step_is_answered_with_where_the_answer_is() -> None:
    assert problems("event.score > 8", allowed=STEP, place="in a step") == [
        (
            0,
            '"event" is not known in a step.',
            "For the answer to a step write steps.<step>.event.score, for the event that began the journey "
            "trigger.score.",
        )
    ]


def test_a_function_that_cannot_be_asked_here_is_told_from_one_that_does_not_exist() -> None:
    (found,) = problems('count("E") > 1', functions=PLAIN_FUNCTIONS, place="in a trigger's where")
    assert found[1] == '"count" cannot be asked in a trigger\'s where.'


@pytest.mark.parametrize(
    ("text", "offset", "message", "remedy"),
    [
        ("count() > 1", 0, '"count" needs an event.', 'Write count("Order Completed").'),
        ("count(Order) > 1", 6, "The event's name must stand in quotation marks.", 'Write count("Order Completed").'),
        ('sum("E") > 1', 0, '"sum" needs a field of the event.', 'Write sum("Order Completed", "total").'),
        ('sum("E", event.total) > 1', 9, "The field must stand in quotation marks.", 'Write "total".'),
        ('sum("E", "event.total") > 1', 9, 'The field of an aggregate is written without "event.".', 'Write "total".'),
        (
            'median_gap("E", "id") > 1',
            16,
            '"median_gap" looks at the events alone and takes no field.',
            "Use where=event.id != null.",
        ),
        (
            'count("E", "id") > 1',
            11,
            '"count" looks at the events alone and takes no field.',
            "Use where=event.id != null.",
        ),
        ('count("E", 30d) > 1', 11, "A window needs its name.", "Write within=30d."),
        ('count("E", whithin=30d) > 1', 11, '"count" takes no whithin=.', "Did you mean within=?"),
        ('count("E", within=30) > 1', 18, "A window is a duration.", "Write within=30d."),
        ('count("E", within=0d) > 1', 18, "A window must be longer than nothing.", "Write within=30d."),
        (
            'count("E", within=900d) > 1',
            18,
            "A window of 900d is longer than history, which is kept for two years.",
            "Write within=730d, or leave within out to count everything.",
        ),
        (
            'count("E", where=traits.a == 1) > 1',
            17,
            '"traits" is not known in the where of an aggregate.',
            "Only event and constants are known there.",
        ),
        ('count("E", where=event.total) > 1', None, None, None),
        (
            'count("E", where=len(event.products)) > 1',
            17,
            "This is a number, and a condition is true or false.",
            "Compare it: len(...) >= 1.",
        ),
        ('count("E", where=event.at < now) > 1', 28, '"now" is not known in the where of an aggregate.', None),
        ('count("E", where=days_since(event.at) > 1) > 1', 17, None, None),
        ('count("E", where=event.a == 1, where=event.b == 1) > 1', 31, "where= stands here twice.", "Keep one."),
    ],
)
def test_an_aggregate_says_how_it_is_written(
    text: str, offset: int | None, message: str | None, remedy: str | None
) -> None:
    if offset is None:
        compile_expression(text, allowed=ROOTS)
        return
    found = problems(text)[0]
    assert found[0] == offset
    assert message is None or found[1] == message
    assert remedy is None or found[2] == remedy


@pytest.mark.parametrize(
    "text",
    [
        "(" * (MAX_DEPTH + 1) + "true" + ")" * (MAX_DEPTH + 1),
        "traits.a or " * 400 + "true",
        " + ".join(["1"] * 100) + " > 3",
        "'" + "x" * MAX_LENGTH + "' == traits.a",
    ],
)
def test_an_expression_has_a_bounded_size(text: str) -> None:
    (found,) = problems(text)
    assert found[2].startswith(("Split it", "Make it"))


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ('event.total >= "20"', "compares a number with text", "Write 20 without quotation marks."),
        ("event.order_id > 3", "compares text with a number", "Compare two of the same kind."),
        ("event.gift == 1", "compares true or false with a number, which is always false", None),
        ("event.gift != 1", "which is always true", None),
        ("event.products > 3", "compares a list with a number", None),
        ("event.products.price > 3", "compares a list with a number", None),
        ("3 in event.products.sku", "looks for a number among texts", None),
        ("event.placed_at < now", "compares text with a point in time", "date(event.placed_at)"),
        ("traits.renewal < now", "compares what the shop sent with a point in time", "date(traits.renewal)"),
        ('event.status == "payd"', '"payd" is none of the values', 'Did you mean "paid"?'),
        ('event.status in ["paid", "shut"]', '"shut" is none of the values', "It may be paid, open."),
        ("days_since(traits.birthday) > 30d", "compares a number with a duration", "write 30."),
        ("days_since(event.total) > 3", "and this is a number: null", None),
        ("event.order_id + 1 > 3", '"+" between text and a number gives null', None),
        ("event.total / 0 > 3", "Dividing by 0 gives null.", None),
        ("event.total and event.gift", '"and" takes what is true or false, and this is a number', None),
        ('sum("Order Completed", "order_id") > 3', "so sum finds nothing in it", None),
        ('count("Order Completed", where=event.total == "x") > 3', "compares a number with text", None),
        ("traits.a > null", "compares what the shop sent with null", None),
    ],
)
def test_what_never_does_what_it_says_is_warned_about(text: str, message: str, remedy: str | None) -> None:
    (found,) = warnings(text)
    assert message in found[1]
    assert remedy is None or remedy in found[2]


@pytest.mark.parametrize(
    "text",
    [
        'event.total >= 20 and event.status == "paid"',
        '"sku-1" in event.products.sku',
        "event.gift",
        "event.unknown > 3 and event.unknown == 'x'",
        "date(event.placed_at) < now - 3d",
        "days_since(event.placed_at) > 3",
        'max("Order Completed", "products.price") > 100',
        "coalesce(event.total, 0) > 1",
        "event.total != null",
        "event.total * 2 > event.total + 1",
        "customer.last_seen < now - 30d",
        'last("Order Completed", "total") > 3',
    ],
)
def test_what_can_be_right_is_not_warned_about(text: str) -> None:
    assert warnings(text) == []


def test_everything_that_something_else_must_know_is_mentioned_with_its_place() -> None:
    text = (
        'sum("Order Completed", "products.price", where=event.status == "paid") > 1 and event.total > 1 '
        'and in_segment("vip") and consented("news") and customer.stage in ["retain"] '
        'and "nordic" in customer.segments and steps.ask.event.score > 1 and trigger.cart_id == key '
        "and traits.address.city == vars.city"
    )
    compiled = compile_expression(text, allowed=ROOTS, event="Cart Updated", trigger="Cart Updated")
    assert {(m.kind, m.name, m.path, m.event) for m in compiled.mentions} == {
        ("event", "Order Completed", (), None),
        ("property", "", ("products", "price"), "Order Completed"),
        ("property", "", ("status",), "Order Completed"),
        ("property", "", ("total",), "Cart Updated"),
        ("segment", "vip", (), None),
        ("topic", "news", (), None),
        ("stage", "retain", (), None),
        ("segment", "nordic", (), None),
        ("step", "ask", ("event", "score"), None),
        ("trigger", "", ("cart_id",), "Cart Updated"),
        ("trait", "", ("address", "city"), None),
        ("var", "", ("city",), None),
    }

    def shown(mention: Mention) -> str:
        return text[mention.offset : mention.offset + mention.length]

    assert {
        shown(mention) for mention in compiled.mentions if mention.kind in ("segment", "topic", "stage", "step")
    } == {
        '"vip"',
        '"news"',
        '"retain"',
        '"nordic"',
        "steps.ask.event.score",
    }


def test_a_property_is_looked_up_through_lists_and_objects() -> None:
    properties = CATALOGUE["Order Completed"]
    assert schema_at(properties, ("total",)) == {"type": "number"}
    assert schema_at(properties, ("products", "sku")) == {"type": "array", "items": {"type": "string"}}
    assert schema_at(properties, ("nope",)) is None
    assert schema_at(properties, ("products", "nope")) is None
    assert schema_at(properties, ("total", "cents")) is None
    assert schema_at({"address": {"type": "object"}}, ("address", "city")) == {}


def test_each_function_is_either_plain_or_about_the_profile_or_an_aggregate() -> None:
    from shared.language.functions import AGGREGATES, PROFILE_FUNCTIONS

    assert AGGREGATES | PROFILE_FUNCTIONS | PLAIN_FUNCTIONS == FUNCTIONS
