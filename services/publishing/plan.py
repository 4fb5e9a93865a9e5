"""What would change if a playbook came into force: asked of a running system, told as text, Markdown and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from services.journeys import store
from services.journeys.moving import has_place
from services.journeys.store import Standing
from services.segmenter.forecast import Forecast, forecast, redefines
from shared.language.changes import Changes, JourneyChange, Named, compare
from shared.language.folder import NAMED_BY
from shared.language.playbook import DateTrigger, Journey, Playbook, SegmentTrigger, StageTrigger
from shared.processing import partitions, playbooks
from shared.processing.port import Connection

Sign = Literal["+", "~", "-"]


@dataclass(frozen=True)
class Fate:
    """Those inside a journey that is changed or removed, by step; and how many of them `journeys move` could take
    along. `without_step` are at steps that the new version does not have."""

    by_step: Mapping[str, int]
    movable: int
    without_step: Mapping[str, int]

    @property
    def inside(self) -> int:
        return sum(self.by_step.values())


@dataclass(frozen=True)
class Line:
    """What would become of one thing: new, changed or removed."""

    sign: Sign
    name: str
    text: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What would change. `before` and `after` are hashes of playbooks, None where none is in force; `since` says when
    that one came into force, and `as_of` how far the partition has come that is furthest behind."""

    before: str | None
    after: str
    since: datetime | None
    as_of: datetime | None
    changes: Changes
    fates: Mapping[str, Fate]
    forecast: Forecast | None
    """None where no segment and no stage is defined differently."""
    sections: Sequence[tuple[str, Sequence[Line]]]
    """What would change, by where it stands; empty where nothing would."""


async def make_plan(
    connection: Connection, playbook: Playbook, passed: Callable[[int], None] = lambda of: None
) -> Plan:
    """Ask a running system. `passed` is told of how many partitions one more has been looked through."""
    history = await playbooks.history(connection, 1)
    held = await playbooks.PlaybookShelf().get(connection, history[0].playbook) if history else None
    changes = compare(held, playbook)
    roads = {
        one.partition: one.as_of for one in await partitions.standings(connection, "segmenter") if one.as_of is not None
    }
    fates = {}
    for name in (*changes.journeys.changed, *changes.journeys.removed):
        standing = await store.standing(connection, name)
        fates[name] = _fate(playbook.journeys.get(name), standing)
    expected = None
    if redefines(held, playbook):
        expected = await forecast(connection, roads, playbook, lambda: passed(len(roads)))
    sections = [
        ("Journeys", list(_journeys(changes, playbook, fates))),
        ("Segments", list(_segments(changes.segments, expected))),
        ("Stages", list(_stages(changes, expected))),
        ("Topics", list(_plainly(changes.topics))),
        ("Messages", list(_messages(changes.messages))),
        ("Coupons", list(_coupons(changes.coupons))),
        ("rapport.yaml", [Line("~", name, "") for name in changes.brand]),
    ]
    return Plan(
        before=history[0].playbook if history else None,
        after=playbook.hash,
        since=history[0].at if history else None,
        as_of=min(roads.values(), default=None),
        changes=changes,
        fates=fates,
        forecast=expected,
        sections=[(title, lines) for title, lines in sections if lines],
    )


def _fate(journey: Journey | None, standing: Iterable[Standing]) -> Fate:
    by_step: Counter[str] = Counter()
    gone: Counter[str] = Counter()
    movable = 0
    for one in standing:
        step = one.step or one.status  # who is held out stands at no step
        by_step[step] += one.customers
        if journey is None or one.version == journey.version:
            continue
        if has_place(journey, one.status, one.step):
            movable += one.customers
        else:
            gone[step] += one.customers
    return Fate(dict(by_step), movable, dict(gone))


# What is told of each thing.


def _journeys(changes: Changes, after: Playbook, fates: Mapping[str, Fate]) -> Iterable[Line]:
    for name in changes.journeys.new:
        yield Line("+", name, _new(after.journeys[name]))
    for change in changes.changed_journeys:
        yield _changed_journey(change, fates[change.name])
    for name in changes.journeys.removed:
        inside = fates[name].inside
        text = f"removed. {_inside(inside, 'leave')} it, and mails of it that wait are not sent."
        yield Line("-", name, text if inside else "removed. Nobody is inside.", _by_step(fates[name].by_step))


