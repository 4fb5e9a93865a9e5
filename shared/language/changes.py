"""What one playbook says differently from another. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import fields

from shared.language.playbook import Arm, Journey, Playbook, Step
from shared.language.problems import listed

_LEADS_ON = frozenset({"next", "matched", "timed_out", "then", "otherwise", "first"})
"""Fields of a step that say where it leads: a step is not another one because its neighbour is."""

_RULES: Mapping[str, str] = {
    "trigger": "trigger",
    "condition": "the trigger's if",
    "unless_in": "unless_in",
    "mode": "mode",
    "again": "again",
    "max_age": "max_age",
    "goal": "goal",
    "exit_on": "exit_on",
    "topic": "defaults.topic",
    "holdout": "holdout",
}
"""Fields of a journey beside its steps, and what a marketer calls them."""


class Named(NamedTuple):
    """Things that have names: which are there in the second playbook alone, differ, or are in the first alone."""

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.removed)


class JourneyChange(msgspec.Struct, frozen=True):
    """A journey that both have. `restructured`: it is another version, so those inside finish the one that they began.

    `rules` are what else than steps differs, in a marketer's words; `status` is before and after, where that differs.
    """

    name: str
    restructured: bool
    status: tuple[str, str] | None
    rules: tuple[str, ...]
    steps: Named
    reordered: bool
    """The steps are the same, and lead elsewhere."""


class Changes(msgspec.Struct, frozen=True):
    """`brand` are the fields of rapport.yaml that differ."""

    journeys: Named
    changed_journeys: tuple[JourneyChange, ...]
    stages: Named
    stages_reordered: bool
    segments: Named
    topics: Named
    messages: Named
    coupons: Named
    brand: tuple[str, ...]
    files: Named

    @property
    def summary(self) -> str:
        """`journeys: new nps, changed abandoned-cart; segments: removed vip`"""
        parts = [
            f"{what}: {_in_words(named)}"
            for what, named in (
                ("journeys", self.journeys),
                ("stages", self.stages),
                ("segments", self.segments),
                ("topics", self.topics),
                ("messages", self.messages),
                ("coupons", self.coupons),
            )
            if named
        ]
        if self.stages_reordered:
            parts.append("stages: in another order")
        if self.brand:
            parts.append(f"rapport.yaml: {', '.join(self.brand)}")
        if not parts and self.files:
            parts.append(f"files: {_in_words(self.files)}")
        return "; ".join(parts)


def compare(before: Playbook | None, after: Playbook) -> Changes:
    """What `after` says differently from `before`; all of it where there was none."""
    journeys = before.journeys if before is not None else {}
    stages = {stage.name: stage for stage in before.stages} if before is not None else {}
    found = {name: _journey(journeys[name], journey) for name, journey in after.journeys.items() if name in journeys}
    changed = {name: change for name, change in found.items() if change is not None}
    after_stages = {stage.name: stage for stage in after.stages}
    kept = [name for name in stages if name in after_stages]
    return Changes(
        journeys=_named(journeys, after.journeys, changed),
        changed_journeys=tuple(changed[name] for name in sorted(changed)),
        stages=_named(stages, after_stages),
        stages_reordered=kept != [name for name in after_stages if name in stages],
        segments=_named(before.segments if before is not None else {}, after.segments),
        topics=_named(before.topics if before is not None else {}, after.topics),
        messages=_named(before.messages if before is not None else {}, after.messages),
        coupons=_named(before.coupons if before is not None else {}, after.coupons),
        brand=_different(before.brand, after.brand) if before is not None else (),
        files=_named(before.files if before is not None else {}, after.files),
    )


def steps_changed(before: Journey, after: Journey) -> Named:
    """By id; a step that only leads elsewhere is none of them."""
    return _named(
        {name: own_part(step) for name, step in before.steps.items()},
        {name: own_part(step) for name, step in after.steps.items()},
    )


def own_part(step: Step) -> tuple[object, ...]:
    """What a step is, apart from where it leads."""
    return (
        type(step),
        *(_without_ways(getattr(step, field.name)) for field in fields(step) if field.name not in _LEADS_ON),
    )


def _journey(before: Journey, after: Journey) -> JourneyChange | None:
    status = (before.status, after.status) if before.status != after.status else None
    if before == after:
        return None
    steps = steps_changed(before, after)
    leads = {name: _ways(before.steps[name]) for name in before.steps}
    reordered = not steps and (before.first != after.first or leads != {n: _ways(s) for n, s in after.steps.items()})
    rules = [_RULES[name] for name in _different(before, after) if name in _RULES]
    if before.title != after.title:
        rules.append("title")
    return JourneyChange(after.name, before.version != after.version, status, tuple(rules), steps, reordered)


def _ways(step: Step) -> tuple[object, ...]:
    return tuple(getattr(step, field.name) for field in fields(step))


def _without_ways(value: Any) -> object:
    if isinstance(value, Mapping):
        return {name: _without_ways(one) for name, one in value.items()}
    if isinstance(value, Arm):
        return value.share
    if isinstance(value, tuple) and value and all(isinstance(one, tuple) and len(one) == 2 for one in value):
        return tuple(condition for condition, _ in value)  # the ways of `choose`
    return value


def _different(before: Any, after: Any) -> tuple[str, ...]:
    """The names of the fields of a dataclass that differ."""
    return tuple(field.name for field in fields(before) if getattr(before, field.name) != getattr(after, field.name))


def _named(before: Mapping[str, object], after: Mapping[str, object], changed: Iterable[str] | None = None) -> Named:
    if changed is None:
        changed = (name for name, one in after.items() if name in before and before[name] != one)
    return Named(
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(changed)),
        tuple(sorted(before.keys() - after.keys())),
    )


def _in_words(named: Named) -> str:
    words = (("new", named.new), ("changed", named.changed), ("removed", named.removed))
    return ", ".join(f"{word} {listed(names, 'and')}" for word, names in words if names)
