"""What came of a test beside what must have come of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from services.rehearsal.witness import End
from services.trials.story import Story
from shared.language.checks.tests import TestedJourney, instant_of
from shared.language.durations import format_duration
from shared.language.source import Place
from shared.language.tests_file import Expected, ExpectedMessage, ExpectedSkip


class Difference(NamedTuple):
    """What came of it, and what was expected instead. `place` is where that is written; `end` is the message that was
    not to go, or not so; `due` is when something was expected that did not come. `untold`: the story does not say what
    came of it."""

    what: str
    found: str
    expected: str
    place: Place
    end: End | None = None
    due: datetime | None = None
    untold: bool = False


class Comparison(msgspec.Struct, frozen=True):
    """Of the test with this number in its file, which begins at `start`."""

    tested: TestedJourney
    number: int
    start: datetime

    def of(self, story: Story, expect: Expected) -> Iterator[Difference]:
        if expect.sent is not None:
            yield from self._messages("sent", story, story.sent, expect.sent)
        if expect.skipped is not None:
            yield from self._messages("skipped", story, story.skipped, expect.skipped)
        enrollments = list(story.enrollments.values())
        ends = [one.reason for one in enrollments if not one.inside]
        customer = story.customer
        facts: dict[str, Any] = {
            "entered": len(enrollments),
            "exit": ends[-1] if ends else None,
            "exits": ends,
            "inside": any(one.inside for one in enrollments),
            "goal": any(one.goal_at is not None for one in enrollments),
            "attributed": sum((one.attributed or Decimal(0) for one in enrollments), Decimal(0)),
            "stage": customer.stage if customer else "",
            "segments": sorted(customer.segments) if customer else [],
            "emitted": story.emitted,
            "tasks": story.tasks,
            "called": story.called,
        }
        for name, found in facts.items():
            wanted = getattr(expect, name)
            if name == "segments" and wanted is not None:
                wanted = sorted(wanted)
            if wanted is not None and found != wanted:
                yield Difference(name, _shown(found), _shown(wanted), self._place(name))
        for name, wanted in (expect.traits or {}).items():
            found = customer.traits.get(name) if customer else None
            if not _alike(found, wanted):
                yield Difference(f"traits.{name}", _shown(found), _shown(wanted), self._place("traits", name))

    def _place(self, *path: str | int) -> Place:
        return self.tested.place(self.number, "expect", *path)

    def _messages(
        self, what: str, story: Story, ends: Sequence[End], wanted: Sequence[str | ExpectedMessage | ExpectedSkip]
    ) -> Iterator[Difference]:
        """Message by message; what is too many and what is missing is told by the names and their order."""
        found = self._in_order(what, story, ends, wanted)
        names = [end.request.message for end in found]
        expected = [one if isinstance(one, str) else one.message for one in wanted]
        for kind, a, b, c, d in SequenceMatcher(None, names, expected, autojunk=False).get_opcodes():
            if kind == "equal":
                for end, position in zip(found[a:b], range(c, d), strict=True):
                    yield from self._details(what, story, position, end, wanted[position])
                continue
            for end in found[a:b]:
                shown = f"{end.request.message} at {since(self.start, end.decided_for)}"
                yield Difference(what, shown, "nothing", self._place(what), end)
            for position in range(c, d):
                one = wanted[position]
                at = None if isinstance(one, str) else one.at
                due = None if at is None else instant_of(at, self.start)
                shown = expected[position] + (f" at {self._as_written(story, at, due)}" if due is not None else "")
                yield Difference(what, "nothing", shown, self._place(what, position), due=due)

    def _in_order(
        self, what: str, story: Story, ends: Sequence[End], wanted: Sequence[str | ExpectedMessage | ExpectedSkip]
    ) -> list[End]:
        """What different enrollments send at one moment has no order of its own: it is given that of `wanted`."""
        free = dict(enumerate(wanted))
        ordered: list[End] = []
        for _, group in groupby(ends, key=lambda end: end.decided_for):
            at_once = list(group)
            if len(at_once) == len({end.request.enrollment for end in at_once}):
                fits = {id(end): self._fitting(what, story, end, free) for end in at_once}
                at_once.sort(key=lambda end: fits[id(end)])
            ordered += at_once
        return ordered

    def _fitting(self, what: str, story: Story, end: End, free: dict[int, str | ExpectedMessage | ExpectedSkip]) -> int:
        """The first place that nobody has yet, and where nothing differs; behind all where there is none."""
        for position, one in free.items():
            name = one if isinstance(one, str) else one.message
            if name == end.request.message and not list(self._details(what, story, position, end, one)):
                del free[position]
                return position
        return sys.maxsize

    def _as_written(self, story: Story, at: timedelta | datetime | None, moment: datetime) -> str:
        """A moment in the way in which `at` is written: since the start, or as a time, by the customer's clock."""
        return story.local(moment) if isinstance(at, datetime) else since(self.start, moment)

    def _details(
        self, what: str, story: Story, position: int, end: End, wanted: str | ExpectedMessage | ExpectedSkip
    ) -> Iterator[Difference]:
        if isinstance(wanted, str):
            return
        name = f"{what} {end.request.message}"
        if wanted.at is not None and (at := instant_of(wanted.at, self.start)) != end.decided_for:
            place = self._place(what, position, "at")
            came, meant = (self._as_written(story, wanted.at, moment) for moment in (end.decided_for, at))
            yield Difference(name, f"at {came}", f"at {meant}", place, end)
        if isinstance(wanted, ExpectedMessage):
            given = end.request.data.get("with") or {}
            for variable, value in (wanted.with_ or {}).items():
                if not _alike(given.get(variable), value):
                    place = self._place(what, position, "with", variable)
                    shown = f"{variable}: {_shown(given.get(variable))}"
                    yield Difference(name, shown, f"{variable}: {_shown(value)}", place, end, untold=True)
        elif wanted.reason is not None and wanted.reason != end.reason:
            yield Difference(name, end.reason, wanted.reason, self._place(what, position, "reason"), end)


def since(start: datetime, moment: datetime) -> str:
    """A moment as it would be written in a test."""
    return format_duration(moment - start) if moment >= start else moment.isoformat()


def as_json(value: Any) -> str:
    """As a shop would post it: a decimal is a number."""
    return msgspec.json.encode(_plain(value)).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _alike(found: Any, wanted: Any) -> bool:
    return bool(msgspec.json.decode(as_json(found)) == msgspec.json.decode(as_json(wanted)))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or value == []:
        return "nothing"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value.normalize():f}" if isinstance(value, Decimal) else as_json(value)
