"""What is certain of a condition before any customer has come."""

from __future__ import annotations

import pytest

from shared.language.certainty import always, implies, never
from shared.language.syntax import Node, parse, render


def tree(text: str) -> Node:
    node, problems = parse(text)
    assert not problems
    return node


@pytest.mark.parametrize(
    "text",
    [
        "false",
        "1 > 2",
        "event.x > null",
        "event.x in []",
        'count("A") < 0',
        "event.x == 1 and event.x == 2",
        'event.x == "a" and event.x in ["b", "c"]',
        "event.x in [1] and event.x not in [1]",
        "event.x == null and event.x > 1",
        "5 < event.x and event.x <= 5",
        "not (event.x >= 1) and event.x >= 3",
        "event.x > 1 and (event.y == 2 or event.y == 3) and not (event.x > 0)",
        "(event.x == 1 and event.x == 2) or false",
    ],
)
def test_what_is_never_true(text: str) -> None:
    assert never(tree(text)) is not None


@pytest.mark.parametrize(
    "text",
    [
        "event.x == 1 and event.x in [1, 2]",
        "event.x != 1 and event.x != 2",
        "not (event.x >= 1) and not (event.x < 1)",  # null is neither
        "event.x > 1d and event.x < 5",  # kinds are the catalogue's affair
        "event.x > 1 and event.y < 1",
        'count("A") >= 1 and count("A", within=30d) == 0',
    ],
)
def test_what_may_be_true(text: str) -> None:
    assert never(tree(text)) is None


def test_two_parts_that_exclude_each_other_are_named() -> None:
    found = never(tree("event.x > 10 and event.y == 1 and event.x < 5"))
    assert found is not None
    assert found.clash is not None
    assert [render(node) for node in found.clash] == ["event.x > 10", "event.x < 5"]


def test_what_is_always_true() -> None:
    assert [text for text in ("true", "not false", 'count("A") >= 0', "event.x >= 0") if always(tree(text))] == [
        "true",
        "not false",
        'count("A") >= 0',
    ]


@pytest.mark.parametrize(
    ("text", "other", "follows"),
    [
        ('count("A") >= 3', 'count("A") >= 1', True),
        ('count("A") >= 1', 'count("A") >= 3', False),
        ("event.x == 1", "event.x in [1, 2]", True),
        ("event.x == 1 and event.y == 2", "event.x == 1 or event.z == 3", True),
        ("not (event.x >= 3)", "event.x < 3", False),  # null is not less than 3
    ],
)
def test_what_follows_from_a_condition(text: str, other: str, follows: bool) -> None:
    assert implies(tree(text), tree(other)) is follows
