"""What one more event can only make truer: `count(...) >= 3` that holds goes on holding, however many follow, and what
asks for it does not hold before there are three. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

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


def least_counts(expression: Expression) -> Mapping[str, int]:
    """By their ids, the counts that must reach a number for the expression to hold, and that number. Those that are
    read in another place, too, are left out: there they may bring about what time is to change next."""
    tree = expression.tree
    found: dict[str, int] = {}
    for part in tree.operands if isinstance(tree, Logic) and tree.operator == "and" else (tree,):
        match part:
            case Binary(operator=">" | ">=", left=Call(function="count") as call, right=Literal(value=int(least))):
                found[aggregate_from(call).id] = least + (part.operator == ">")
            case Binary(operator="<" | "<=", left=Literal(value=int(least)), right=Call(function="count") as call):
                found[aggregate_from(call).id] = least + (part.operator == "<")
    read = Counter(aggregate_from(call).id for call in _aggregates(tree))
    return {id: least for id, least in found.items() if read[id] == 1}


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
