"""What one more event can only make truer: `count(...) >= 3` that holds goes on holding, however many follow, and what
asks for it does not hold before there are three, nor while something else that it asks for does not. Pure."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from shared.language.aggregates import Aggregate
from shared.language.expressions import Expression, aggregate_from
from shared.language.functions import AGGREGATES
from shared.language.tree import Binary, Call, Literal, Logic, Node, children

_COUNTS = frozenset({"count", "exists"})
_COMPARISONS: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MIRRORED: Final = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


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
    for part in _parts(tree):
        match part:
            case Binary(operator=">" | ">=", left=Call(function="count") as call, right=Literal(value=int(least))):
                found[aggregate_from(call).id] = least + (part.operator == ">")
            case Binary(operator="<" | "<=", left=Literal(value=int(least)), right=Call(function="count") as call):
                found[aggregate_from(call).id] = least + (part.operator == "<")
    read = Counter(aggregate_from(call).id for call in _aggregates(tree))
    return {id: least for id, least in found.items() if read[id] == 1}


class Needed(NamedTuple):
    """A count without a window, of which the state is the number, and how it must compare with another number."""

    aggregate: Aggregate
    compare: Callable[[int, int], bool]
    number: int


def needed_counts(expression: Expression) -> tuple[Needed, ...]:
    """What must be so for the expression to hold, and only events change: while one of these does not, it does not, nor
    does time make it true."""
    return tuple(needed for part in _parts(expression.tree) if (needed := _needed(part)) is not None)


def _needed(part: Node) -> Needed | None:
    match part:
        case Binary(operator=compared, left=Call(function="count") as call, right=Literal(value=int(number))):
            pass
        case Binary(operator=compared, left=Literal(value=int(number)), right=Call(function="count") as call):
            compared = _MIRRORED.get(compared, "")
        case _:
            return None
    aggregate = aggregate_from(call)
    # True is an int to Python, and no number to the language.
    if aggregate.window is not None or compared not in _COMPARISONS or isinstance(number, bool):
        return None
    return Needed(aggregate, _COMPARISONS[compared], number)


def _parts(tree: Node) -> tuple[Node, ...]:
    """All of which must hold."""
    return tree.operands if isinstance(tree, Logic) and tree.operator == "and" else (tree,)


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
