"""When time alone changes what an expression says: exactly, and without looking at every moment.

An expression is cut at its `and`, `or` and `not` into *leaves*, the conditions that are joined. Time can change a leaf
in two ways only, and each can be solved:

- An event leaves the window of an aggregate (a *step*). Between two such moments nothing changes.
- `days_since(x)` or `now` passes a value that stays (a *slope*). As long as no event leaves a window, the side that
  moves does so in one direction, so an ordering comparison changes at most once, at a moment that is calculated or
  found by halving, to the microsecond.

`unsolvable` names what is neither. Where an expression has none of that, what `foreseen` gives answers with a moment
that is never after the next change of truth. That moment may also be one at which the truth stays as it is; then one
asks again from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, Protocol

import msgspec

from shared.language.aggregate_values import expires, falls_to, living, only_adds, sum_falls
from shared.language.aggregates import Aggregate
from shared.language.expressions import Expression, ExpressionError, Scope, aggregate_calls, aggregate_from, code_of
from shared.language.functions import AGGREGATES
from shared.language.problems import Remark, first_of_each
from shared.language.tree import COMPARISONS, Binary, Call, ListOf, Logic, Name, Node, Unary, children, render
from shared.language.tree import Literal as Constant
from shared.language.values import MICROSECOND, compare, micros, moment, number_or_none

HORIZON: Final = timedelta(days=36_500)
"""A hundred years; what lies beyond is never."""

LOOKAHEAD: Final = 8
"""So many events that leave a window are looked at for a real change; then the next one is answered unseen."""


def foreseen(expression: Expression) -> Callable[[Scope], datetime | None] | None:
    """Tells the earliest moment after a scope's `now` at which time alone can change the expression's truth; None for
    never, and instead of it where time alone never changes it.

    Until then its truth is what it is at `now`, as long as nothing but `now` changes in the scope. The scope is moved
    through time on the way, and is back at its `now` in the end. Raises ExpressionError for an expression that is
    `unsolvable`.
    """
    plan = _plan(expression)
    return plan.next if plan.leaves else None


def unsolvable(expression: Expression) -> tuple[Remark, ...]:
    """What changes with time in a way that cannot be foreseen: errors where the expression is watched (`when`)."""
    problems: list[Remark] = []
    for node in _cut(expression.tree):
        _shape_of_leaf(node, problems)
    return tuple(first_of_each(problems))


# --- shapes ---------------------------------------------------------------------------------------------------------

Shape = Literal["still", "step", "slope"]
_ORDERINGS: Final = frozenset({"<", "<=", ">", ">="})


def _cut(node: Node) -> Iterator[Node]:
    match node:
        case Logic(operands=operands):
            for operand in operands:
                yield from _cut(operand)
        case Unary(operator="not", operand=operand):
            yield from _cut(operand)
        case _:
            yield node


def _shape_of_leaf(node: Node, problems: list[Remark]) -> Shape:
    match node:
        case Binary(operator=operator, left=left, right=right) if operator in COMPARISONS:
            shapes = (_shape(left, problems), _shape(right, problems))
            if "slope" not in shapes:
                return _steepest(*shapes)
            if operator not in _ORDERINGS:
                remedy = "Write two comparisons, such as days_since(...) >= 3 and days_since(...) < 4."
                message = f'"{operator}" with what changes at every moment would hold for an instant only.'
                problems.append(_remark(node, message, remedy))
            elif shapes == ("slope", "slope"):
                problems.append(_unforeseen(node, "both sides of it change at every moment"))
            return "slope"
    return _shape(node, problems)


def _shape(node: Node, problems: list[Remark]) -> Shape:
    """How a node changes with time; what cannot be solved is noted once, and counts as still for what is around it."""
    match node:
        case Name(path=("now",)):
            return "slope"
        case Call(function=function) if function in AGGREGATES:
            return "step" if any(named.name == "within" for named in node.named) else "still"
        case Call(function="days_since", arguments=(argument,)):
            if _shape(argument, problems) == "slope":
                problems.append(_unforeseen(node, "what stands in days_since changes at every moment itself"))
                return "still"
            return "slope"
        case Call(function="coalesce", arguments=arguments):
            return _steepest(*(_shape(argument, problems) for argument in arguments))
        case Unary(operator="-", operand=operand):
            return _shape(operand, problems)
        case Binary(operator="+" | "-" | "*" | "/" as operator, left=left, right=right):
            shapes = (_shape(left, problems), _shape(right, problems))
            if shapes == ("slope", "slope"):
                problems.append(_unforeseen(node, f'both sides of "{operator}" change at every moment'))
                return "still"
            if operator == "/" and shapes[1] == "slope":
                problems.append(_unforeseen(node, "it divides by what changes at every moment"))
                return "still"
            return _steepest(*shapes)
    shape = _steepest(*(_shape(child, problems) for child in children(node)))
    if shape == "slope":
        problems.append(_unforeseen(node, f"{_called(node)} takes what changes at every moment"))
        return "still"
    return shape


def _steepest(*shapes: Shape) -> Shape:
    return "slope" if "slope" in shapes else "step" if "step" in shapes else "still"


def _called(node: Node) -> str:
    match node:
        case Call(function=function):
            return f'"{function}"'
        case ListOf():
            return "a list"
        case Binary(operator=operator) | Unary(operator=operator) | Logic(operator=operator):
            return f'"{operator}" inside a calculation'
    return "this"


def _unforeseen(node: Node, because: str) -> Remark:
    message = f"When this becomes true cannot be foreseen: {because}."
    return _remark(node, message, "Compare days_since(...) or now directly with a value that stays.")


def _remark(node: Node, message: str, remedy: str) -> Remark:
    return Remark(node.offset, max(node.end - node.offset, 1), "unsolvable", message, remedy)


# --- leaves ---------------------------------------------------------------------------------------------------------


class Leaf(Protocol):
    """A condition that time can change."""

    def next(self, probe: Scope) -> datetime | None:
        """The next moment after `probe.now` at which it may change. `probe` is the leaf's to move through time."""


