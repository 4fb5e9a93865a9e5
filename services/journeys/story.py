"""Everything that was decided about a customer, in order, each with its rule, from what each service tells. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from services.journeys.decisions import Decided
from services.journeys.enrollment import Enrollment, Left
from shared.contracts.story import Mailed, Remembered
from shared.language.folder import NAMED_BY
from shared.language.places import Place, Places
from shared.language.playbook import Playbook
from shared.walltime import zone_of


class Rule(BaseModel, frozen=True):
    """Where a rule stands, in the version of the playbook that was active; `playbook` begins its hash."""

    file: str
    line: int
    playbook: str


class StoryEntry(BaseModel, frozen=True):
    """One thing that was decided. `text` says it to a person, in the customer's own time; `remedy` what to do where
    that is not what was wanted. `what` is a stable word for programs."""

    at: datetime
    by: Literal["segmenter", "journeys", "mailer"]
    what: str
    text: str
    journey: str = ""
    enrollment: str = ""
    key: str = ""
    step: str = ""
    message: str = ""
    message_id: str = ""
    rule: Rule | None = None
    remedy: str = ""


class Answer(BaseModel, frozen=True):
    """What there is to say to whoever asked about one message or journey."""

    about: str
    text: str
    remedy: str = ""
    rule: Rule | None = None


class Story(BaseModel, frozen=True):
    """What was decided about a customer since `since`, in order; and the answers, where a message was asked about.
    `playbook` begins the hash of the one in force; it is empty where none is."""

    customer: str
    timezone: str
    playbook: str
    since: datetime
    entries: tuple[StoryEntry, ...]
    answers: tuple[Answer, ...]

    def as_json(self, indent: int | None = None) -> str:
        """What the HTTP API answers, and `rapport why --json`: what is empty is left out."""
        return self.model_dump_json(indent=indent, exclude_defaults=True)


class Own(NamedTuple):
    """What journeys itself knows: its decisions, what the customer is in, and the last entries that still matter."""

    decided: Sequence[Decided]
    enrollments: Sequence[Enrollment]
    left: Sequence[Left]


class Books:
    """The playbooks whose rules are told of, by what begins their hashes, and the one in force."""

    def __init__(self, in_force: Playbook | None, files: Mapping[str, Mapping[str, bytes]]) -> None:
        self.in_force = in_force
        self.current = in_force.hash[:NAMED_BY] if in_force is not None else ""
        self._places = {name: Places(content) for name, content in files.items()}
        if in_force is not None:
            self._places.setdefault(self.current, Places(in_force.files))

    def places(self, playbook: str) -> Places:
        """Those of the playbook that is named so; where it is not kept, nothing is found in them."""
        return self._places.get(playbook) or _NOWHERE

    def rule(self, playbook: str, place: Place | None) -> Rule | None:
        return None if place is None else Rule(file=place.file, line=place.line, playbook=playbook)


_NOWHERE = Places({})


class Teller(NamedTuple):
    """What every sentence needs: the rules, the customer's clock, and what the other services tell."""

    books: Books
    zone: ZoneInfo
    remembered: Remembered
    mailed: Mailed
    now: datetime

    def when(self, moment: datetime | None) -> str:
        """A moment by the customer's clock."""
        return f"{moment.astimezone(self.zone):%Y-%m-%d %H:%M}" if moment is not None else "an unknown time"


def playbooks_named(own: Own, remembered: Remembered, mailed: Mailed) -> set[str]:
    """What begins the hashes of the playbooks that `tell` needs."""
    found = {decided.playbook for decided in own.decided}
    found |= {happened.playbook for happened in remembered.past}
    found |= {line.playbook for message in mailed.messages for line in message.lines}
    return found - {""}


def zone_for(remembered: Remembered, books: Books) -> ZoneInfo:
    timezone = remembered.customer.timezone if remembered.customer is not None else None
    return zone_of(timezone, books.in_force.brand.timezone if books.in_force is not None else "UTC")


def about(entries: Iterable[StoryEntry], subject: str, sending: Iterable[str]) -> list[StoryEntry]:
    """The part of a story that is about one message (by its id), a message (by its name) or a journey. `sending` are
    the journeys that send the message of this name: what they decided belongs to it, also where nothing was sent."""
    told, journeys = list(entries), {subject, *sending}
    enrollments = {one.enrollment for one in told if one.message_id == subject}
    if enrollments:
        return [
            one for one in told if one.message_id == subject or (one.enrollment in enrollments and not one.message_id)
        ]
    return [
        one
        for one in told
        if one.message == subject or one.journey == subject or (one.journey in journeys and not one.message_id)
    ]