def _new(journey: Journey) -> str:
    if journey.status == "paused":
        return "new, and paused: takes nobody in before it is live."
    if journey.status == "draft":
        return f"new, as a draft: only counts, and sends nothing. {_takes_in(journey)}"
    return f"new. {_takes_in(journey)}"


def _takes_in(journey: Journey) -> str:
    match journey.trigger:
        case SegmentTrigger(segment=segment, change="entered"):
            who = f'Takes in who enters the segment "{segment}" from now on, not its members'
        case StageTrigger(stage=stage):
            who = f'Takes in who enters the stage "{stage}" from now on, not those who are in it'
        case DateTrigger():
            return "Takes in everybody whose date comes."
        case _:
            return "Takes in who gives cause from now on."
    return f"{who}: `rapport journeys backfill {journey.name}` does that."


def _changed_journey(change: JourneyChange, fate: Fate) -> Line:
    said = []
    if change.restructured:
        said.append(f"another version: {_what_differs(change)}.")
    elif "title" in change.rules:
        said.append("another title.")
    if change.status is not None:
        said.append(_STATUS[change.status])
    details: list[str] = []
    if change.restructured and fate.inside:
        details.append(f"{_inside(fate.inside, 'finish')} the version that they began:")
        details += [
            _at(step, count) + (", which the new version does not have" if step in fate.without_step else "")
            for step, count in fate.by_step.items()
        ]
        if fate.movable:
            details.append(f"`rapport journeys move {change.name}` would take {fate.movable} of them along")
    elif change.restructured:
        details.append("nobody is inside")
    elif change.status is not None:
        details += _by_step(fate.by_step)
    return Line("~", change.name, " ".join(said), tuple(details))


_STATUS: Mapping[tuple[str, str], str] = {
    ("live", "draft"): "live becomes draft: who is inside goes on and gets no mails, and who enters is only counted.",
    ("live", "paused"): "live becomes paused: nobody enters, and what falls due waits.",
    ("draft", "live"): "draft becomes live: takes in new entrants; who was only counted gets nothing.",
    ("draft", "paused"): "draft becomes paused: nobody enters, and nothing moves.",
    ("paused", "live"): "paused becomes live: what has fallen due meanwhile goes on at once.",
    ("paused", "draft"): "paused becomes draft: what has fallen due goes on, without mails.",
}


def _what_differs(change: JourneyChange) -> str:
    parts = [*(rule for rule in change.rules if rule != "title")]
    words = (("new", change.steps.new), ("changed", change.steps.changed), ("removed", change.steps.removed))
    parts += [f"{word} {'steps' if len(names) > 1 else 'step'} {', '.join(names)}" for word, names in words if names]
    if change.reordered:
        parts.append("the steps in another order")
    return "; ".join(parts) or "written differently, and doing the same"


def _segments(named: Named, expected: Forecast | None) -> Iterable[Line]:
    signs: dict[str, tuple[Sign, str]] = {}
    for sign, word, names in (
        ("+", "new", named.new),
        ("~", "changed", named.changed),
        ("-", "removed", named.removed),
    ):
        signs |= dict.fromkeys(names, (sign, word))  # type: ignore[arg-type]
    moving = {*expected.entering, *expected.leaving} if expected is not None else set()
    for name in sorted(moving - signs.keys()):
        signs[name] = ("~", "defined as before, and reads what changes")
    for name, (sign, word) in signs.items():
        if expected is None:
            yield Line(sign, name, f"{word}.")
        else:
            enter, leave = expected.entering[name], expected.leaving[name]
            yield Line(sign, name, f"{word}: {enter:,} would enter, {leave:,} leave.")


def _stages(changes: Changes, expected: Forecast | None) -> Iterable[Line]:
    yield from _plainly(changes.stages)
    if changes.stages_reordered:
        yield Line("~", "order", "asked in another order.")
    if expected is not None:
        for (before, after), count in expected.stages.most_common():
            yield Line("~", f"{before or 'none'} to {after or 'none'}", f"{count:,} would change.")


def _messages(named: Named) -> Iterable[Line]:
    for line in _plainly(named):
        reaches = " Those inside get the new wording, too." if line.sign == "~" else ""
        yield Line(line.sign, line.name, line.text + reaches)