class _Plan(NamedTuple):
    """How an expression's flip is found.

    `decides` are the parts joined by the outermost `and` (or `or`) that time does not change, each with the outcome
    that decides the whole: while one of an `and` is false, or one of an `or` true, time alone changes nothing.
    """

    decides: tuple[tuple[bool, Callable[[Any], Any]], ...]
    leaves: tuple[Leaf, ...]

    def next(self, scope: Scope) -> datetime | None:
        """See `foreseen`."""
        for decided, still in self.decides:
            if (still(scope) is True) == decided:
                return None
        now = scope.now
        found: datetime | None = None
        for leaf in self.leaves:
            flip = leaf.next(scope)
            scope.now = now
            if flip is not None and (found is None or flip < found):
                found = flip
        return found


@lru_cache(maxsize=4096)
def _plan(expression: Expression) -> _Plan:
    if problems := unsolvable(expression):
        raise ExpressionError(problems)
    nodes = {render(node): node for node in _cut(expression.tree)}
    leaves = tuple(leaf for node in nodes.values() if (leaf := _leaf(node)) is not None)
    decides: tuple[tuple[bool, Callable[[Any], Any]], ...] = ()
    if isinstance(expression.tree, Logic):
        operands = expression.tree.operands
        still = [part for part in operands if all(_shape_of_leaf(leaf, []) == "still" for leaf in _cut(part))]
        decides = tuple((expression.tree.operator == "or", code_of(part)) for part in still)
    return _Plan(decides, leaves)


def _leaf(node: Node) -> Leaf | None:
    shape = _shape_of_leaf(node, [])
    if shape == "still":
        return None
    windowed = tuple(aggregate for call in aggregate_calls(node) if (aggregate := aggregate_from(call)).window)
    if shape == "slope" and isinstance(node, Binary) and node.operator in _ORDERINGS:
        return SlopeLeaf(code_of(node), windowed, _guess(node))
    if not windowed:
        return None
    steps = StepLeaf(code_of(node), windowed)
    if isinstance(node, Binary) and len(windowed) == 1:
        mirrored = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
        for counted, other, operator in (
            (node.left, node.right, node.operator),
            (node.right, node.left, mirrored.get(node.operator, node.operator)),
        ):
            if not (isinstance(counted, Call) and isinstance(other, Constant)):
                continue
            if counted.function == "count" and type(other.value) is int:
                return CountLeaf(windowed[0], operator, other.value)
            if counted.function == "sum" and operator in _ORDERINGS and number_or_none(other.value) is not None:
                return SumLeaf(windowed[0], operator in (">=", "<"), other.value, steps)
    return steps


