"""What there is to say to whoever asks about one message or journey: what became of it, or why it never began. Pure.

What never began left no trace. So the journey's own functions are asked about the customer as they are today and about
their latest events; where that is not the whole truth, the answer says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from services.journeys import phrases, unsent
from services.journeys.decisions import Decided, Decision
from services.journeys.enrollment import Enrollment, Happening
from services.journeys.story import Answer, Own, Rule, Story, Teller, about
from services.journeys.triggers import Declined, entries
from shared.contracts.customers import Customer, CustomerUpdated
from shared.contracts.events import Event
from shared.contracts.story import Happened
from shared.errors import RapportError
from shared.language.durations import format_duration
from shared.language.expressions import Expression
from shared.language.playbook import DateTrigger, Email, EventTrigger, Journey, SegmentTrigger, StageTrigger
from shared.language.problems import did_you_mean, listed
from shared.walltime import read_day

_MOST_ANSWERS = 5
"""Messages of one name of which each gets an answer: the latest."""


class NoSuchMessage(RapportError):
    """Neither the playbook in force nor this customer's story has a message or a journey of this name."""


def tell(key: str, teller: Teller, own: Own, since: Any, subject: str | None) -> Story:
    """The story of a customer, or the part of it that is about `subject`: a message, by name or id, or a journey.

    Raises NoSuchMessage."""
    told = phrases.entries(teller, own)
    told = [one for one in told if one.at >= since]
    answers: list[Answer] = []
    if subject is not None:
        sending = journeys_about(teller, subject)
        answers = list(_answers(teller, own, subject, sending))
        told = about(told, subject, sending)
    return Story(
        customer=key,
        timezone=teller.zone.key,
        playbook=teller.books.current,
        since=since,
        entries=tuple(told),
        answers=tuple(answers),
    )


def journeys_about(teller: Teller, subject: str) -> list[str]:
    """The journeys in force that send the message of this name, or the one that is called so."""
    book = teller.books.in_force
    return [
        journey.name
        for journey in (book.journeys.values() if book is not None else ())
        if journey.name == subject or subject in messages_of(journey)
    ]


def messages_of(journey: Journey) -> list[str]:
    found = (getattr(step, "message", None) for step in journey.steps.values())
    return list(dict.fromkeys(name for name in found if isinstance(name, str)))


def _answers(teller: Teller, own: Own, subject: str, sending: Sequence[str]) -> Iterator[Answer]:
    asked = [one for one in teller.mailed.messages if subject in (one.message, one.id)]
    for one in asked[-_MOST_ANSWERS:]:
        because, text = phrases.outcome(teller, one)
        text = f"asked for at {teller.when(one.requested_at)}, {text}"
        if one.status == "sent" and one.ended_at is not None:
            text = f"sent at {teller.when(one.ended_at)}" + (f" to {one.address}" if one.address else "")
        rule = because.rule if because is not None else None
        yield Answer(about=one.message, text=text, remedy=because.remedy if because is not None else "", rule=rule)
    book = teller.books.in_force
    for name in sending:
        if not any(one.journey == name for one in asked):
            assert book is not None
            yield from _never_asked(teller, own, book.journeys[name], subject)
    if not asked and not sending and not any(decided.journey == subject for decided in own.decided):
        known = sorted({*(book.messages if book is not None else ()), *(book.journeys if book is not None else ())})
        remedy = did_you_mean(subject, known, f"There are {listed(known, 'and') or 'none'}.")
        raise NoSuchMessage(
            f'there is no message or journey "{subject}" in the playbook in force, and none in this story. {remedy}'
        )


