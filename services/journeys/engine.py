"""How an enrollment moves. Pure: a journey, an enrollment, a signal and the time in; the enrollment and wishes out.

Nothing here reads a clock or draws lots, so the same signals give the same enrollment and the same wishes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import replace

from services.journeys import effects
from services.journeys.commands import (
    EMPTY,
    BeginAgain,
    CancelMessage,
    Command,
    Passed,
    PausePromotion,
)
from services.journeys.coupons import Stock
from services.journeys.enrollment import (
    Enrollment,
    Entry,
    Happening,
    Pending,
    drawn,
    effect_id,
    enrollment_id,
)
from services.journeys.scopes import scope
from shared.contracts import events
from shared.contracts.customers import Customer
from shared.language.playbook import (
    Choose,
    Coupon,
    Email,
    Emit,
    EventMatch,
    Exit,
    If,
    Journey,
    Pause,
    Playbook,
    Set,
    Split,
    Step,
    Task,
    Wait,
    WaitFor,
    Webhook,
)
from shared.walltime import instant, next_instant, read_day, zone_of

# Reasons for which an enrollment ends, beside those that a marketer gives an `exit` step.
COMPLETED = "completed"
GOAL = "goal"
EXIT_ON = "exit_on"
UNSUBSCRIBED = "unsubscribed"
RESTARTED = "restarted"
REMOVED = "removed"
HELD_OUT = "held_out"

_OUTCOMES = frozenset(
    {
        *(events.EMAIL_SENT, events.EMAIL_SKIPPED, events.EMAIL_FAILED, events.EMAIL_UNKNOWN),
        *(events.WEBHOOK_SENT, events.WEBHOOK_SKIPPED, events.WEBHOOK_FAILED),
        *(events.SMS_SENT, events.SMS_SKIPPED, events.SMS_FAILED),
        *(events.PUSH_SENT, events.PUSH_SKIPPED, events.PUSH_FAILED),
    }
)
_GONE_OUT = frozenset({events.EMAIL_SENT, events.EMAIL_UNKNOWN, events.SMS_SENT, events.PUSH_SENT})
_NOTHING = timedelta(0)
_encode = msgspec.json.Encoder().encode
_UNWATCHED = frozenset({GOAL, RESTARTED, REMOVED})


class Course(msgspec.Struct, frozen=True):
    """One version of a journey as it runs now.

    Steps, goal and exits are the version's own; `status` and `playbook` (topics, brand) are those in force. Codes of
    coupons come from the batch's `stock`, and are gone from it.
    """

    journey: Journey
    status: Literal["live", "draft", "paused"]
    playbook: Playbook
    stock: Stock


class Updated(NamedTuple):
    """The customer did something, or is not what they were. `lost` are the topics that they declined just now."""

    customer: Customer
    happening: Happening | None
    lost: frozenset[str]


class Woken(NamedTuple):
    """Time has passed, or a journey that was paused goes on; the customer is as last seen."""

    customer: Customer


Signal = Updated | Woken
Moved = tuple[Enrollment, list[Command]]


def begin(course: Course, customer: Customer, entry: Entry, before: Enrollment | None = None) -> Moved:
    """A new enrollment, taken to the first step that waits. `before` is the one in whose place it comes: what that has
    sent, the journey has sent."""
    enrollment = Enrollment(
        id=enrollment_id(customer.key, course.journey.name, entry),
        journey=course.journey.name,
        version=course.journey.version,
        playbook=course.playbook.hash,
        entry=entry,
        status="waiting",
    )
    # By customer and journey, never by key: who is held out is so for every cart.
    holdout = course.journey.holdout
    if holdout and drawn(customer.key, course.journey.name, "holdout") < holdout:
        return _hold_out(course, enrollment, entry), []
    if before is not None:
        enrollment = replace(enrollment, sent_at=before.sent_at, clicked_at=before.clicked_at)
    return _run(course, enrollment, customer, course.journey.first, entry.at, [])


def advance(course: Course, enrollment: Enrollment, signal: Signal, now: datetime) -> Moved:
    """What a signal makes of an enrollment. The same enrollment comes back where it means nothing to it."""
    if isinstance(signal, Woken):
        return _woken(course, enrollment, signal.customer, now)
    return _updated(course, enrollment, signal, now)


def restart(course: Course, enrollment: Enrollment, customer: Customer, entry: Entry, again: bool) -> Moved:
    """Begin the steps anew; the caller has seen that no message has gone out.

    Where one is on its way, it is cancelled and its outcome awaited, since it may have gone out meanwhile. `again` says
    whether the entry may then begin a new enrollment.
    """
    if enrollment.status == "held_out":
        return _hold_out(course, enrollment, entry), []
    if enrollment.status == "sending":
        cancel: list[Command] = [] if enrollment.pending else [CancelMessage(enrollment.message, RESTARTED)]
        return replace(enrollment, pending=Pending(entry, again)), cancel
    return _anew(course, enrollment, customer, entry, [])


def go_on(course: Course, enrollment: Enrollment, customer: Customer, step: str | None, now: datetime) -> Moved:
    """From this step on, until one waits for something or the journey ends."""
    return _run(course, enrollment, customer, step, now, [])


def leave(enrollment: Enrollment, reason: str, now: datetime) -> Moved:
    """End at once, whatever it waits for; a message that is held is cancelled and the goal not watched any more."""
    cancelled: list[Command] = [CancelMessage(enrollment.message, reason)] if enrollment.message else []
    if not enrollment.inside:
        return replace(enrollment, status="ended", due=None), cancelled
    ended = replace(
        enrollment, status="ended", due=None, since=None, zone="", message="", pending=None, ended_at=now, reason=reason
    )
    return ended, cancelled


def _hold_out(course: Course, enrollment: Enrollment, entry: Entry) -> Enrollment:
    """Inside for as long as its goal counts, and nothing else."""
    goal = course.journey.goal
    assert goal is not None
    assert goal.within is not None
    return replace(enrollment, status="held_out", entry=entry, due=entry.at + goal.within)


def topics_ahead(journey: Journey, step: str) -> frozenset[str]:
    """The topics of all messages that may still follow after a step."""
    topics: set[str] = set()
    seen: set[str] = set()
    coming = [*_successors(journey.steps[step])]
    while coming:
        name = coming.pop()
        if name is None or name in seen:
            continue
        seen.add(name)
        following = journey.steps[name]
        if isinstance(following, Email):
            topics.add(following.topic)
        coming += _successors(following)
    return frozenset(topics)


def _successors(step: Step) -> tuple[str | None, ...]:
    match step:
        case Wait() | Email() | Set() | Emit() | Task() | Webhook() | Coupon() | Pause():
            return (step.next,)
        case WaitFor():
            return (step.matched, step.timed_out)
        case If():
            return (step.then, step.otherwise)
        case Choose():
            return (*(way for _, way in step.ways), step.otherwise)
        case Split():
            return tuple(arm.first for arm in step.arms.values())
        case Exit():
            return ()


def _woken(course: Course, enrollment: Enrollment, customer: Customer, now: datetime) -> Moved:
    due = enrollment.due
    if enrollment.status == "parked":
        return _run(course, enrollment, customer, enrollment.step, now, [])
    if due is None or due > now:
        return enrollment, []
    if enrollment.status == "held_out":
        return leave(enrollment, HELD_OUT, due)
    step = course.journey.steps.get(enrollment.step)
    match enrollment.status, step:
        case "watching", _:
            return replace(enrollment, status="ended", due=None), []
        case "waiting", Wait():
            return _run(course, enrollment, customer, step.next, due, [])
        case "listening", WaitFor():
            return _run(course, enrollment, customer, step.timed_out, due, [Passed(step.id, "timeout")])
    return enrollment, []


def _updated(course: Course, enrollment: Enrollment, signal: Updated, now: datetime) -> Moved:
    customer, happening, lost = signal
    journey = course.journey
    if happening is not None and happening.event.source == events.MAILER_SOURCE:
        enrollment = _heard(enrollment, happening, now)
    if happening is not None and _is_news(happening, enrollment):
        goal = journey.goal
        armed = goal is not None and (goal.within is None or now < enrollment.entry.at + goal.within)
        if goal is not None and armed and _matches(course, enrollment, customer, happening, goal.match, now):
            if not enrollment.inside:
                return replace(enrollment, status="ended", due=None, goal_at=now), []
            # The reason tells those who were held out from the others for good.
            left, commands = leave(enrollment, HELD_OUT if enrollment.status == "held_out" else GOAL, now)
            return replace(left, goal_at=now), commands
        if enrollment.inside and enrollment.status != "held_out":
            for match in journey.exit_on:
                if _matches(course, enrollment, customer, happening, match, now):
                    return _end(course, enrollment, EXIT_ON, now, [])
    if not enrollment.inside or enrollment.status == "held_out":
        return enrollment, []
    if journey.topic in lost and not _still_to_send(journey, enrollment) - lost:
        return _end(course, enrollment, UNSUBSCRIBED, now, [])
    if happening is not None:
        if happening.event.source == events.MAILER_SOURCE and happening.event.name in _OUTCOMES:
            return _outcome(course, enrollment, customer, happening, now)
        if enrollment.status == "listening" and _is_news(happening, enrollment):
            step = journey.steps[enrollment.step]
            assert isinstance(step, WaitFor)
            if done_in_mail(step, enrollment):
                return _run(course, enrollment, customer, step.matched, now, [Passed(step.id, "matched")])
            if step.match is not None and _matches(course, enrollment, customer, happening, step.match, now):
                answer = b'{"event":' + bytes(happening.event.properties) + b"}"
                enrollment = replace(enrollment, steps={**enrollment.steps, step.id: answer})
                return _run(course, enrollment, customer, step.matched, now, [Passed(step.id, "matched")])
    return _moved_clock(course, enrollment, customer, now)


def _is_news(happening: Happening, enrollment: Enrollment) -> bool:
    """Imported history from before the entry is no answer to the journey."""
    return not happening.event.historical or happening.event.occurred_at >= enrollment.entry.at


def _matches(
    course: Course, enrollment: Enrollment, customer: Customer, happening: Happening, match: EventMatch, now: datetime
) -> bool:
    if not happening.named(match.event):
        return False
    if match.where is None:
        return True
    seen = scope(course.playbook, customer, now, event=happening.properties, enrollment=enrollment)
    return match.where.truth(seen)


def _still_to_send(journey: Journey, enrollment: Enrollment) -> frozenset[str]:
    """The topics of the mail in hand and of all that may follow."""
    step = journey.steps[enrollment.step]
    in_hand = isinstance(step, Email) and enrollment.status in ("sending", "parked")
    return topics_ahead(journey, step.id) | ({step.topic} if in_hand and isinstance(step, Email) else set())


def _outcome(course: Course, enrollment: Enrollment, customer: Customer, happening: Happening, now: datetime) -> Moved:
    """A message has ended. The step ends at the time that the outcome was decided for."""
    if enrollment.status != "sending" or happening.properties.get("message_id") != enrollment.message:
        return enrollment, []
    step = course.journey.steps[enrollment.step]
    assert isinstance(step, Email | Webhook)
    decided = _moment(happening.properties.get("decided_for")) or now
    at = max(enrollment.since or decided, min(decided, now))
    pending = enrollment.pending
    enrollment = replace(enrollment, message="", pending=None)
    if pending is not None and not enrollment.gone_out:
        return _anew(course, enrollment, customer, pending.entry, [])
    if pending is not None and pending.again:
        left, commands = leave(enrollment, RESTARTED, now)
        return left, [*commands, BeginAgain(pending.entry)]
    return _run(course, enrollment, customer, step.next, at, [])


def _moment(text: object) -> datetime | None:
    try:
        return msgspec.convert(text, datetime) if isinstance(text, str) else None
    except msgspec.ValidationError:
        return None


def _heard(enrollment: Enrollment, happening: Happening, now: datetime) -> Enrollment:
    """What is remembered when one of its messages went out, or was used by a person: a later step may wait for that,
    and an order is attributed by it, also after the journey was left."""
    name = happening.event.name
    if name not in _GONE_OUT and name not in events.MAIL_USES:
        return enrollment
    properties = happening.properties
    if properties.get("enrollment") != enrollment.id or properties.get("machine") is True:
        return enrollment
    if name in _GONE_OUT:
        at = min(_moment(properties.get("decided_for")) or now, now)
        return replace(enrollment, gone_out=True, sent_at=_later(enrollment.sent_at, at))
    at = happening.event.occurred_at
    changes: dict[str, Any] = {}
    if not enrollment.gone_out:
        # Who uses a mail has it, even where its outcome is not known yet.
        changes = {"gone_out": True, "sent_at": at}
    if name == events.EMAIL_LINK_CLICKED:
        changes["clicked_at"] = _later(enrollment.clicked_at, at)
    known = "clicked" if name == events.EMAIL_LINK_CLICKED else "opened"
    before: tuple[str, ...] = getattr(enrollment, known)
    step = _sender(enrollment, properties.get("message_id"))
    if step is not None and step not in before:
        changes[known] = (*before, step)
    return replace(enrollment, **changes) if changes else enrollment


def _later(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)


def _sender(enrollment: Enrollment, message: object) -> str | None:
    """The step that sent a message in its latest run. None where it was another run, or the journey was left."""
    sent = enrollment.visits.items()
    return next((step for step, visit in sent if effect_id(enrollment.id, step, visit) == message), None)


def done_in_mail(step: WaitFor, enrollment: Enrollment) -> bool:
    """Whether what it waits for has been done in a mail. Who clicks has opened it, whether or not it shows images."""
    if step.opened is not None:
        return step.opened in enrollment.opened or step.opened in enrollment.clicked
    return step.clicked is not None and step.clicked in enrollment.clicked


def _moved_clock(course: Course, enrollment: Enrollment, customer: Customer, now: datetime) -> Moved:
    """A wait until a time of day or a date is worked out anew when the customer's timezone or the date has changed."""
    if enrollment.status != "waiting" or not enrollment.zone:
        return enrollment, []
    step = course.journey.steps[enrollment.step]
    assert isinstance(step, Wait)
    zone = zone_of(customer.timezone, course.playbook.brand.timezone)
    if zone.key == enrollment.zone and step.date is None:
        return enrollment, []
    assert enrollment.since is not None
    due = _over(step, customer, max(enrollment.since, now), zone)
    if due <= now:
        return _run(course, enrollment, customer, step.next, now, [])
    if (zone.key, due) == (enrollment.zone, enrollment.due):
        return enrollment, []
    return replace(enrollment, zone=zone.key, due=due), []


