"""What tests have shown, as text, for GitHub, and as JUnit's XML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from services.trials.comparing import Difference
from services.trials.coverage import Covered, Missed
from services.trials.running import Verdict
from services.trials.story import Story

_WIDEST = 76
"""Columns of what happened; what was expected stands beside it."""
_WAYS = {"matched": "what it waits for never came", "timeout": "it never timed out"}


def headline(verdict: Verdict) -> str:
    place = verdict.place
    return f"{verdict.tested.file}:{place.line}:{place.column}: {verdict.test.name}"


def explained(verdict: Verdict) -> list[str]:
    """The story of the customer, next to what was expected of it."""
    story, start = verdict.story, verdict.start
    left = [(at, _row(start, at, story, text), about) for at, text, about in story.lines]
    rows: list[tuple[datetime | None, str, str]] = []
    marked: set[int] = set()
    for at, text, about in left:
        marks = [one for one in verdict.differences if about is not None and one.end is about]
        marked.update(map(id, marks))
        rows.append((at, text, "; ".join(_mark(one) for one in marks)))
    for one in verdict.differences:
        if id(one) in marked or one.due is None:
            continue
        # What did not come stands where it should have.
        place = next((index for index, (at, _, _) in enumerate(rows) if at is not None and at > one.due), len(rows))
        rows.insert(place, (one.due, _row(start, one.due, story, one.found), _mark(one)))
        marked.add(id(one))
    rows += [(None, f"{one.what}: {one.found}", _mark(one)) for one in verdict.differences if id(one) not in marked]
    width = min(_WIDEST, max([len("what happened"), *(len(text) for _, text, _ in rows)]))
    lines = [f"    {'what happened':<{width}}  what was expected"]
    for _, text, mark in rows:
        if mark and len(text) > width:
            lines += [f"    {text}", f"    {'':<{width}}  {mark}"]
        else:
            lines.append(f"    {text:<{width}}  {mark}".rstrip())
    return lines


def _row(start: datetime, at: datetime, story: Story, text: str) -> str:
    return f"{_elapsed(at - start):>7}  {story.local(at)}  {text}"


def _elapsed(duration: timedelta) -> str:
    """The two largest parts of it: 1d 2h, 23h 59m."""
    minutes = duration // timedelta(minutes=1)
    parts = ((minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "m"))
    return " ".join([f"{count}{unit}" for count, unit in parts if count][:2]) or "0m"


def in_text(verdicts: Sequence[Verdict], seconds: float) -> list[str]:
    failed = [verdict for verdict in verdicts if verdict.differences]
    lines: list[str] = []
    for verdict in failed:
        lines += [f"✗ {headline(verdict)}", *explained(verdict), ""]
    passed = len(verdicts) - len(failed)
    return [*lines, f"{passed} passed{f', {len(failed)} failed' if failed else ''}, in {seconds:.1f} s"]


def for_github(verdicts: Iterable[Verdict], folder: str) -> list[str]:
    """A comment for each difference, at its line. https://docs.github.com/actions (workflow commands)"""
    lines = []
    for verdict in verdicts:
        story = "%0A".join(_escaped(line) for line in explained(verdict))
        for one in verdict.differences:
            place = f"file={folder}/{verdict.tested.file},line={one.place.line},col={one.place.column}"
            lines.append(f"::error {place}::{_escaped(_fact(verdict, one))}%0A{story}")
    return lines


def in_junit(verdicts: Sequence[Verdict], seconds: float) -> str:
    """As CI servers read it: a suite for each file, a case for each test."""
    from xml.etree.ElementTree import Element, SubElement, indent, tostring

    failed = sum(bool(verdict.differences) for verdict in verdicts)
    root = Element("testsuites", tests=str(len(verdicts)), failures=str(failed), time=f"{seconds:.3f}")
    for file in dict.fromkeys(verdict.tested.file for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.tested.file == file]
        broken = sum(bool(verdict.differences) for verdict in own)
        suite = SubElement(root, "testsuite", name=file, tests=str(len(own)), failures=str(broken))
        for verdict in own:
            name, line = verdict.test.name, str(verdict.place.line)
            case = SubElement(suite, "testcase", classname=verdict.tested.journey, name=name, file=file, line=line)
            if verdict.differences:
                facts = "; ".join(_fact(verdict, one) for one in verdict.differences)
                SubElement(case, "failure", message=facts).text = "\n".join(explained(verdict))
    indent(root)
    return tostring(root, encoding="unicode")


def of_coverage(journeys: Iterable[Covered]) -> list[str]:
    lines = []
    for one in journeys:
        share = 100 * one.gone // one.of if one.of else 100
        lines.append(f"{one.journey}: {share}% ({one.gone} of {one.of} steps and ways)")
        lines += [f"  {missed.place}: {_missing(missed)}" for missed in one.missed]
    return lines


def _missing(missed: Missed) -> str:
    if not missed.way:
        return f"no test reaches {missed.step}."
    return f"no test leaves {missed.step} by {missed.way}{f': {_WAYS[missed.way]}' if missed.way in _WAYS else ''}."


def _mark(one: Difference) -> str:
    return f"✗ {one.expected}{f', found {one.found}' if one.untold else ''}"


def _fact(verdict: Verdict, one: Difference) -> str:
    return f"{verdict.test.name}: {one.what}: expected {one.expected}, found {one.found}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
