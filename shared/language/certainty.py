"""What is certain of a condition before any customer has come: that it is never true, always, or never after another.

What is said here holds; not everything that holds is seen. A condition is taken apart at its `and`, `or` and `not`.
What is left are facts about a term, such as `event.total >= 20`, and those about the same term may exclude each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, TypeGuard

import msgspec

from shared.language import values
from shared.language.tree import COMPARISONS, Binary, Call, ListOf, Literal, Logic, Node, Unary, render

_TESTS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": values.equal,
    "!=": values.unequal,
    "<": values.less,
    "<=": values.at_most,
    ">": values.greater,
    ">=": values.at_least,
}
_ORDERINGS: Final = {"<": ">=", ">=": "<", ">": "<=", "<=": ">"}
"""Each with its opposite."""
_MIRRORED: Final = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


class Never(msgspec.Struct, frozen=True):
    """A condition that is never true; `clash` are two parts of it that exclude each other, where that is why."""

    clash: tuple[Node, Node] | None = None


def never(tree: Node) -> Never | None:
    """Why the condition is never true; None where it may be."""
    if _certain(tree) is False:
        return Never()
    if isinstance(tree, Logic) and tree.operator == "or":
        found = [never(operand) for operand in tree.operands]
        return Never() if all(found) else None
    clash = _clash(_facts(tree, True))
    if clash is None:
        return None
    one, other = clash
    return Never((one.node, other.node) if one.holds and other.holds else None)


def always(tree: Node) -> bool:
    """Whether the condition is true whatever happens."""
    return _certain(tree) is True


def implies(tree: Node, other: Node) -> bool:
    """Whether `other` is true whenever `tree` is."""
    return always(other) or _clash([*_facts(tree, True), *_facts(other, False)]) is not None


def _certain(node: Node) -> bool | None:
    match node:
        case Literal(value=value):
            return value is True
        case Unary(operator="not", operand=operand):
            truth = _certain(operand)
            return None if truth is None else not truth
        case Logic(operator=operator, operands=operands):
            deciding = operator == "or"
            truths = {_certain(operand) for operand in operands}
            return deciding if deciding in truths else not deciding if truths == {not deciding} else None
        case Binary(operator="in" | "not in" as operator, right=ListOf(items=())):
            return operator == "not in"
        case Binary(operator=operator, left=Literal(value=left), right=Literal(value=right)) if operator in _TESTS:
            return _TESTS[operator](left, right)
        case Binary(operator=operator) if operator in COMPARISONS:
            fact = _fact(node, True)
            return None if fact is None else fact.certain()
    return None


class _Fact(msgspec.Struct, frozen=True):
    """What is said of one term: an operator and a constant, or several of them; or, without `holds`, that it is not so.

    To deny `<` is not to say `>=`: what cannot be ordered is neither.
    """

    node: Node
    term: Node
    operator: str
    constants: tuple[Any, ...]
    holds: bool

    def allows(self, value: Any) -> bool:
        if self.operator in ("in", "not in"):
            said = any(values.equal(value, constant) for constant in self.constants) is (self.operator == "in")
        else:
            said = _TESTS[self.operator](value, self.constants[0])
        return said is self.holds

    def values(self) -> list[Any] | None:
        """All that the term can be; None where that is open."""
        naming = ("==", "in") if self.holds else ("!=", "not in")
        return list(self.constants) if self.operator in naming else None

    def bound(self) -> tuple[str, Any] | None:
        """The operator and the number or duration that keep the term on one side, as long as it can be ordered."""
        constant = self.constants[0] if self.constants else None
        if self.operator not in _ORDERINGS or not (_is_number(constant) or isinstance(constant, timedelta)):
            return None
        return self.operator if self.holds else _ORDERINGS[self.operator], constant

    def certain(self) -> bool | None:
        constant = self.constants[0] if self.constants else None
        if constant is None and self.operator in _ORDERINGS:
            return False
        if isinstance(self.term, Call) and self.term.function == "count" and _is_number(constant):
            if _miss((">=", 0), (self.operator, constant)) or (self.operator == "==" and constant < 0):
                return False
            if (self.operator in (">", ">=") and self.allows(0)) or (self.operator == "!=" and constant < 0):
                return True
        return None


def _facts(node: Node, holds: bool) -> Iterator[_Fact]:
    """What is known of terms where the node is true; without `holds`, where it is not."""
    match node:
        case Unary(operator="not", operand=operand):
            yield from _facts(operand, not holds)
        case Logic(operator=operator, operands=operands) if (operator == "and") is holds:
            for operand in operands:
                yield from _facts(operand, holds)
        case Binary():
            fact = _fact(node, holds)
            if fact is not None:
                yield fact


def _fact(node: Binary, holds: bool) -> _Fact | None:
    operator, term, other = node.operator, node.left, node.right
    if operator not in COMPARISONS:
        return None
    if operator in ("in", "not in"):
        items = other.items if isinstance(other, ListOf) else ()
        constants = tuple(item.value for item in items if isinstance(item, Literal))
        return _Fact(node, term, operator, constants, holds) if constants and len(constants) == len(items) else None
    if isinstance(term, Literal):
        operator, term, other = _MIRRORED[operator], other, term
    if not isinstance(other, Literal):
        return None
    return _Fact(node, term, operator, (other.value,), holds)


def _clash(facts: Iterable[_Fact]) -> tuple[_Fact, _Fact] | None:
    """Two of the facts that exclude each other."""
    by_term: dict[str, list[_Fact]] = {}
    for fact in facts:
        by_term.setdefault(render(fact.term), []).append(fact)
    for about in by_term.values():
        found = _clash_about(about)
        if found is not None:
            return found
    return None


def _clash_about(facts: Sequence[_Fact]) -> tuple[_Fact, _Fact] | None:
    for number, fact in enumerate(facts):
        left = fact.values()
        for other in facts if left is not None else ():
            left = [value for value in left or () if other.allows(value)]
            if not left:
                return fact, other
        for other in facts[:number]:
            if (fact.holds or other.holds) and _miss(fact.bound(), other.bound()):
                return other, fact
    return None


def _miss(one: tuple[str, Any] | None, other: tuple[str, Any] | None) -> bool:
    """Whether nothing lies within both bounds."""
    if one is None or other is None or isinstance(one[1], timedelta) is not isinstance(other[1], timedelta):
        return False
    (below, most), (above, least) = (one, other) if one[0] in ("<", "<=") else (other, one)
    if below not in ("<", "<=") or above not in (">", ">="):
        return False
    return bool(most < least or (most == least and (below == "<" or above == ">")))


def _is_number(value: Any) -> TypeGuard[int | float | Decimal]:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)
