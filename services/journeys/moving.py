"""Taking those who are inside an older version of a journey along into another one, by the id of their step. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from services.journeys.commands import Passed
from services.journeys.engine import Course, Moved, begin_wait, done_in_mail, go_on
from services.journeys.enrollment import Enrollment
from shared.contracts.customers import Customer
from shared.language.changes import own_part
from shared.language.playbook import Email, Journey, Wait, WaitFor, Webhook

_NOTHING = timedelta(0)


def has_place(journey: Journey, status: str, step: str) -> bool:
    """Whether one who stands so in an older version can go on in this one; who cannot finishes what they began."""
    if status == "held_out":
        return journey.goal is not None and journey.goal.within is not None
    if status == "sending":
        # What is asked for already is awaited, and its outcome must be one that the step can have.
        return isinstance(journey.steps.get(step), Email | Webhook)
    return status in ("waiting", "listening", "parked") and step in journey.steps


def take_along(own: Journey, course: Course, enrollment: Enrollment, customer: Customer, now: datetime) -> Moved:
    """Move one who is inside `own` to the version of `course`, where there is a place for them.

    Who waits goes on waiting, counted from when the wait began; what would be over by now is over now. A step that has
    become something else begins anew.
    """
    journey = course.journey
    if not has_place(journey, enrollment.status, enrollment.step):
        return enrollment, []
    if enrollment.status == "sending" and type(own.steps[enrollment.step]) is not type(journey.steps[enrollment.step]):
        return enrollment, []
    moved = msgspec.structs.replace(enrollment, version=journey.version, playbook=course.playbook.hash)
    if enrollment.status == "held_out":
        assert journey.goal is not None
        assert journey.goal.within is not None
        until = max(enrollment.entry.at + journey.goal.within, now)
        return msgspec.structs.replace(moved, due=until), []
    if enrollment.status in ("sending", "parked"):
        return moved, []
    before, step = own.steps[enrollment.step], journey.steps[enrollment.step]
    if own_part(before) == own_part(step):
        return moved, []
    assert enrollment.since is not None
    if isinstance(before, Wait) and isinstance(step, Wait):
        began = enrollment.since - (before.duration or _NOTHING)
        waiting = begin_wait(course, moved, customer, step, began)
        assert waiting.due is not None
        return (waiting, []) if waiting.due > now else go_on(course, moved, customer, step.next, now)
    if isinstance(before, WaitFor) and isinstance(step, WaitFor):
        due = enrollment.since + step.timeout
        if done_in_mail(step, enrollment):
            found, commands = go_on(course, moved, customer, step.matched, now)
            return found, [Passed(step.id, "matched"), *commands]
        if due > now:
            return msgspec.structs.replace(moved, due=due), []
        found, commands = go_on(course, moved, customer, step.timed_out, now)
        return found, [Passed(step.id, "timeout"), *commands]
    return go_on(course, moved, customer, enrollment.step, now)