def _never_asked(teller: Teller, own: Own, journey: Journey, subject: str) -> Iterator[Answer]:
    """Why a journey has not asked for its message, or has not begun."""
    what = f"{subject} of {journey.name}" if subject != journey.name else journey.name

    def answer(text: str, remedy: str = "", *path: str) -> Answer:
        places = teller.books.places(teller.books.current)
        rule = teller.books.rule(teller.books.current, places.journey(journey.name, *path)) if path else None
        return Answer(about=what, text=text, remedy=remedy, rule=rule)

    inside = [one for one in own.enrollments if one.journey == journey.name and one.inside]
    mine = [(told, one) for told in own.decided if told.journey == journey.name for one in told.decisions]
    for one in inside:
        yield answer(_stands(teller, one))
    if not inside and any(decision.what == "entered" for _, decision in mine):
        last = next((at for at in reversed(mine) if at[1].what == "left"), None)
        ended = "" if last is None else f", and left at {teller.when(last[0].at)} ({phrases.end(last[1].word)[0]})"
        never = "" if subject == journey.name else ", without having come to this message"
        yield answer(f"was in the journey{ended}{never}")
    elif not inside:
        refused = [(told, one) for told, one in mine if one.what == "declined"]
        if refused:
            yield _refused(teller, what, *refused[-1])
        else:
            for text, remedy, path in _not_begun(teller, journey):
                yield answer(text, remedy, *path)
    sent = {
        (step.topic, step.channel)
        for step in journey.steps.values()
        if isinstance(step, Email) and subject in (journey.name, step.message)
    }
    for topic, channel in sorted(sent):
        because = unsent.in_the_way(teller, topic, channel)
        if because is not None:
            text = f"if it were asked for today, it would not be sent: {because.text}"
            yield Answer(about=what, text=text, remedy=because.remedy, rule=because.rule)
    if journey.status == "draft":
        yield answer("the journey is a draft: it counts, and sends nothing", "Set status: live and apply.", "status")


def _refused(teller: Teller, what: str, decided: Decided, decision: Decision) -> Answer:
    text, remedy, path = phrases.refusal(teller, decided, decision)
    place = teller.books.places(decided.playbook).journey(decided.journey, *path)
    rule: Rule | None = teller.books.rule(decided.playbook, place)
    return Answer(about=what, text=f"at {teller.when(decided.at)}: {text}", remedy=remedy, rule=rule)


def _stands(teller: Teller, enrollment: Enrollment) -> str:
    since = f"is inside since {teller.when(enrollment.entry.at)}"
    match enrollment.status:
        case "held_out":
            return f"{since}, and held out: gets nothing, so that the journey's effect is seen"
        case "parked":
            pause = unsent.paused(teller, enrollment.journey, teller.books.current)
            return f"{since}; {enrollment.step} is due and waits: {pause.text}"
        case "sending":
            return f"{since}; the mail of {enrollment.step} is on its way or held"
    return f"{since}, at {enrollment.step} until {teller.when(enrollment.due)} at most"


_Reason = tuple[str, str, tuple[str, ...]]
"""A sentence, a remedy, and a place in the journey's file."""


def _not_begun(teller: Teller, journey: Journey) -> Iterator[_Reason]:
    """Why no record of the journey's trigger let this customer in, as far as that can be known."""
    customer = teller.remembered.customer
    if customer is None:
        return
    if journey.status == "paused":
        pause = unsent.paused(teller, journey.name, teller.books.current)
        yield f"{pause.text}, and lets nobody in", pause.remedy, ("status",)
    match journey.trigger:
        case DateTrigger():
            yield _no_date(teller, journey, journey.trigger, customer)
        case StageTrigger(stage=stage):
            is_in = (
                "is in it, and came to it before that counted"
                if customer.stage == stage
                else (f"is in {customer.stage or 'none'}")
            )
            yield f"begins when they come to the stage {stage}; the customer {is_in}", "", ("trigger",)
        case SegmentTrigger(segment=segment, change=change):
            member = "is in it" if segment in customer.segments else "is not in it"
            text = f"begins when they have {change} the segment {segment}; the customer {member} now"
            if (segment in customer.segments) == (change == "entered"):
                text += ", and came so far before the journey was in force, or as the playbook changed"
            yield text, "", ("trigger",)
        case EventTrigger():
            yield from _no_event(teller, journey, journey.trigger, customer)
    if journey.condition is not None and not isinstance(journey.trigger, EventTrigger):
        yield f"besides, it asks then: {journey.condition.source}", "", ("trigger", "if")


