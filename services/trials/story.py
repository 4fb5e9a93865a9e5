"""One customer's story as lines: what they did, what journeys decided, what was sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from services.journeys.decisions import Decided, Decision
from services.journeys.enrollment import Enrollment
from services.journeys.wording import CHANNELS, condition, done
from services.rehearsal.witness import End, Hold, Witness
from shared.contracts.customers import Customer, CustomerUpdated, DateReached
from shared.contracts.events import JOURNEYS_SOURCE, MAILER_SOURCE, TASK_OPENED, Event
from shared.contracts.messages import EMAIL, WEBHOOK
from shared.language.places import Places
from shared.language.playbook import Playbook
from shared.walltime import zone_of

_LONGEST = 60


class Line(NamedTuple):
    """Something that happened. `about` is the message that a mark beside the line is about, where there is one."""

    at: datetime
    text: str
    about: End | None = None


class Footprint(NamedTuple):
    """A step of a journey that was reached; and where several ways lead on from it, the one that was gone."""

    journey: str
    step: str
    way: str


@dataclass
class Story(Witness):
    """Listens to a house with one customer in it. Of journeys other than `journey` only what they send is told."""

    playbook: Playbook
    places: Places
    journey: str
    lines: list[Line] = field(default_factory=list)
    sent: list[End] = field(default_factory=list)
    mails: list[End] = field(default_factory=list)
    """What went out, by whatever journey."""
    skipped: list[End] = field(default_factory=list)
    emitted: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    called: list[str] = field(default_factory=list)
    """Steps whose webhook was called."""
    enrollments: dict[str, Enrollment] = field(default_factory=dict)
    """Those in `journey`, in the order in which they began."""
    customer: Customer | None = None
    footprints: set[Footprint] = field(default_factory=set)

    def say(self, at: datetime, text: str, about: End | None = None) -> None:
        self.lines.append(Line(at, text, about))

    def told(self, record: CustomerUpdated | DateReached, at: datetime) -> None:
        before, self.customer = self.customer, record.customer
        if isinstance(record, DateReached):
            if record.journey == self.journey:
                self.say(at, f"the date of {record.journey} has come: {record.occasion}")
            return
        if record.derived and record.event is not None:
            self.say(at, f"derived: {described(record.event.name, _properties(record.event))}")
        if before is not None and record.stage_before is not None:
            self.say(at, f"is in stage {record.customer.stage} now")
        for segment in record.entered:
            self.say(at, f"enters segment {segment}")
        for segment in record.left:
            self.say(at, f"leaves segment {segment}")

    def moved(self, customer: str, enrollment: Enrollment, at: datetime) -> None:
        if enrollment.journey == self.journey:
            self.enrollments[enrollment.id] = enrollment

    def decided(self, customer: str, decided: Decided, at: datetime) -> None:
        for one in decided.decisions:
            if one.what != "declined":
                self.footprints.add(Footprint(decided.journey, one.step, one.word if one.what == "passed" else ""))
            if decided.journey == self.journey:
                text = self._in_words(decided, one)
                if text:
                    self.say(decided.at, text)

    def reported(self, event: Event, at: datetime) -> None:
        if event.source == JOURNEYS_SOURCE and event.type == "track":
            if event.name == TASK_OPENED:
                self.tasks.append(str(_properties(event)["title"]))
                self.say(at, f'gives somebody the task "{self.tasks[-1]}"')
            else:
                self.emitted.append(event.name)
                self.say(at, f"reports {described(event.name, _properties(event))}")
        elif event.source != MAILER_SOURCE:
            self.say(at, described("sets traits", msgspec.json.decode(event.traits, type=dict[str, Any])))

    def held(self, hold: Hold, at: datetime) -> None:
        if hold.request.journey == self.journey:
            self.say(at, f"holds {hold.request.message}: {hold.reason}, until {self.local(hold.until)}")

    def ended(self, end: End, at: datetime) -> None:
        request, mine = end.request, end.request.journey == self.journey
        by = "" if mine else f" (by {request.journey})"
        why = ": ".join(part for part in (end.reason, end.detail) if part)
        if request.channel == WEBHOOK:
            self._called(end, by, why, at)
            return
        if end.status == "sent":
            self.mails.append(end)
            channel = f" as a {CHANNELS[request.channel]}" if request.channel != EMAIL else ""
            self.say(end.decided_for, f"sends {request.message}{channel}{by}", end if mine else None)
            if mine:
                self.sent.append(end)
            return
        self.say(at, f"{request.message}{by} {_OUTCOMES[end.status]}{f': {why}' if why else ''}", end if mine else None)
        if mine and end.status == "skipped":
            self.skipped.append(end)

    def _called(self, end: End, by: str, why: str, at: datetime) -> None:
        request = end.request
        what = f"tells the shop of a code of {request.announces}" if request.announces else f"calls {request.step}"
        if end.status == "sent":
            self.say(end.decided_for, f"{what}{by}")
            if request.journey == self.journey and not request.announces:
                self.called.append(request.step)
        else:
            self.say(at, f"{what}{by}, which {_OUTCOMES[end.status]}{f': {why}' if why else ''}")

    def set_aside(self, customer: str, code: str, message: str, at: datetime) -> None:
        self.say(at, f"cannot be processed: {message}")

    def local(self, moment: datetime) -> str:
        """A moment on the customer's clock."""
        zone = zone_of(self.customer.timezone if self.customer else None, self.playbook.brand.timezone)
        there = moment.astimezone(zone)
        seconds = ":%S" if there.second else ""
        return f"{there:%a} {there.day:>2} {there:%b %Y %H:%M{seconds}}"

    def _in_words(self, decided: Decided, one: Decision) -> str:
        match one.what:
            case "entered":
                return f"enters{f', for {decided.key}' if decided.key else ''}"
            case "restarted":
                return "begins anew"
            case "declined":
                by = f" ({one.step})" if one.step else ""
                return f"does not enter: {one.word}{by}"
            case "passed":
                said = done(self.places, decided.journey, one.step, one.word)
                if said or not one.word:
                    return said
                asked = condition(self.places, decided.journey, one.step, one.word)
                return f"if {asked}: {'else' if one.word == 'else' else 'then'}" if asked else f"{one.step}: {one.word}"
            case "waits":
                return f"waits at {one.step}{f' until {self.local(one.until)}' if one.until else ''}"
            case "listens":
                return f"listens at {one.step}{f' until {self.local(one.until)}' if one.until else ''}"
            case "left":
                return f"leaves: {one.word}"
            case "goal":
                return "reaches the goal"
            case "attributed":
                return f"has the order, worth {one.word}"
            case "parked" | "held_out":
                return f"{one.what.replace('_', ' ')} at {one.step}"
        return ""


_OUTCOMES = {"skipped": "is not sent", "failed": "fails", "unknown": "may have arrived"}


def described(name: str, properties: Mapping[str, Any]) -> str:
    """An event, with as much of its properties as fits, as they are written in a test."""
    shown = ", ".join(f"{key}: {_written(value)}" for key, value in properties.items())
    if len(shown) > _LONGEST:
        shown = f"{shown[: _LONGEST - 1]}…"
    return f"{name} {{{shown}}}" if shown else name


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_written(one)}' for key, one in value.items())}}}"
    return msgspec.json.encode(value).decode() if isinstance(value, bool | None) else str(value)


def _properties(event: Event) -> dict[str, Any]:
    return msgspec.json.decode(event.properties, type=dict[str, Any])
