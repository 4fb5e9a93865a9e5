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


class Rule(BaseModel, frozen=True, use_attribute_docstrings=True):
    """Where a rule stands, in the version of the playbook that was active."""

    file: str
    """Its path in the playbook's folder."""
    line: int
    """From 1 on."""
    playbook: str
    """How that playbook's hash begins."""


class StoryEntry(BaseModel, frozen=True, use_attribute_docstrings=True):
    """One thing that was decided. What does not apply is left out."""

    at: datetime
    """When it was decided."""
    by: Literal["segmenter", "journeys", "mailer"]
    """The service that decided it."""
    what: str
    """A stable word for programs: `stage`, `entered`, `declined`, `waits`, `asked`, `held`, `sent`, `left`…"""
    text: str
    """The same for people, in the customer's own time."""
    journey: str = ""
    """The journey's name."""
    enrollment: str = ""
    """The enrollment's id."""
    key: str = ""
    """What the enrollment is about: a cart, say."""
    step: str = ""
    """The step's id."""
    message: str = ""
    """The message's name."""
    message_id: str = ""
    """The message's own id, which stands in the mail's `Message-ID`."""
    rule: Rule | None = None
    """What it was decided by."""
    remedy: str = ""
    """What to do where that is not what was wanted."""


class Answer(BaseModel, frozen=True, use_attribute_docstrings=True):
    """What there is to say to whoever asked about one message or journey."""

    about: str
    """The message or journey."""
    text: str
    """What became of it, or why it never began."""
    remedy: str = ""
    """What to do where that is not what was wanted."""
    rule: Rule | None = None
    """What it was decided by."""


class Story(BaseModel, frozen=True, use_attribute_docstrings=True):
    """What was decided about a customer."""

    customer: str
    """Their key."""
    timezone: str
    """Theirs, else the brand's: an IANA name."""
    playbook: str
    """How the hash of the playbook in force begins; empty where none is."""
    since: datetime
    """What was decided before is not kept."""
    entries: tuple[StoryEntry, ...]
    """In the order in which it was decided."""
    answers: tuple[Answer, ...]
    """What there is to say where a message was asked about."""

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
