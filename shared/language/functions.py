"""The functions of expressions: their names, and what a call of each looks like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

AGGREGATES: Final = frozenset({"count", "sum", "avg", "min", "max", "first", "last", "exists", "median_gap", "list"})
PROFILE_FUNCTIONS: Final = frozenset({"consented", "in_segment"})
PLAIN_FUNCTIONS: Final = frozenset(
    {"days_since", "date", "lower", "contains", "starts_with", "len", "round", "coalesce"}
)
FUNCTIONS: Final = AGGREGATES | PROFILE_FUNCTIONS | PLAIN_FUNCTIONS

FIELD_NEEDED: Final = frozenset({"sum", "avg", "min", "max"})
FIELD_REFUSED: Final = frozenset({"count", "exists", "median_gap"})
ARGUMENTS: Final[Mapping[str, tuple[int, int, str]]] = {
    "days_since": (1, 1, "days_since(traits.birthday)"),
    "date": (1, 1, 'date("2026-03-01")'),
    "lower": (1, 1, "lower(traits.city)"),
    "contains": (2, 2, 'contains(traits.tags, "vip")'),
    "starts_with": (2, 2, 'starts_with(traits.city, "Os")'),
    "len": (1, 1, "len(event.products)"),
    "round": (1, 2, "round(event.total, 2)"),
    "coalesce": (2, 8, 'coalesce(traits.first_name, "you")'),
    "consented": (1, 1, 'consented("newsletter")'),
    "in_segment": (1, 1, 'in_segment("vip")'),
}
"""Least and most arguments, and what a call looks like."""


def example_of(function: str) -> str:
    if function in ARGUMENTS:
        return ARGUMENTS[function][2]
    if function in FIELD_NEEDED:
        return f'{function}("Order Completed", "total")'
    return f'{function}("Order Completed")'
