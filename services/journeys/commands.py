"""What the engine wishes for; the worker sees to it. When to wake an enrollment is said by its `due`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.journeys.enrollment import Entry


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Ask for a message. `id` derives from its cause, `due` is the instant it is decided for."""

    id: str
    step: str
    message: str
    topic: str
    priority: int
    due: datetime
    expires: datetime
    draft: bool
    hops: int
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CancelMessage:
    """The message is not wanted any more; it ends as skipped for this reason where it is still held."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReportEvent:
    """Say that the customer did something, or that they are something: without a name it is their new traits."""

    id: str
    name: str
    properties: Mapping[str, Any]
    traits: Mapping[str, Any]
    hops: int


@dataclass(frozen=True, slots=True)
class BeginAgain:
    """The enrollment has made room for a new one, for this entry."""

    entry: Entry


Command = SendMessage | CancelMessage | ReportEvent | BeginAgain
