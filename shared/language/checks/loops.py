"""Journeys that begin one another, or themselves, without end: by the events that they report, by the traits that they
set, where those decide on a segment or a stage, and by the time that passes since such an event.

What is reported here is certain. It is looked only at effects that everybody who enters comes to, and that do not find
the customer inside still; a journey that a goal or an exit may end before is left alone. Nobody is mailed without end
by what events lead to: that ends after eight consequences of consequences. What time leads to does not end, and may be
meant so: it is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from shared.language.certainty import always, implies, never
from shared.language.checks.book import Book, ReadJourney
from shared.language.checks.circles import circles
from shared.language.durations import format_duration
from shared.language.graph import branches
from shared.language.journey_file import EventTrigger, SegmentTrigger, StageTrigger
from shared.language.problems import quoted
from shared.language.sections import Hole
from shared.language.source import Path
from shared.language.steps import EmitStep, ExitStep, SendStep, SetStep, Step, WaitForStep, WaitStep, WebhookStep
from shared.language.tree import Argument, Binary, Call, Literal, Logic, Name, Node, Unary

_WAITING = (WaitStep, WaitForStep, SendStep, WebhookStep)
_BY_EVENT, _BY_TRAIT = "a where", "an if to its trigger"


class _Effect(NamedTuple):
    """What a step certainly does that begins another journey, where that is written, and what could stop it."""

    begins: str
    path: Path
    remedy: str
    after: timedelta | None = None
    """Begins it so long afterwards, if nothing else of the kind happens."""


class _Standing(NamedTuple):
    """What is certain of the customer: in which segments or not, and in which stage; and the traits that were set."""

    segments: dict[str, bool]
    stage: list[str]
    traits: dict[str, Node]


def check_loops(book: Book) -> None:
    effects = {name: list(_effects(book, journey)) for name, journey in book.journeys.items()}
    begins = {name: [effect.begins for effect in found] for name, found in effects.items()}
    for circle in circles(begins):
        following = circle[1] if len(circle) > 1 else circle[0]
        effect = next(effect for effect in effects[circle[0]] if effect.begins == following)
        shown = [quoted(name) for name in [*circle[1:], circle[0]]]
        found = [
            next(effect for effect in effects[name] if effect.begins == other)
            for name, other in zip(circle, [*circle[1:], circle[0]], strict=True)
        ]
        later = f" {format_duration(effect.after)} later" if effect.after else ""
        message = f"this begins {', which begins '.join(shown)}{later}, and so without end."
        wrong = book.wrong_at(book.journeys[circle[0]].document, effect.path)
        warning = any(one.after for one in found)
        wrong(message, f"Add again: to one of them, or {effect.remedy}.", warning)


def _effects(book: Book, journey: ReadJourney) -> Iterator[_Effect]:
    shape = journey.shape
    standing = _begun(journey)
    may_end = shape.goal is not None or bool(shape.exit_on)
    waited = False
    for position, step in enumerate(shape.steps):
        path: Path = ("steps", position)
        if isinstance(step, ExitStep | Hole) or (waited and may_end):
            return
        below = [inner for _, inner in branches(step, path)]
        over = shape.steps[position + 1 :]
        free = not _holds(over, _WAITING) or (shape.mode == "restart" and not _holds(shape.steps, (SendStep,)))
        if isinstance(step, EmitStep) and free:
            yield from (_Effect(name, (*path, "emit"), _BY_EVENT) for name in _begun_by(book, journey, path, step))
            yield from (
                _Effect(name, (*path, "emit"), _BY_TRAIT, after) for name, after in _begun_by_silence(book, step.emit)
            )
        elif isinstance(step, SetStep):
            # What is passed on the way changes what is known, also where the customer is inside still.
            found = [
                _Effect(name, (*path, "set", last), _BY_TRAIT)
                for name, last in _set(book, journey, path, step, standing)
            ]
            yield from found if free else ()
        elif any(_holds(inner, (ExitStep, Hole)) for inner in below):
            return
        elif any(_holds(inner, (SetStep,)) for inner in below):
            standing.segments.clear()
            standing.stage.clear()
            standing.traits.clear()
        waited = waited or _holds([step], _WAITING)


def _begun(journey: ReadJourney) -> _Standing:
    trigger = journey.shape.trigger
    if isinstance(trigger, SegmentTrigger):
        return _Standing({trigger.segment: trigger.change == "entered"}, [], {})
    return _Standing({}, [trigger.stage] if isinstance(trigger, StageTrigger) else [], {})


def _holds(steps: Sequence[Step], kinds: tuple[type, ...]) -> bool:
    """Whether any of these steps, or of those inside them, is of such a kind."""
    return any(
        isinstance(step, kinds)
        or (isinstance(step, Step) and any(_holds(inner, kinds) for _, inner in branches(step, ())))
        for step in steps
    )


def _takes_all(journey: ReadJourney) -> bool:
    """Whether it takes in everybody for whom its trigger fits, also who has just left it."""
    shape, trigger = journey.shape, journey.shape.trigger
    if isinstance(trigger, Hole) or trigger.if_ is not None or trigger.unless_in or shape.holdout:
        return False
    return shape.again == "always"


def _begun_by(book: Book, journey: ReadJourney, path: Path, step: EmitStep) -> Iterator[str]:
    for name, other in book.journeys.items():
        trigger = other.shape.trigger
        if not isinstance(trigger, EventTrigger) or trigger.event != step.emit or not _takes_all(other):
            continue
        if trigger.where is None and trigger.for_each is None and _has_key(journey, path, trigger.key):
            yield name


def _has_key(journey: ReadJourney, path: Path, key: str | None) -> bool:
    """Whether what is reported certainly has what the other journey takes for its key."""
    if key is None:
        return True
    given = journey.expression((*path, "properties", key.strip().removeprefix("event.")))
    return given is not None and (given.source.strip() == "key" or _constant(given.tree))


def _constant(tree: Node) -> bool:
    return isinstance(tree, Literal) and tree.value not in (None, "")


def _set(book: Book, journey: ReadJourney, path: Path, step: SetStep, standing: _Standing) -> Iterator[tuple[str, str]]:
    """The journeys that begin since a segment or the stage changes by what is set, and the name of what that is."""
    last = ""
    for name in step.set:
        root, _, trait = name.partition(".")
        if root != "traits":
            continue
        last, given = name, journey.expression((*path, "set", name))
        standing.traits.pop(trait, None)
        if given is not None and isinstance(given.tree, Literal):
            standing.traits[trait] = given.tree
    if not last:
        return
    said = _said(standing.traits)
    for name, expression in book.segment_expressions.items():
        before, after = standing.segments.pop(name, None), _truth(said, expression.tree)
        if after is not None:
            standing.segments[name] = after
        if before is not None and after is not None and before is not after:
            change = "entered" if after else "left"
            yield from ((other, last) for other in _begun_by_segment(book, name, change))
    stage = _stage(book, said)
    if standing.stage and stage is not None and standing.stage != [stage]:
        yield from ((other, last) for other in _begun_by_stage(book, stage))
    standing.stage[:] = [] if stage is None else [stage]


def _begun_by_segment(book: Book, segment: str, change: str) -> Iterator[str]:
    for name, journey in book.journeys.items():
        trigger = journey.shape.trigger
        if isinstance(trigger, SegmentTrigger) and (trigger.segment, trigger.change) == (segment, change):
            yield from [name] if _takes_all(journey) else []


def _begun_by_stage(book: Book, stage: str) -> Iterator[str]:
    for name, journey in book.journeys.items():
        trigger = journey.shape.trigger
        if isinstance(trigger, StageTrigger) and trigger.stage == stage and _takes_all(journey):
            yield name


def _begun_by_silence(book: Book, event: str) -> Iterator[tuple[str, timedelta]]:
    """The journeys that begin as soon as such an event is longer ago than a window, and how long that is."""
    for name, journey in book.journeys.items():
        trigger = journey.shape.trigger
        if not _takes_all(journey):
            continue
        expression, silent = None, True
        if isinstance(trigger, SegmentTrigger):
            expression, silent = book.segment_expressions.get(trigger.segment), trigger.change == "entered"
        elif isinstance(trigger, StageTrigger) and trigger.stage == next(iter(book.stage_expressions), None):
            expression = book.stage_expressions[trigger.stage]
        after = None if expression is None else _window(expression.tree, event, silent)
        if after is not None:
            yield name, after


def _window(condition: Node, event: str, silent: bool) -> timedelta | None:
    """How long after the event time alone makes the condition true (`silent`: for want of events), or else false. None
    where that depends on more."""
    parts = condition.operands if isinstance(condition, Logic) and condition.operator == "and" else (condition,)
    windows = []
    for part in parts:
        said = _asked(part)
        if said is None:
            return None
        asked, within, happened = said
        if within is not None and asked == event and happened is not silent:
            windows.append(within)
        elif within is not None or not happened:
            return None
    return max(windows, default=None) if silent else min(windows, default=None)


def _asked(part: Node) -> tuple[str, timedelta | None, bool] | None:
    """Of a condition that asks whether there was an event at all: which, in what window, and whether it wants one."""
    match part:
        case Unary(operator="not", operand=operand):
            said = _asked(operand)
            return None if said is None else (said[0], said[1], not said[2])
        case Call(function="exists", arguments=(Literal(value=str(event)),), named=named):
            return _in_window(event, named, True)
        case Binary(
            operator=operator,
            left=Call(function="count", arguments=(Literal(value=str(event)),), named=named),
            right=Literal(value=int(number)),
        ):
            if (operator, number) in (("==", 0), ("<", 1), ("<=", 0)):
                return _in_window(event, named, False)
            if (operator, number) in (("!=", 0), (">", 0)) or (operator == ">=" and number == 1):
                return _in_window(event, named, True)
            # How many there are without a window is never less again.
            return (event, None, True) if not named and operator in (">", ">=") else None
    return None


def _in_window(event: str, named: tuple[Argument, ...], happened: bool) -> tuple[str, timedelta | None, bool] | None:
    match named:
        case ():
            return event, None, happened
        case (Argument(name="within", value=Literal(value=timedelta() as window)),):
            return event, window, happened
    return None


def _said(traits: Mapping[str, Node]) -> Node:
    """The traits that were set, as a condition."""
    told = tuple(Binary(0, 0, "==", Name(0, 0, ("traits", name)), value) for name, value in traits.items())
    return Logic(0, 0, "and", told)


def _truth(said: Node, condition: Node) -> bool | None:
    """What a condition comes to where that is so; None where nobody can say."""
    parts = condition.operands if isinstance(condition, Logic) and condition.operator == "and" else (condition,)
    if all(implies(said, part) for part in parts):
        return True
    return False if never(Logic(0, 0, "and", (said, condition))) else None


def _stage(book: Book, said: Node) -> str | None:
    for name, expression in book.stage_expressions.items():
        truth = always(expression.tree) or _truth(said, expression.tree)
        if truth is None:
            return None
        if truth:
            return name
    return None
