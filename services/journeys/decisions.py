"""What was decided about a customer, in a form that takes little room: written where something is decided, read when
somebody asks why. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from services.journeys.commands import Command, Passed
from services.journeys.enrollment import Enrollment, Status, key_text
from services.journeys.triggers import Declined
from shared.language.folder import NAMED_BY

What = Literal[
    "entered",
    "declined",
    "held_out",
    "restarted",
    "passed",
    "waits",
    "listens",
    "asked",
    "parked",
    "moved",
    "left",
    "goal",
    "attributed",
]
"""What was decided.

- `entered`, `restarted`: `word` is the cause (see `Entry`)
- `declined`: `word` is the reason (see `triggers.Declined`), `step` the journeys that keep the customer out where it is
  `elsewhere`, and `until` when the next entry may be where that is known
- `held_out`: until its goal counts no more
- `passed`: `step` was gone through, `word` is the way (see `commands.Passed`)
- `waits`, `listens`: at `step`, at most `until`
- `asked`: at `step`, for the message with the id `word`
- `parked`: before `step`, since the journey is paused
- `moved`: taken along to another version of the journey, at `step`
- `left`: at `step`, for the reason `word`
- `goal`: reached in time, after the customer had left
- `attributed`: the order that reached the goal, which is worth `word`
"""

STANDS: Mapping[Status, What] = {
    "waiting": "waits",
    "listening": "listens",
    "sending": "asked",
    "parked": "parked",
    "held_out": "held_out",
}
"""What is told of an enrollment that is inside, by its status."""


class Decision(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One thing that was decided. Fields are only ever added, at the end: this is how decisions are stored."""

    what: What
    step: str = ""
    word: str = ""
    until: datetime | None = None


class Decided(msgspec.Struct, array_like=True, frozen=True):
    """What was decided at one moment about one enrollment, or (`enrollment` is empty) about one that did not begin.

    `playbook` begins the hash of the playbook that has the rules: for an enrollment, of one with its version. `key` is
    the enrollment key, empty where there is none. Fields are only ever added, at the end."""

    at: datetime
    journey: str
    playbook: str
    enrollment: str
    key: str
    decisions: list[Decision]


class Row(NamedTuple):
    """What one batch decided about one customer, packed. `at` is when the last of it was."""

    customer: str
    at: datetime
    body: bytes


_pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder(list[Decided]).decode


def row_of(customer: str, decided: Sequence[Decided]) -> Row:
    return Row(customer, decided[-1].at, _pack(decided))


def declined(journey: str, playbook: str, key: str, why: Declined, now: datetime) -> Decided:
    """Somebody does not enter, though a trigger fits."""
    refused = Decision("declined", ", ".join(why.by), why.reason, why.until)
    return Decided(now, journey, playbook[:NAMED_BY], "", key, [refused])


def moved(before: Enrollment | None, after: Enrollment, commands: Iterable[Command], now: datetime) -> Decided | None:
    """What is told of a move; None where nothing is. `before` is None where the enrollment begins."""
    made: list[Decision] = []
    if before is None:
        made.append(Decision("entered", "", after.entry.cause))
    elif before.entry is not after.entry:
        made.append(Decision("restarted", "", after.entry.cause))
    elif before.version != after.version:
        made.append(Decision("moved", before.step))
    for command in commands:
        if isinstance(command, Passed):
            made.append(Decision("passed", command.step, command.way))
    if after.ended_at is None:
        if before is None or _stands(before) != _stands(after):
            made.append(Decision(STANDS[after.status], after.step, after.message, after.due))
    elif before is None or before.ended_at is None:
        made.append(Decision("left", after.step, after.reason))
    elif after.goal_at is not None and before.goal_at is None:
        made.append(Decision("goal"))
    if before is not None and before.attributed is None and after.attributed is not None:
        made.append(Decision("attributed", "", f"{after.attributed:.2f} {after.currency}"))
    if not made:
        return None
    return Decided(now, after.journey, after.playbook[:NAMED_BY], after.id, key_text(after.entry.key), made)


def _stands(enrollment: Enrollment) -> tuple[object, ...]:
    return enrollment.status, enrollment.step, enrollment.due, enrollment.message
