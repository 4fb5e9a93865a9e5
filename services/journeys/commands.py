"""What the engine wishes for; the worker sees to it. When to wake an enrollment is said by its `due`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from services.journeys.enrollment import Entry
from shared.contracts.messages import EMAIL


class SendMessage(msgspec.Struct, frozen=True):
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
    channel: str = EMAIL


class CancelMessage(msgspec.Struct, frozen=True):
    """The message is not wanted any more; it ends as skipped for this reason where it is still held."""

    id: str
    reason: str


class ReportEvent(msgspec.Struct, frozen=True):
    """Say that the customer did something, or that they are something: without a name it is their new traits."""

    id: str
    name: str
    properties: Mapping[str, Any]
    traits: Mapping[str, Any]
    hops: int


class PausePromotion(msgspec.Struct, frozen=True):
    """Send the customer nothing promotional from `at` to `until`; where they are the same, lift what stands."""

    at: datetime
    until: datetime


class OpenTask(msgspec.Struct, frozen=True):
    """Give a person something to do."""

    id: str
    step: str
    title: str
    note: str
    opened_at: datetime
    due: datetime | None
    hops: int


class BeginAgain(msgspec.Struct, frozen=True):
    """The enrollment has made room for a new one, for this entry."""

    entry: Entry


EMPTY: Final = "empty"
"""The way through a coupon step whose pool had no code."""


class Passed(msgspec.Struct, frozen=True):
    """A step is behind the customer, and this is the way that they took from it: `then` or `else`, an arm, a number of
    `choose`, `matched` or `timeout`, EMPTY for a pool without a code; empty where there was only one. For the story
    alone."""

    step: str
    way: str


Command = SendMessage | CancelMessage | ReportEvent | OpenTask | PausePromotion | BeginAgain | Passed
