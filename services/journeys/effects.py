"""What steps put out: messages, calls, events, tasks and codes, and what an enrollment remembers of them. Pure, but for
the stock of codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from services.journeys.commands import Command, OpenTask, ReportEvent, SendMessage
from services.journeys.coupons import DRAFT, Issued
from services.journeys.enrollment import Enrollment, effect_id
from services.journeys.scopes import in_templates, scope
from shared.contracts.customers import Customer
from shared.contracts.messages import POOLS, WEBHOOK
from shared.language.playbook import Coupon, CouponPool, Email, Set, Task, Webhook
from shared.language.values import plain

if TYPE_CHECKING:
    from services.journeys.engine import Course, Moved

COUPON_ISSUED = "coupon.issued"
"""The type of the call that tells the shop of a code."""

_ANNOUNCED_FOR = timedelta(days=7)
"""So long at most the shop is called with a code: who was away for longer takes what was issued as CSV."""
_MOST_OF_A_TITLE = 300
_MOST_OF_A_NOTE = 4_000
_encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode


def keep(course: Course, enrollment: Enrollment, customer: Customer, step: Set, now: datetime) -> Moved:
    """Variables are remembered, each known to those below it, and traits reported."""
    for name, value in step.vars.items():
        seen = scope(course.playbook, customer, now, enrollment=enrollment)
        enrollment = replace(enrollment, vars={**enrollment.vars, name: _encode(as_json(value.evaluate(seen)))})
    if not step.traits:
        return enrollment, []
    seen = scope(course.playbook, customer, now, enrollment=enrollment)
    traits = {name: as_json(value.evaluate(seen)) for name, value in step.traits.items()}
    return report(course, enrollment, step.id, "", {}, traits)


def as_json(value: Any) -> Any:
    """A value as JSON. An integer that no shop may send is null: kept, it could be squared in each step."""
    given = plain(value)
    if isinstance(given, list):
        return [as_json(item) for item in given]
    return None if isinstance(given, int) and not -(2**63) <= given < 2**63 else given


def report(
    course: Course,
    enrollment: Enrollment,
    step: str,
    name: str,
    properties: Mapping[str, Any],
    traits: Mapping[str, Any],
) -> Moved:
    """An event of the customer, or new traits; nothing is reported of those who are only counted."""
    visit = enrollment.visits.get(step, 0) + 1
    enrollment = replace(enrollment, visits={**enrollment.visits, step: visit})
    if only_counted(course, enrollment):
        return enrollment, []
    id = effect_id(enrollment.id, step, visit)
    return enrollment, [ReportEvent(id, name, properties, traits, enrollment.entry.hops + 1)]


def call(course: Course, enrollment: Enrollment, customer: Customer, step: Webhook, now: datetime) -> SendMessage:
    """The call that a webhook step asks for."""
    seen = scope(course.playbook, customer, now, enrollment=enrollment)
    given = {name: as_json(value.evaluate(seen)) for name, value in step.with_.items()}
    return SendMessage(
        id=effect_id(enrollment.id, step.id, enrollment.visits.get(step.id, 0) + 1),
        step=step.id,
        message=step.id,
        topic="",
        priority=50,
        due=now,
        expires=now + step.expires,
        draft=only_counted(course, enrollment),
        hops=enrollment.entry.hops,
        data={"url": step.url, "type": step.type, "key": enrollment.entry.key, "with": given},
        channel=WEBHOOK,
    )


def open_task(course: Course, enrollment: Enrollment, customer: Customer, step: Task, now: datetime) -> Moved:
    """Work for somebody; none for those who are only counted."""
    visit = enrollment.visits.get(step.id, 0) + 1
    enrollment = replace(enrollment, visits={**enrollment.visits, step.id: visit})
    if only_counted(course, enrollment):
        return enrollment, []
    seen = scope(course.playbook, customer, now, enrollment=enrollment)
    title, note = (
        "" if value is None else _written(value.evaluate(seen), most)
        for value, most in ((step.title, _MOST_OF_A_TITLE), (step.note, _MOST_OF_A_NOTE))
    )
    due = None if step.due is None else now + step.due
    id = effect_id(enrollment.id, step.id, visit)
    return enrollment, [OpenTask(id, step.id, title or step.id, note, now, due, enrollment.entry.hops + 1)]


def _written(value: Any, most: int) -> str:
    """A value as a person reads it; NUL cannot be stored."""
    given = plain(value)
    text = "" if given is None else given if isinstance(given, str) else _encode(given).decode()
    return text.replace("\0", "\ufffd")[:most]


def issue(
    course: Course, enrollment: Enrollment, customer: Customer, step: Coupon, now: datetime
) -> tuple[bytes, list[Command]]:
    """What a coupon step leaves behind: one code for each enrollment, however often it comes by; and how the shop is
    told of it."""
    kept = enrollment.steps.get(step.id)
    if kept is not None and has_code(kept):
        return kept, []
    code, expires_at = None, None
    announced: list[Command] = []
    pool = course.playbook.coupons.get(step.pool)
    if pool is not None:
        draft = enrollment.entry.draft
        code = pool.prefix + DRAFT if draft else course.stock.take(pool, f"{enrollment.id} {step.id}")
        if code is not None and pool.expires is not None:
            expires_at = now + pool.expires
        if code is not None and not draft:
            cause = (customer.key, enrollment.journey, enrollment.id, step.id)
            course.stock.note(Issued(pool.name, code, *cause, now, expires_at))
            if pool.announced_to is not None:
                announced.append(_announce(pool, pool.announced_to, code, expires_at, enrollment, step, now))
    return _encode({"code": code, "expires": expires_at}), announced


def has_code(left_behind: bytes) -> bool:
    """Whether a coupon step has left a code behind, and not an empty pool's null."""
    return msgspec.json.decode(left_behind)["code"] is not None