def _no_date(teller: Teller, journey: Journey, trigger: DateTrigger, customer: Customer) -> _Reason:
    name = ".".join(trigger.trait)
    value: Any = customer.traits
    for part in trigger.trait:
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        return f"the trait {name} is not known", f"Send {name} with identify, as 1990-12-31.", ("trigger", "date")
    if read_day(value) is None:
        return f"the trait {name} is no date: {value!r}", "Send it as 1990-12-31.", ("trigger", "date")
    due = teller.remembered.dates.get(journey.name)
    if due is None:
        return (
            f"{name} is {value}, and no time for it lies ahead: a single date that has passed begins nothing",
            "",
            ("trigger", "date"),
        )
    return f"{name} is {value}: the next time is {teller.when(due)}", "", ("trigger", "date")


def _no_event(teller: Teller, journey: Journey, trigger: EventTrigger, customer: Customer) -> Iterator[_Reason]:
    came = [
        one
        for one in teller.remembered.past
        if one.name == trigger.event and one.kind in ("event", "derived") and one.type == "track"
    ]
    if not came:
        yield (
            f"begins with {trigger.event}, and none of theirs is known from the time that is told",
            f"Have the shop send {trigger.event}, or look whether it comes under another key.",
            ("trigger", "event"),
        )
        return
    book = teller.books.in_force
    assert book is not None
    last = came[-1]
    at = f"the last {trigger.event}, at {teller.when(last.at)},"
    event = _event(last, customer.key)
    record = CustomerUpdated(as_of=last.at, customer=customer, event=event)
    found = entries(journey, record, Happening(event), book, last.at)
    reasons = list(dict.fromkeys(one.reason for one in found if isinstance(one, Declined)))
    if not found:
        path = ".".join(trigger.for_each or ())
        yield f"{at} had nothing under {path}", f"Have the shop send {path}.", ("trigger", "for_each")
    elif not reasons or (len(reasons) and any(not isinstance(one, Declined) for one in found)):
        yield (
            f"{at} fits, as the customer is today. Then they were another, or the journey was not in force; what that "
            f"was is not known any more",
            "",
            ("trigger",),
        )
    for reason in reasons:
        match reason:
            case "historical":
                yield f"{at} was marked as historical, and such events begin nothing", "", ("trigger",)
            case "too_old":
                age = format_duration(journey.max_age)
                yield f"{at} came more than {age} late (max_age)", "Send events as they happen.", ("max_age",)
            case "filtered":
                yield _filtered(at, trigger.where)
            case "condition" if journey.condition is not None:
                text = f"{at} came while this was not true, as the customer is today: {journey.condition.source}"
                yield text, "", ("trigger", "if")
            case "no_key":
                yield f"{at} had no key for it", "Have the shop send what key names.", ("trigger", "key")
            case _:
                yield f"{at} could not begin it: {reason.replace('_', ' ')}", "", ("trigger",)


def _filtered(at: str, where: Expression | None) -> _Reason:
    source = where.source if where is not None else ""
    of_the_event = (
        where is not None
        and not (where.aggregates or where.segments or where.topics)
        and all(name[0] == "event" for name in where.names)
    )
    certain = "" if of_the_event else ", as the customer is today"
    return f"{at} does not fit{certain}: where: {source}", unsent.NOTHING, ("trigger", "where")


def _event(happened: Happened, key: str) -> Event:
    return Event(
        id=happened.id,
        source=happened.source,
        key=key,
        type=happened.type,
        name=happened.name,
        occurred_at=happened.occurred_at,
        received_at=happened.at,
        properties=happened.properties,
        historical=happened.historical,
        hops=happened.hops,
    )
