"""A journey as a person reads it: boxes from the top, ways side by side where it branches; as text and as Mermaid.

A journey is a graph in which branches meet again. Here it becomes what it was written as, lists within lists: the ways
of a branch go until the first step that all of them come to, apart from those that leave: where one way is left, what
stands on it follows below. The picture is in `flowchart_svg`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from shared.language.durations import format_duration
from shared.language.playbook import (
    Choose,
    Coupon,
    DateTrigger,
    Email,
    Emit,
    EventMatch,
    EventTrigger,
    Exit,
    If,
    Journey,
    Pause,
    SegmentTrigger,
    Set,
    Split,
    StageTrigger,
    Step,
    Task,
    Wait,
    WaitFor,
    Webhook,
)

Kind = Literal["begin", "wait", "send", "ask", "do", "leave", "end"]
"""What a box is about: the beginning; waiting; a message; a question; an effect; leaving on the way; the end."""

BEGIN, END = "begin", "end"
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class Box(msgspec.Struct, frozen=True):
    """A step, the beginning or the end. `lines` say what it does, the first in a word or two."""

    id: str
    kind: Kind
    lines: tuple[str, ...]


class Way(msgspec.Struct, frozen=True):
    """What one branch is called, and what happens on it. `open` says whether it comes to what follows the fork."""

    label: str
    flow: Flow
    open: bool


class Fork(msgspec.Struct, frozen=True):
    """A box that asks or draws lots, and the ways from there."""

    box: Box
    ways: tuple[Way, ...]


Flow = tuple[Box | Fork, ...]


def flow_of(journey: Journey) -> Flow:
    """The whole of a journey, from what begins it to its end."""
    after = _inevitable(journey.steps)
    steps = _flow(journey.steps, journey.first, None, after)
    beginning = (Box(BEGIN, "begin", _beginning(journey)), *_holdout(journey))
    if not goes_on(steps):
        return (*beginning, *steps)
    return (*beginning, *steps, Box(END, "end", ("completed",)))


def _holdout(journey: Journey) -> Flow:
    """Who gets nothing is told apart before the first step. No step can have a name with a space."""
    share, goal = journey.holdout, journey.goal
    if not share or goal is None or goal.within is None:
        return ()
    watched = f"goal watched for {format_duration(goal.within)}"
    out = Box("held out", "leave", ("held out", "gets nothing", watched))
    ways = (Way(f"{float(share * 100):g}%", (out,), False), Way(f"{float(100 - share * 100):g}%", (), True))
    return (Fork(Box("hold out", "ask", ("hold out", "by customer, always the same")), ways),)


def goes_on(flow: Flow) -> bool:
    """Whether somebody comes out at the end of it."""
    if not flow:
        return True
    last = flow[-1]
    return any(way.open for way in last.ways) if isinstance(last, Fork) else last.kind != "leave"


def boxes(flow: Flow) -> Iterator[Box]:
    """All boxes, in the order in which they are written."""
    for item in flow:
        if isinstance(item, Box):
            yield item
        else:
            yield item.box
            for way in item.ways:
                yield from boxes(way.flow)


def as_text(flow: Flow, inside: Mapping[str, int] | None = None) -> str:
    """Indented lines; `inside` says how many customers are at a step."""
    return "\n".join(_lines(flow, "", inside or {}))


def as_mermaid(flow: Flow, inside: Mapping[str, int] | None = None) -> str:
    """A flowchart for pages that draw Mermaid. https://mermaid.js.org/syntax/flowchart.html"""
    inside = inside or {}
    names = {box.id: f"n{number}" for number, box in enumerate(boxes(flow))}
    drawn = ["flowchart TD"]
    for box in boxes(flow):
        text = "<br>".join(_quoted(line) for line in (*box.lines, *_count(inside.get(box.id, 0))))
        left, right = _SHAPES[box.kind]
        drawn.append(f'    {names[box.id]}{left}"{text}"{right}')
    for source, target, label in _edges(flow):
        arrow = f'-->|"{_quoted(label)}"|' if label else "-->"
        drawn.append(f"    {names[source]} {arrow} {names[target]}")
    return "\n".join(drawn)