def _announce(
    pool: CouponPool,
    url: str,
    code: str,
    expires_at: datetime | None,
    enrollment: Enrollment,
    step: Coupon,
    now: datetime,
) -> SendMessage:
    """The call that tells the shop of a code. Nothing in the journey waits for it."""
    given = {"pool": pool.name, "code": code, "expires": expires_at}
    return SendMessage(
        # No step's run has this number, so an edit that gives the step another kind makes no other message of this id.
        id=effect_id(enrollment.id, step.id, 0),
        step=step.id,
        message=POOLS + pool.name,
        topic="",
        priority=50,
        due=now,
        expires=now + min(pool.expires or _ANNOUNCED_FOR, _ANNOUNCED_FOR),
        draft=False,
        hops=enrollment.entry.hops,
        data={"url": url, "type": COUPON_ISSUED, "key": enrollment.entry.key, "with": given},
        channel=WEBHOOK,
    )


def only_counted(course: Course, enrollment: Enrollment) -> bool:
    """Whether nothing of it is to be seen outside: of a draft, and of those who entered one."""
    return course.status == "draft" or enrollment.entry.draft


def send(course: Course, enrollment: Enrollment, customer: Customer, step: Email, now: datetime) -> SendMessage:
    """The message that a step asks for, by whichever channel."""
    entry = enrollment.entry
    given: dict[str, Any] = {}
    if step.with_:
        seen = scope(course.playbook, customer, now, enrollment=enrollment)
        given = {name: plain(expression.evaluate(seen)) for name, expression in step.with_.items()}
        trigger = seen.trigger  # decoded once
    else:
        trigger = _decode(entry.trigger)
    data: Mapping[str, Any] = {
        "customer": in_templates(customer),
        "traits": customer.traits,
        "trigger": trigger,
        "key": entry.key,
        "with": given,
    }
    return SendMessage(
        id=effect_id(enrollment.id, step.id, enrollment.visits.get(step.id, 0) + 1),
        step=step.id,
        message=step.message,
        topic=step.topic,
        priority=step.priority,
        due=now,
        expires=now + step.expires,
        draft=only_counted(course, enrollment),
        # The entry's own, not the last outcome's: a journey of nine mails is no loop.
        hops=entry.hops,
        data=data,
        channel=step.channel,
    )
