"""What the engine wishes for, as the streams and tables have it. Pure."""

from __future__ import annotations

from datetime import datetime

import msgspec

from services.journeys.commands import OpenTask, ReportEvent, SendMessage
from services.journeys.enrollment import Enrollment, key_text
from services.journeys.tasks import TaskRow
from shared.contracts.customers import Customer
from shared.contracts.events import JOURNEYS_SOURCE, Event
from shared.contracts.messages import EMAIL, VERSION, MessageRequested

_encode = msgspec.json.Encoder().encode


def requested(send: SendMessage, enrollment: Enrollment, customer: Customer, as_of: datetime) -> MessageRequested:
    return MessageRequested(
        as_of=as_of,
        id=send.id,
        customer=customer.key,
        address=customer.address,
        message=send.message,
        topic=send.topic,
        journey=enrollment.journey,
        enrollment=enrollment.id,
        step=send.step,
        due=send.due,
        expires=send.expires,
        priority=send.priority,
        draft=send.draft,
        locale=customer.locale,
        timezone=customer.timezone,
        data=dict(send.data),
        hops=send.hops,
        channel=send.channel,
        v=1 if send.channel == EMAIL else VERSION,
    )


def reported(report: ReportEvent, customer: str, now: datetime) -> Event:
    return Event(
        id=report.id,
        source=JOURNEYS_SOURCE,
        key=customer,
        type="track" if report.name else "identify",
        name=report.name,
        occurred_at=now,
        received_at=now,
        properties=msgspec.Raw(_encode(report.properties)),
        traits=msgspec.Raw(_encode(report.traits)),
        hops=report.hops,
    )


def opened(task: OpenTask, enrollment: Enrollment, customer: str) -> TaskRow:
    return TaskRow(
        id=task.id,
        customer=customer,
        journey=enrollment.journey,
        enrollment=enrollment.id,
        key=key_text(enrollment.entry.key),
        step=task.step,
        title=task.title,
        note=task.note,
        opened_at=task.opened_at,
        due=task.due,
    )