_SHAPES: Mapping[Kind, tuple[str, str]] = {
    "begin": ("([", "])"),
    "wait": ("[/", "/]"),
    "send": ("[", "]"),
    "ask": ("{{", "}}"),
    "do": ("[[", "]]"),
    "leave": ("([", "])"),
    "end": ("([", "])"),
}


def _quoted(text: str) -> str:
    return text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")


def _count(number: int) -> tuple[str, ...]:
    return (f"{number:,} inside",) if number else ()


def _lines(flow: Flow, indent: str, inside: Mapping[str, int]) -> Iterator[str]:
    for item in flow:
        box = item if isinstance(item, Box) else item.box
        count = f"   [{inside[box.id]:,} inside]" if inside.get(box.id) else ""
        yield f"{indent}{box.lines[0]}{': ' if len(box.lines) > 1 else ''}{', '.join(box.lines[1:])}{count}"
        if isinstance(item, Fork):
            for way in item.ways:
                yield f"{indent}  {way.label}:"
                yield from _lines(way.flow, f"{indent}    ", inside) if way.flow else [f"{indent}    (goes on below)"]


def _edges(flow: Flow) -> list[tuple[str, str, str]]:
    """From, to, and what the way is called."""
    edges: list[tuple[str, str, str]] = []

    def walk(flow: Flow, loose: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Ties the loose ends to the flow's first box; the ends that are loose behind it."""
        for item in flow:
            box = item if isinstance(item, Box) else item.box
            edges.extend((source, box.id, label) for source, label in loose)
            if isinstance(item, Box):
                loose = [] if item.kind == "leave" else [(box.id, "")]
            else:
                loose = [end for way in item.ways for end in walk(way.flow, [(box.id, way.label)])]
        return loose

    walk(flow, [])
    return edges


# From the graph to lists within lists


def ways_of(step: Step) -> list[tuple[str, str | None]] | None:
    """The ways from a step that branches, by what they are called; None for the others."""
    match step:
        case WaitFor():
            return [("came", step.matched), (f"not within {format_duration(step.timeout)}", step.timed_out)]
        case If():
            return [("yes", step.then), ("no", step.otherwise)]
        case Choose():
            return [*((condition.source, first) for condition, first in step.ways), ("else", step.otherwise)]
        case Split():
            return [(f"{name} {float(arm.share * 100):g}%", arm.first) for name, arm in step.arms.items()]
    return None


def _following(step: Step) -> Sequence[str | None]:
    ways = ways_of(step)
    if ways is not None:
        return [first for _, first in ways]
    return [] if isinstance(step, Exit) else [step.next]  # type: ignore[union-attr]


def _inevitable(steps: Mapping[str, Step]) -> dict[str | None, frozenset[str] | None]:
    """For each step, those that everybody comes through from there who does not leave; None where everybody leaves."""
    found: dict[str | None, frozenset[str] | None] = {None: frozenset()}

    def settle(start: str | None) -> None:
        pending = [start]
        while pending:
            name = pending[-1]
            if name in found:
                pending.pop()
                continue
            assert name is not None
            following = _following(steps[name])
            unknown = [one for one in following if one not in found]
            if unknown:
                pending += unknown
                continue
            onward = [ahead for one in following if (ahead := found[one]) is not None]
            found[name] = frozenset.intersection(*onward) | {name} if onward else None
            pending.pop()

    for name in steps:
        settle(name)
    return found


def _flow(
    steps: Mapping[str, Step],
    first: str | None,
    until: str | None,
    inevitable: Mapping[str | None, frozenset[str] | None],
) -> Flow:
    items: list[Box | Fork] = []
    name = first
    while name is not None and name != until:
        step = steps[name]
        box = _box(step)
        ways = ways_of(step)
        if ways is None:
            items.append(box)
            name = None if isinstance(step, Exit) else step.next  # type: ignore[union-attr]
            continue
        ahead = [found for _, one in ways if (found := inevitable[one]) is not None]
        common = frozenset.intersection(*ahead) if ahead else frozenset[str]()
        # Of the steps that all come to, the first has the most of them behind it.
        meet = max(common, key=lambda one: len(inevitable[one] or ()), default=until if ahead else None)
        drawn = [Way(label, _flow(steps, one, meet, inevitable), inevitable[one] is not None) for label, one in ways]
        items.append(Fork(box, tuple(drawn)))
        if not ahead:
            break
        name = meet
    return tuple(items)


# What a box says


def _beginning(journey: Journey) -> tuple[str, ...]:
    trigger = journey.trigger
    lines: list[str] = []
    match trigger:
        case EventTrigger():
            lines.append(trigger.event)
            if trigger.for_each is not None:
                lines.append(f"each of {'.'.join(('event', *trigger.for_each))}")
            if trigger.where is not None:
                lines.append(f"where {trigger.where.source}")
            if trigger.key is not None:
                lines.append(f"one for each {trigger.key.source}")
        case StageTrigger():
            lines.append(f"enters stage {trigger.stage}")
        case SegmentTrigger():
            lines.append(f"{'enters' if trigger.change == 'entered' else 'leaves'} {trigger.segment}")
        case DateTrigger():
            before = f"{trigger.before} day{'' if trigger.before == 1 else 's'} before " if trigger.before else ""
            yearly = ", each year" if trigger.every else ""
            lines.append(f"{before}traits.{'.'.join(trigger.trait)}{yearly}")
            lines.append(f"at {trigger.at:%H:%M}")
    if journey.condition is not None:
        lines.append(f"if {journey.condition.source}")
    if journey.unless_in:
        lines.append(f"unless in {', '.join(sorted(journey.unless_in))}")
    if journey.goal is not None:
        lines.append(f"until the goal: {_match(journey.goal.match)}")
    lines += [f"until {_match(match)}" for match in journey.exit_on]
    return tuple(lines)


def _match(match: EventMatch) -> str:
    return " ".join((match.event, *_where(match)))


def _box(step: Step) -> Box:
    match step:
        case Wait():
            return Box(step.id, "wait", ("wait", *_waiting(step)))
        case WaitFor():
            return Box(step.id, "wait", ("wait for", _awaited(step), *_where(step.match)))
        case Email():
            # Other steps speak of it by its id.
            message = step.message if step.id == step.message else f"{step.message}, as {step.id}"
            return Box(step.id, "send", (step.channel, message, f"topic {step.topic}"))
        case If():
            return Box(step.id, "ask", ("if", step.condition.source))
        case Choose():
            return Box(step.id, "ask", ("choose",))
        case Split():
            return Box(step.id, "ask", ("split", f"{step.id}, by {step.by}"))
        case Set():
            given = [*(f"vars.{name}" for name in step.vars), *(f"traits.{name}" for name in step.traits)]
            return Box(step.id, "do", ("set", ", ".join(given)))
        case Emit():
            return Box(step.id, "do", ("emit", step.event))
        case Webhook():
            return Box(step.id, "do", ("webhook", step.url))
        case Task():
            return Box(step.id, "do", ("task", step.title.source))
        case Coupon():
            return Box(step.id, "do", ("coupon", step.pool))
        case Pause():
            return Box(step.id, "do", ("pause", format_duration(step.duration) if step.duration else "lifted"))
        case Exit():
            return Box(step.id, "leave", ("exit", step.reason))


def _awaited(step: WaitFor) -> str:
    if step.match is not None:
        return step.match.event
    return f"a click in {step.clicked}" if step.clicked is not None else f"an open of {step.opened}"


def _where(match: EventMatch | None) -> tuple[str, ...]:
    return (f"where {match.where.source}",) if match is not None and match.where is not None else ()


def _waiting(step: Wait) -> tuple[str, ...]:
    if step.between is not None:
        shortest, longest = map(format_duration, step.between)
        return (f"{shortest} to {longest}",)
    said = [format_duration(step.duration)] if step.duration else []
    if step.date is not None:
        at = f", {step.until:%H:%M}" if step.until is not None else ""
        said.append(f"until traits.{'.'.join(step.date)}{at}")
    elif step.until is not None:
        said.append(f"until {step.until:%H:%M}")
    if step.weekdays:
        said.append(f"on {', '.join(WEEKDAYS[day] for day in sorted(step.weekdays))}")
    return (", ".join(said),)
