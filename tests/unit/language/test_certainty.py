"""What is certain of a condition before any customer has come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.language.analysis import ROOTS
from shared.language.certainty import always, implies, never
from shared.language.expressions import Scope, compile_expression
from shared.language.syntax import parse
from shared.language.tree import Node, render


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


TERMS = ["event.x", "event.y", 'count("A")']
CONSTANTS = ["0", "1", "2.5", "-1", '"a"', "null", "true", "1d"]
CONDITIONS = st.recursive(
    st.one_of(
        st.builds("{} {} {}".format, st.sampled_from(TERMS), st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
                  st.sampled_from(CONSTANTS)),
        st.builds("{2} {1} {0}".format, st.sampled_from(TERMS), st.sampled_from(["==", "<", ">"]),
                  st.sampled_from(CONSTANTS)),
        st.builds("{} {} [{}, {}]".format, st.sampled_from(TERMS), st.sampled_from(["in", "not in"]),
                  st.sampled_from(CONSTANTS), st.sampled_from(CONSTANTS)),
        st.sampled_from(["true", "false", "event.x"]),
    ),
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("not ({})".format, inner),
    ),
    max_leaves=5,
)  # fmt: skip
VALUES = [None, True, False, -1, 0, 1, 2, 2.5, 3, Decimal("2.5"), "a", "b", "", [1], [], {"a": 1}, timedelta(days=1)]
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def outcomes(text: str) -> list[bool]:
    """What the condition comes to for every event that these values can make."""
    compiled = compile_expression(text, allowed=ROOTS)
    counts = [aggregate.id for aggregate in compiled.aggregates]
    return [
        compiled.expression.truth(Scope(NOW, event={"x": x, "y": y}, aggregates=dict.fromkeys(counts, count)))
        for x in VALUES
        for y in VALUES[:8]
        for count in (0, 1, 2, 3)
    ]


@settings(max_examples=80, deadline=None)
@given(CONDITIONS, CONDITIONS)
def test_what_is_called_certain_is_so_for_every_event(text: str, other: str) -> None:
    found, others = outcomes(text), outcomes(f"({text}) and not ({other})")
    assert not (never(tree(text)) and any(found))
    assert not (always(tree(text)) and not all(found))
    assert not (implies(tree(text), tree(other)) and any(others))