class CountLeaf(msgspec.Struct, frozen=True):
    """`count(..., within=...)` against a whole number: time can only lower the count, so the flip is looked up."""

    aggregate: Aggregate
    operator: str
    limit: int

    def next(self, probe: Scope) -> datetime | None:
        state = probe.aggregates.get(self.aggregate.id)
        window = self.aggregate.window
        if state is None or window is None:
            return None
        count = living(state, micros(probe.now) - window // MICROSECOND)
        limit = self.limit
        match self.operator:
            case ">=" | "<":
                target = limit - 1 if count >= limit else None
            case ">" | "<=":
                target = limit if count > limit else None
            case _:
                target = limit if count > limit else limit - 1 if count == limit else None
        if target is None or target < 0:
            return None
        return falls_to(self.aggregate, state, probe.now, target)


class StepLeaf(msgspec.Struct, frozen=True):
    """A condition over windowed aggregates: it can change only when an event leaves one of the windows."""

    run: Callable[[Any], Any]
    windowed: tuple[Aggregate, ...]

    def next(self, probe: Scope) -> datetime | None:
        before = self.run(probe) is True
        for _ in range(LOOKAHEAD):
            step = _next_step(self.windowed, probe.aggregates, probe.now)
            if step is None:
                return None
            probe.now = step
            if (self.run(probe) is True) != before:
                return step
        return _next_step(self.windowed, probe.aggregates, probe.now)


class SumLeaf(msgspec.Struct, frozen=True):
    """`sum(..., within=...)` ordered against a number. Where all amounts are of one currency and none takes away, time
    can only lower the sum, so the flip is looked up: from the newest amount back, the first that brings it to the limit
    (or, where it is not `inclusive`, beyond). Otherwise it is found by `steps`."""

    aggregate: Aggregate
    inclusive: bool
    limit: Any
    steps: StepLeaf

    def next(self, probe: Scope) -> datetime | None:
        state = probe.aggregates.get(self.aggregate.id)
        if state is None:
            return None
        if not only_adds(self.aggregate, state, probe.now):
            return self.steps.next(probe)
        return sum_falls(self.aggregate, state, probe.now, probe.currency, probe.rates, self._enough)

    def _enough(self, total: Decimal) -> bool:
        order = compare(total, self.limit)
        return order is not None and (order > 0 or (order == 0 and self.inclusive))


class SlopeLeaf(msgspec.Struct, frozen=True):
    """An ordering of what moves at every moment and what stays, or changes in steps."""

    run: Callable[[Any], Any]
    windowed: tuple[Aggregate, ...]
    guess: Callable[[Scope], datetime | None]

    def next(self, probe: Scope) -> datetime | None:
        before = self.run(probe) is True
        horizon = _later(probe.now, HORIZON)
        for _ in range(LOOKAHEAD):
            step = _next_step(self.windowed, probe.aggregates, probe.now)
            crossing = self.crossing(probe, before, step or horizon)
            if crossing is not None or step is None:
                return crossing
            probe.now = step
            if (self.run(probe) is True) != before:
                return step
        return probe.now

    def crossing(self, probe: Scope, before: bool, end: datetime) -> datetime | None:
        """The first moment after `probe.now` and before `end` at which the leaf is not `before`.

        In between nothing leaves a window, so there is at most one change.
        """
        begin = probe.now
        unchanged, changed = begin, end - MICROSECOND
        if changed <= begin or self.at(probe, changed) == before:
            return None
        probe.now = begin
        guess = self.guess(probe)
        if guess is not None:
            # A guess is off by a microsecond at most, by the rounding of fractions of a day.
            low, high = guess - 2 * MICROSECOND, guess + 2 * MICROSECOND
            if low > unchanged and low < changed and self.at(probe, low) == before:
                unchanged = low
            if unchanged < high < changed and self.at(probe, high) != before:
                changed = high
        while changed - unchanged > MICROSECOND:
            middle = unchanged + (changed - unchanged) // 2
            if self.at(probe, middle) == before:
                unchanged = middle
            else:
                changed = middle
        return changed

    def at(self, probe: Scope, now: datetime) -> bool:
        probe.now = now
        return self.run(probe) is True


def _next_step(windowed: tuple[Aggregate, ...], states: Mapping[str, Any], now: datetime) -> datetime | None:
    found: datetime | None = None
    for aggregate in windowed:
        step = expires(aggregate, states.get(aggregate.id), now)
        if step is not None and (found is None or step < found):
            found = step
    return found


def _later(now: datetime, by: timedelta) -> datetime:
    try:
        return now + by
    except OverflowError:
        return datetime.max.replace(tzinfo=now.tzinfo)


def _guess(node: Binary) -> Callable[[Scope], datetime | None]:
    """About when the two sides of an ordering meet, where that is easily said; otherwise it is found by halving."""
    for slope, other in ((node.left, node.right), (node.right, node.left)):
        match slope:
            case Name(path=("now",)):
                return _guess_now(code_of(other))
            case Call(function="days_since", arguments=(argument,)):
                return _guess_days(code_of(argument), code_of(other))
    return _no_guess


def _no_guess(scope: Scope) -> datetime | None:
    return None


def _guess_now(other: Callable[[Any], Any]) -> Callable[[Scope], datetime | None]:
    def guess(scope: Scope) -> datetime | None:
        value = other(scope)
        return value if isinstance(value, datetime) else None

    return guess


def _guess_days(since: Callable[[Any], Any], days: Callable[[Any], Any]) -> Callable[[Scope], datetime | None]:
    def guess(scope: Scope) -> datetime | None:
        begin, number = moment(since(scope)), number_or_none(days(scope))
        if begin is None or number is None:
            return None
        try:
            return begin + timedelta(days=float(number))
        except OverflowError:
            return None

    return guess