def _over(step: Wait, customer: Customer, after: datetime, zone: ZoneInfo) -> datetime:
    """When a wait by the clock or the calendar ends whose duration is over at `after`."""
    if step.date is None:
        return next_instant(after, step.until, step.weekdays, zone)
    value: Any = customer.traits
    for name in step.date:
        value = value.get(name) if isinstance(value, Mapping) else None
    found = read_day(value)
    # A birthday without a year is no date to wait for, and neither is one that is not there.
    day = found.date if found is not None else None
    return after if day is None else max(after, instant(day, step.until or time.min, zone))


def _anew(course: Course, enrollment: Enrollment, customer: Customer, entry: Entry, commands: list[Command]) -> Moved:
    # One code for each enrollment, also where its steps begin again.
    steps = course.journey.steps
    codes = {name: left for name, left in enrollment.steps.items() if isinstance(steps.get(name), Coupon)}
    enrollment = replace(enrollment, entry=entry, clicked=(), opened=(), steps=codes, vars={})
    return _run(course, enrollment, customer, course.journey.first, entry.at, commands)


def _run(
    course: Course,
    enrollment: Enrollment,
    customer: Customer,
    step_id: str | None,
    now: datetime,
    commands: list[Command],
) -> Moved:
    """Run steps from `step_id` on until one waits for something, or the journey ends."""
    journey = course.journey
    while step_id is not None:
        step = journey.steps[step_id]
        if isinstance(step, Email) and course.status != "paused":
            send = effects.send(course, enrollment, customer, step, now)
            visits = {**enrollment.visits, step_id: enrollment.visits.get(step_id, 0) + 1}
            # Copied once: this is where most waits lead.
            here = {"step": step_id, "since": now, "due": None, "zone": ""}
            return replace(enrollment, **here, status="sending", message=send.id, visits=visits), [*commands, send]
        enrollment = replace(enrollment, step=step_id, since=now, due=None, zone="")
        if course.status == "paused":
            return replace(enrollment, status="parked"), commands
        way = ""
        match step:
            case Wait():
                waiting = begin_wait(course, enrollment, customer, step, now)
                if waiting.due is not None and waiting.due > now:
                    return waiting, commands
                step_id = step.next
            case WaitFor():
                if not done_in_mail(step, enrollment):
                    return replace(enrollment, status="listening", due=now + step.timeout), commands
                step_id, way = step.matched, "matched"
            case If():
                seen = scope(course.playbook, customer, now, enrollment=enrollment)
                step_id, way = (step.then, "then") if step.condition.truth(seen) else (step.otherwise, "else")
            case Choose():
                seen = scope(course.playbook, customer, now, enrollment=enrollment)
                step_id, way = step.otherwise, "else"
                for number, (condition, leads_to) in enumerate(step.ways, 1):
                    if condition.truth(seen):
                        step_id, way = leads_to, str(number)
                        break
            case Split():
                way = _arm(step, journey, enrollment, customer)
                left = _encode({"arm": way})
                enrollment = replace(enrollment, steps={**enrollment.steps, step_id: left})
                step_id = step.arms[way].first
            case Set():
                enrollment, reports = effects.keep(course, enrollment, customer, step, now)
                commands = [*commands, *reports]
                step_id = step.next
            case Emit():
                seen = scope(course.playbook, customer, now, enrollment=enrollment)
                properties = {name: effects.as_json(value.evaluate(seen)) for name, value in step.properties.items()}
                enrollment, reports = effects.report(course, enrollment, step.id, step.event, properties, {})
                commands = [*commands, *reports]
                step_id = step.next
            case Webhook():
                call = effects.call(course, enrollment, customer, step, now)
                visits = {**enrollment.visits, step_id: enrollment.visits.get(step_id, 0) + 1}
                return replace(enrollment, status="sending", message=call.id, visits=visits), [*commands, call]
            case Task():
                enrollment, opened = effects.open_task(course, enrollment, customer, step, now)
                commands = [*commands, *opened]
                step_id = step.next
            case Coupon():
                left_behind, announced = effects.issue(course, enrollment, customer, step, now)
                commands = [*commands, *announced]
                enrollment = replace(enrollment, steps={**enrollment.steps, step_id: left_behind})
                step_id, way = step.next, "" if effects.has_code(left_behind) else EMPTY
            case Pause():
                if not effects.only_counted(course, enrollment):
                    commands = [*commands, PausePromotion(now, now + step.duration)]
                step_id = step.next
            case Exit():
                return _end(course, enrollment, step.reason, now, commands)
        commands = [*commands, Passed(step.id, way)]
    return _end(course, enrollment, COMPLETED, now, commands)


