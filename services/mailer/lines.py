"""The lines of a message's story: one for each time that it was held or skipped, as text that people read, too. Pure.

`2026-03-02T20:30:00Z cap until 2026-03-03T08:00:00Z (2 in 1d) @1f2e3d4c5b6a`: when, why, until when (where it was
held), what more there is to say, and what names the playbook whose rule it was.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple

from services.mailer.policy import Defer, Skip
from shared.language.folder import NAMED_BY

_TIME = "%Y-%m-%dT%H:%M:%SZ"
_LINE = re.compile(
    r"(?P<at>\S+) (?P<reason>\S+)(?: until (?P<until>\S+))?(?: \((?P<note>[^)]*)\))?(?: @(?P<playbook>\S+))?"
)


class Line(NamedTuple):
    """`until` is None where the message was skipped; `playbook` begins the hash of one, where it had a say."""

    at: datetime
    reason: str
    until: datetime | None
    note: str
    playbook: str


def written(now: datetime, decision: Defer | Skip, playbook: str) -> str:
    until = f" until {_text(decision.until)}" if isinstance(decision, Defer) else ""
    note = f" ({decision.note})" if decision.note else ""
    return f"{_text(now)} {decision.reason}{until}{note}{' @' + playbook[:NAMED_BY] if playbook else ''}"


def read(line: str) -> Line | None:
    """What a line says; None for what is none."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    until = found["until"]
    return Line(
        _moment(found["at"]),
        found["reason"],
        _moment(until) if until else None,
        found["note"] or "",
        found["playbook"] or "",
    )


def _text(moment: datetime) -> str:
    """`_TIME`, of a moment in UTC."""
    return moment.isoformat()[:19] + "Z"


def _moment(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
