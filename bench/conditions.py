"""Compiled conditions beside what a programmer would have written for each, null and mixed kinds minded alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.measure import Series
from shared.language.aggregates import observe
from shared.language.analysis import ROOTS
from shared.language.expressions import Scope, compile_expression

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TIMES = 200_000
NUMBERS = frozenset({int, float})
NORDIC = frozenset({"NO", "SE", "DK", "FI", "IS"})
HALF_A_YEAR = timedelta(days=180)
ORDERS = [NOW - timedelta(days=days) for days in (700, 400, 200)]
"""When a customer who has lapsed bought."""


def cart(scope: Scope) -> bool:
    total: Any = scope.event.get("total") if scope.event is not None else None
    return type(total) in NUMBERS and total >= 20


def nordic(scope: Scope) -> bool:
    return scope.traits.get("country") in NORDIC


def bought(scope: Scope) -> bool:
    products = scope.event.get("products") if scope.event is not None else None
    return isinstance(products, list) and any(one.get("sku") == "sku-2" for one in products if isinstance(one, dict))


def reachable(scope: Scope) -> bool:
    age: Any = scope.traits.get("age")
    return "vip" in scope.segments and type(age) in NUMBERS and age > 30 and scope.traits.get("city") != "Bergen"


def lapsed(scope: Scope) -> bool:
    begins = scope.now - HALF_A_YEAR
    return len(ORDERS) >= 1 and not any(at > begins for at in ORDERS)


CONDITIONS: Mapping[str, tuple[str, Callable[[Scope], bool]]] = {
    "a number": ("event.total >= 20", cart),
    "a list": ('traits.country in ["NO", "SE", "DK", "FI", "IS"]', nordic),
    "a list of the event": ('"sku-2" in event.products.sku', bought),
    "three joined": ('in_segment("vip") and traits.age > 30 and traits.city != "Bergen"', reachable),
    "a window": ('count("Order Completed") >= 1 and count("Order Completed", within=180d) == 0', lapsed),
}


def scope_for(text: str) -> tuple[Callable[[Scope], bool], Scope]:
    """The compiled condition, and a customer with an event at hand of whom it is true."""
    compiled = compile_expression(text, allowed=ROOTS, condition=True)
    states: dict[str, Any] = {}
    for aggregate in compiled.aggregates:
        for at in ORDERS:
            states[aggregate.id] = observe(aggregate, states.get(aggregate.id), f"{at}", at, {}, NOW)
    scope = Scope(
        NOW,
        traits={"country": "NO", "age": 34, "city": "Oslo"},
        event={"total": 49.9, "products": [{"sku": "sku-1"}, {"sku": "sku-2"}, {"sku": "sku-3"}]},
        segments=("vip", "nordic"),
        aggregates=states,
    )
    return compiled.expression.truth, scope


def rate(condition: Callable[[Scope], bool], scope: Scope) -> float:
    """Evaluations a second."""
    if condition(scope) is not True:
        raise RuntimeError("the condition was to be true")
    begun = perf_counter()
    for _ in range(TIMES):
        condition(scope)
    return TIMES / (perf_counter() - begun)


def compiled(folder: Path) -> dict[str, float]:
    return {name: rate(*scope_for(text)) for name, (text, _) in CONDITIONS.items()}


def written(folder: Path) -> dict[str, float]:
    return {name: rate(by_hand, scope_for(text)[1]) for name, (text, by_hand) in CONDITIONS.items()}


SERIES = (
    Series(
        "conditions",
        "/s",
        run=compiled,
        limit=written,
        limit_name="written by hand",
        ratio_goal=1 / 3,
        rounds=5,
    ),
)