def begin_wait(course: Course, enrollment: Enrollment, customer: Customer, step: Wait, began: datetime) -> Enrollment:
    """The enrollment in a wait that began then; it may be over already."""
    after = began + (step.duration or _NOTHING)
    due, worked_out_in = after, ""
    if step.between is not None:
        due = began + _drawn_wait(step.between, enrollment.id, step.id)
    elif step.until is not None or step.weekdays or step.date is not None:
        zone = zone_of(customer.timezone, course.playbook.brand.timezone)
        due, worked_out_in = _over(step, customer, after, zone), zone.key
    return replace(enrollment, status="waiting", since=after, due=due, zone=worked_out_in)


def _drawn_wait(between: tuple[timedelta, timedelta], *cause: str) -> timedelta:
    """A time from the shorter to the longer, in whole seconds."""
    shortest, longest = between
    seconds = (longest - shortest) // timedelta(seconds=1)
    return shortest + timedelta(seconds=int(drawn(*cause) * (seconds + 1)))


def _arm(step: Split, journey: Journey, enrollment: Enrollment, customer: Customer) -> str:
    """The way that lots have given to this enrollment, or to this customer for ever."""
    lot = drawn(customer.key, journey.name, step.id) if step.by == "customer" else drawn(enrollment.id, step.id)
    passed = Decimal(0)
    for name, arm in step.arms.items():
        passed += arm.share
        if lot < passed:
            return name
    return name


def _end(course: Course, enrollment: Enrollment, reason: str, now: datetime, commands: list[Command]) -> Moved:
    """Leave the journey; the goal is watched on where it counts from entry for longer than that."""
    left, cancelled = leave(enrollment, reason, now)
    goal = course.journey.goal
    if goal is not None and goal.within is not None and reason not in _UNWATCHED:
        until = enrollment.entry.at + goal.within
        if now < until:
            left = replace(left, status="watching", due=until, steps={}, vars={}, clicked=(), opened=(), visits={})
    return left, [*commands, *cancelled]