def _coupons(named: Named) -> Iterable[Line]:
    for line in _plainly(named):
        reaches = " Those inside get their codes by it, too." if line.sign == "~" else ""
        yield Line(line.sign, line.name, line.text + reaches)


def _plainly(named: Named) -> Iterable[Line]:
    yield from (Line("+", name, "new.") for name in named.new)
    yield from (Line("~", name, "changed.") for name in named.changed)
    yield from (Line("-", name, "removed.") for name in named.removed)


def _by_step(by_step: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(_at(step, count) for step, count in by_step.items())


def _at(step: str, count: int) -> str:
    return f"  {count} held out" if step == "held_out" else f"  {count} at {step}"


def _people(count: int) -> str:
    return f"{count:,} customer{'' if count == 1 else 's'}"


_OF_ONE = {"finish": "finishes", "leave": "leaves"}


def _inside(count: int, do: str) -> str:
    """`3 customers inside leave`, `1 customer inside leaves`."""
    return f"{_people(count)} inside {_OF_ONE[do] if count == 1 else do}"


# How it is told.


def as_text(plan: Plan) -> str:
    lines = [_head(plan)]
    if not plan.sections:
        return f"{lines[0]}\n{_nothing(plan)}"
    for title, section in plan.sections:
        lines += ["", title]
        width = max(len(line.name) for line in section)
        for line in section:
            lines.append(f"  {line.sign} {line.name:<{width}}  {line.text}".rstrip())
            lines += [f"      {detail}" for detail in line.details]
    return "\n".join([*lines, "", *_remarks(plan)]).rstrip()


def as_markdown(plan: Plan) -> str:
    """For a comment on a pull request."""
    lines = ["### What this playbook would change", "", _head(plan)]
    if not plan.sections:
        return "\n".join([*lines, "", f"**{_nothing(plan)}**"])
    for title, section in plan.sections:
        lines += ["", f"**{title}**", ""]
        for line in section:
            lines.append(f"- `{line.sign}` **{line.name}** {line.text}".rstrip())
            for detail in line.details:
                indent = "  " if detail.startswith(" ") else ""
                lines.append(f"{indent}  - {detail.strip()}")
    return "\n".join([*lines, "", *(f"_{remark}_" for remark in _remarks(plan))]).rstrip()


def as_data(plan: Plan) -> dict[str, Any]:
    """For programs."""
    found = plan.forecast
    changes = plan.changes
    names = {"journeys": changes.journeys, "stages": changes.stages, "segments": changes.segments}
    names |= {"topics": changes.topics, "messages": changes.messages, "coupons": changes.coupons}
    return {
        "before": plan.before,
        "after": plan.after,
        "as_of": plan.as_of and plan.as_of.isoformat(),
        "changes": {what: {word: list(of) for word, of in named._asdict().items()} for what, named in names.items()},
        "rapport.yaml": list(changes.brand),
        "inside": {
            name: {"by_step": dict(fate.by_step), "movable": fate.movable, "without_step": dict(fate.without_step)}
            for name, fate in plan.fates.items()
        },
        "members": None
        if found is None
        else {
            "looked_at": found.looked_at,
            "entering": dict(found.entering),
            "leaving": dict(found.leaving),
            "stages": [{"from": old, "to": new, "customers": count} for (old, new), count in found.stages.items()],
        },
    }


def _head(plan: Plan) -> str:
    after = f"Playbook {plan.after[:NAMED_BY]}"
    if plan.before is None or plan.since is None:
        return f"{after}: the first; nothing is in force."
    as_of = f", as of {plan.as_of:%Y-%m-%d %H:%M:%S} UTC" if plan.as_of else ""
    return f"{after} beside {plan.before[:NAMED_BY]}, in force since {plan.since:%Y-%m-%d %H:%M:%S} UTC{as_of}."


def _nothing(plan: Plan) -> str:
    if plan.before == plan.after:
        return "Nothing would change."
    differing = sorted({*plan.changes.files.new, *plan.changes.files.changed, *plan.changes.files.removed})
    return f"Nothing would change: only comments, notes, tests or the catalogue differ, in {', '.join(differing)}."


def _remarks(plan: Plan) -> list[str]:
    found = plan.forecast
    if found is None:
        return []
    remark = f"Segments and stages: of {_people(found.looked_at)}, by what is known of them now."
    if found.entering or found.leaving or found.stages:
        remark += " Who moves because a definition changes begins no journey by it."
    return [remark]
