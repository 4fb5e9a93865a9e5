"""Work for a person: what a journey asked for, and the events that tell of it. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec

from shared.contracts.events import JOURNEYS_SOURCE, Event

_encode = msgspec.json.Encoder().encode


class TaskRow(NamedTuple):
    """A task. `key` is what its enrollment is about; `due` is None where there is no hurry."""

    id: str
    customer: str
    journey: str
    enrollment: str
    key: str
    step: str
    title: str
    note: str
    opened_at: datetime
    due: datetime | None


def event(name: str, task: TaskRow, now: datetime, hops: int = 0, **more: str) -> Event:
    """The event that tells of a task. One task and one name is one event, whenever made."""
    about = {
        "task_id": task.id,
        "title": task.title,
        "journey": task.journey,
        "enrollment": task.enrollment,
        "key": task.key,
        "step": task.step,
        "due": task.due,
        **more,
    }
    return Event(
        id=f"{task.id}:{name}",
        source=JOURNEYS_SOURCE,
        key=task.customer,
        name=name,
        occurred_at=now,
        received_at=now,
        properties=msgspec.Raw(_encode(about)),
        hops=hops,
    )
