"""What one more event can only make truer: `count(...) >= 3` that holds goes on holding, however many follow. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from shared.language.expressions import Expression, aggregate_from
from shared.language.functions import AGGREGATES
from shared.language.tree import Binary, Call, Literal, Logic, Node, children

_COUNTS = frozenset({"count", "exists"})


def rising(expression: Expression) -> frozenset[str]:
    """The ids of aggregates of which one more event cannot turn the expression from true to false."""
    read = set(expression.aggregates)
    for call in _falling(expression.tree):
        read.discard(aggregate_from(call).id)
    return frozenset(read)


def _falling(node: Node) -> Iterator[Call]:
    """Aggregates of which an event could turn the truth of this node from true to false."""
    if isinstance(node, Logic):
        for operand in node.operands:
            yield from _falling(operand)
    elif not _rises(node):
        yield from _aggregates(node)


def _rises(node: Node) -> bool:
    match node:
        case Call(function="exists"):
            return True
        case Binary(operator=">" | ">=", left=Call(function=function), right=Literal(value=int())):
            return function in _COUNTS
        case Binary(operator="<" | "<=", left=Literal(value=int()), right=Call(function=function)):
            return function in _COUNTS
    return False


def _aggregates(node: Node) -> Iterator[Call]:
    if isinstance(node, Call) and node.function in AGGREGATES:
        yield node
        return
    for child in children(node):
        yield from _aggregates(child)
