"""A journey's list of steps as a graph: a name for each step, what follows what, and what nobody can reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from shared.language import steps as written
from shared.language.fields import slug
from shared.language.journey_file import JourneyFile
from shared.language.problems import Problem
from shared.language.sections import Hole
from shared.language.source import Document, Path, Scalar


class Placed(msgspec.Struct):
    """A step, its name and where it is written; `before` are the names of the steps that may have run before it."""

    id: str
    step: written.Step
    path: Path
    before: frozenset[str] = frozenset()


class Layout(msgspec.Struct):
    """The steps of a journey in the order in which they are written, and by their path."""

    placed: list[Placed] = []
    by_path: dict[Path, Placed] = {}
    by_id: dict[str, Placed] = {}
    sound: bool = True
    """Whether every step could be read: if not, a name that is not found may belong to one that could not."""

    @property
    def variables(self) -> frozenset[str]:
        """What its steps set under `vars`."""
        names = (name for placed in self.placed if isinstance(placed.step, written.SetStep) for name in placed.step.set)
        return frozenset(name.removeprefix("vars.") for name in names if name.startswith("vars."))

    def sends(self) -> list[tuple[Placed, written.SendStep]]:
        """The steps that send, on whatever channel."""
        return [(placed, placed.step) for placed in self.placed if isinstance(placed.step, written.SendStep)]

    def mails(self) -> list[tuple[Placed, written.EmailStep]]:
        return [(placed, placed.step) for placed in self.placed if isinstance(placed.step, written.EmailStep)]

    def sender(self, name: str) -> tuple[Placed | None, Sequence[Placed]]:
        """The sending step that `clicked:` or `opened:` means: by its id, else by its message where one step sends
        that; and all candidates."""
        mails = self.mails()
        named = [placed for placed, _ in mails if placed.id == name]
        candidates = named or [placed for placed, step in mails if step.email == name]
        return (candidates[0] if len(candidates) == 1 else None), candidates


def branches(step: written.Step, path: Path) -> list[tuple[Path, Sequence[written.Step]]]:
    """The lists of steps inside a step."""
    if isinstance(step, written.WaitForStep):
        return [((*path, "then"), step.then), ((*path, "on_timeout"), step.on_timeout)]
    if isinstance(step, written.IfStep):
        return [((*path, "then"), step.then), ((*path, "else"), step.else_)]
    if isinstance(step, written.ChooseStep):
        found: list[tuple[Path, Sequence[written.Step]]] = []
        for position, way in enumerate(step.choose):
            if isinstance(way, written.Way):
                found.append(((*path, "choose", position, "then"), way.then))
            elif isinstance(way, written.OtherWay):
                found.append(((*path, "choose", position, "else"), way.else_))
        return found if isinstance(step.choose[-1], written.OtherWay) else [*found, ((*path, "else"), [])]
    if isinstance(step, written.SplitStep):
        return [
            ((*path, "split", name, "then"), arm.then) for name, arm in step.split.items() if not isinstance(arm, Hole)
        ]
    return []


def lay_out(document: Document, journey: JourneyFile, report: Callable[[Problem], None]) -> Layout:
    """Names every step, and reports names that two share and steps that nobody reaches."""
    layout = Layout(sound=not any(path[:1] == ("steps",) for path in document.broken))
    _name(document, ("steps",), journey.steps, layout, report)
    _number(layout)
    _reach(document, ("steps",), journey.steps, frozenset(), layout, report)
    return layout


def _name(
    document: Document, path: Path, steps: Sequence[written.Step], layout: Layout, report: Callable[[Problem], None]
) -> None:
    for position, step in enumerate(steps):
        here = (*path, position)
        if isinstance(step, Hole):
            layout.sound = False
            continue
        placed = Placed(_given(document, here, step), step, here)
        first = layout.by_id.get(placed.id) if placed.id else None
        if first is not None:
            report(_shared_name(document, first, placed))
            layout.sound = False
        elif placed.id:
            layout.by_id[placed.id] = placed
        layout.placed.append(placed)
        layout.by_path[here] = placed
        for below, inner in branches(step, here):
            _name(document, below, inner, layout, report)


def _given(document: Document, path: Path, step: written.Step) -> str:
    """The name that a step has or takes from what it does; empty for those that nobody refers to."""
    if step.id is not None:
        return step.id
    if isinstance(step, written.SendStep):
        return step.message
    if isinstance(step, written.CouponStep):
        return step.coupon
    if isinstance(step, written.WaitStep):
        return _name_of_wait(document, path, step)
    if isinstance(step, written.EmitStep):
        return f"emit-{slug(step.emit)}"
    if isinstance(step, written.WaitForStep):
        if isinstance(step.wait_for, written.EventMatch):
            return f"wait-for-{slug(step.wait_for.event)}"
        if isinstance(step.wait_for, written.Clicked):
            return f"clicked-{step.wait_for.clicked}"
        if isinstance(step.wait_for, written.Opened):
            return f"opened-{step.wait_for.opened}"
        if isinstance(step.wait_for, written.Reply):
            return f"reply-{step.wait_for.reply}"
    return ""


def _name_of_wait(document: Document, path: Path, step: written.WaitStep) -> str:
    wait = step.wait
    if isinstance(wait, written.WaitBetween):
        return "wait-between"
    if not isinstance(wait, written.WaitUntil):
        return f"wait-{_written(document, (*path, 'wait'))}"
    if wait.for_ is not None:
        return f"wait-{_written(document, (*path, 'wait', 'for'))}"
    if wait.until is None:
        return f"wait-{'-'.join(wait.on or ())}"
    if isinstance(wait.until, str):
        return f"wait-until-{slug(wait.until.removeprefix('traits.'))}"
    return f"wait-until-{wait.until:%H%M}"


def _written(document: Document, path: Path) -> str:
    node = document.node(path)
    return node.text if isinstance(node, Scalar) else ""


_WORDS: Mapping[type[written.Step], str] = {
    written.IfStep: "if",
    written.ChooseStep: "choose",
    written.SetStep: "set",
    written.TaskStep: "task",
    written.WebhookStep: "webhook",
    written.PauseStep: "pause",
    written.ExitStep: "exit",
}


def _number(layout: Layout) -> None:
    """Steps that were given no name and to which nobody refers are numbered through: `if-1`, `exit-2`."""
    for placed in layout.placed:
        if placed.id:
            continue
        word = _WORDS[type(placed.step)]
        number = 1
        while f"{word}-{number}" in layout.by_id:
            number += 1
        placed.id = f"{word}-{number}"
        layout.by_id[placed.id] = placed


def _shared_name(document: Document, first: Placed, second: Placed) -> Problem:
    given = document.node((*second.path, "id"))
    place = document.at((*second.path, "id")) if given is not None else document.at(second.path)
    line = document.at(first.path).line
    message = f'two steps are called "{second.id}": this one and the one in line {line}.'
    remedy = "Give one of them another id." if given is not None else f"Give this one an id: {second.id}-2."
    return document.problem(place, message, remedy)


def _reach(
    document: Document,
    path: Path,
    steps: Sequence[written.Step],
    before: frozenset[str],
    layout: Layout,
    report: Callable[[Problem], None],
) -> frozenset[str] | None:
    """What may have run after a list of steps; None where every way through it ends. Reports what lies behind that."""
    so_far: frozenset[str] | None = before
    for position, step in enumerate(steps):
        here = (*path, position)
        if so_far is None:
            message = "nobody gets here: every way to this step ends with exit before it."
            report(document.problem(document.at(here), message, "Remove it, or the exit above."))
            so_far = before
        if isinstance(step, Hole):
            continue
        placed = layout.by_path[here]
        placed.before = so_far
        so_far |= {placed.id}
        if isinstance(step, written.ExitStep):
            so_far = None
            continue
        after = [_reach(document, below, inner, so_far, layout, report) for below, inner in branches(step, here)]
        if after:
            open_ends = [ends for ends in after if ends is not None]
            so_far = frozenset().union(*open_ends) if open_ends else None
    return so_far
