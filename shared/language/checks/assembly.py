"""What passed the checks, put together as a proven playbook."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import cast

from shared.contracts.events import SURVEY_ANSWERED
from shared.language import playbook as proven
from shared.language import steps as written
from shared.language.aggregates import SPEND, Aggregate
from shared.language.checks.book import Book, ReadJourney, each_of
from shared.language.expressions import Expression, both, by_people
from shared.language.fields import WEEKDAYS
from shared.language.folder import playbook_hash
from shared.language.graph import Placed
from shared.language.journey_file import DateTrigger, EventTrigger, JourneyFile, SegmentTrigger, StageTrigger
from shared.language.playbook_files import BrandFile, CouponFile, SegmentsFile, TopicEntry
from shared.language.source import Path


def to_playbook(book: Book) -> proven.Playbook:
    """The playbook, once nothing is wrong."""
    assert book.brand is not None
    return proven.Playbook(
        hash=playbook_hash(book.files),
        files=dict(book.files),
        brand=_brand(book.brand, book.spend_declared or SPEND),
        stages=tuple(proven.Stage(name, expression) for name, expression in book.stage_expressions.items()),
        segments={
            name: proven.Segment(name, cast(SegmentsFile, book.segments).segments[name].title or name, expression)
            for name, expression in book.segment_expressions.items()
        },
        topics={name: _topic(name, entry) for name, entry in book.topics.items()},
        journeys={name: _journey(journey) for name, journey in book.journeys.items()},
        messages={name: _message(book, name) for name in book.messages},
        aggregates=book.aggregates,
        journey_expressions=frozenset(
            one for journey in book.journeys.values() for one in journey.expressions.values()
        ),
        journey_aggregates=frozenset(book.journey_aggregates),
        coupons={name: _pool(book, name, shape) for name, shape in book.coupons.items()},
        spend=book.spend,
    )


def _pool(book: Book, name: str, shape: CouponFile) -> proven.CouponPool:
    return proven.CouponPool(
        name=name,
        title=shape.title or name,
        prefix=shape.prefix or "",
        length=shape.length or 10,
        limit=shape.limit,
        expires=shape.expires,
        codes=None if shape.codes is None else book.codes[name],
        announced_to=shape.url,
    )


def _message(book: Book, name: str) -> proven.Message:
    own = cast(BrandFile, book.brand).locale
    described = {locale: shape for (message, locale), shape in book.message_files.items() if message == name}
    preheaders = {locale: shape.preheader for locale, shape in described.items() if shape.preheader is not None}
    title = next((described[locale].title for locale in ("", own) if locale in described), None)
    return proven.Message(
        name=name,
        title=title or name,
        preheader=preheaders.get("", preheaders.get(own, "")),
        files=book.texts[name],
        preheaders=preheaders,
    )


def _brand(shape: BrandFile, spend: Aggregate) -> proven.Brand:
    return proven.Brand(
        name=shape.name,
        sender=shape.sender,
        reply_to=shape.reply_to,
        postal_address=shape.postal_address,
        timezone=shape.timezone,
        locale=shape.locale,
        currency=shape.currency,
        rates=shape.rates,
        urls=shape.urls,
        quiet_hours=shape.quiet_hours,
        caps=tuple(
            proven.Cap(cap.limit, cap.within, channel)
            for channel in ("email", "sms", "push")
            for cap in getattr(shape.caps, channel)
        ),
        carts=shape.carts,
        opens=shape.opens,
        spend=spend,
    )


def _topic(name: str, entry: TopicEntry) -> proven.Topic:
    default = entry.default or ("opt_in" if entry.kind == "promotional" else "opt_out")
    return proven.Topic(name, entry.title, entry.description, entry.kind, default)


def _journey(journey: ReadJourney) -> proven.Journey:
    shape = journey.shape
    steps: dict[str, proven.Step] = {}
    first = _link(journey, ("steps",), shape.steps, None, steps)
    goal = shape.goal
    return proven.Journey(
        name=shape.journey,
        title=shape.title or shape.journey,
        version=_version(shape),
        status=shape.status,
        trigger=_trigger(journey),
        condition=journey.expression(("trigger", "if")),
        unless_in=frozenset(shape.trigger.unless_in),
        holdout=shape.holdout or Decimal(0),
        mode=shape.mode,
        again=shape.again,
        max_age=shape.max_age,
        goal=None
        if goal is None
        else proven.Goal(
            match=_match(goal.event, journey.expression(("goal", "where"))),
            within=goal.within,
            value=journey.expression(("goal", "value")),
        ),
        exit_on=tuple(
            _match(match.event, journey.expression(("exit_on", position, "where")))
            for position, match in enumerate(shape.exit_on)
        ),
        topic=shape.defaults.topic,
        first=first,
        steps={placed.id: steps[placed.id] for placed in journey.layout.placed},
    )


def _version(shape: JourneyFile) -> str:
    """A hash of what the journey does: everything that is not its default, without title and status."""
    data = shape.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"title", "status"})
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def _trigger(journey: ReadJourney) -> proven.Trigger:
    trigger = journey.shape.trigger
    if isinstance(trigger, EventTrigger):
        where, key = journey.expression(("trigger", "where")), journey.expression(("trigger", "key"))
        return proven.EventTrigger(trigger.event, by_people(trigger.event, where), key, each_of(journey) or None)
    if isinstance(trigger, StageTrigger):
        return proven.StageTrigger(trigger.stage)
    if isinstance(trigger, SegmentTrigger):
        return proven.SegmentTrigger(trigger.segment, trigger.change)
    assert isinstance(trigger, DateTrigger)
    return proven.DateTrigger(tuple(trigger.date.split(".")[1:]), trigger.every, trigger.at, trigger.before)


def _link(
    journey: ReadJourney, path: Path, steps: Sequence[written.Step], after: str | None, linked: dict[str, proven.Step]
) -> str | None:
    """Makes the steps of a list, from its end; the name of the first, or `after` where the list is empty."""
    following = after
    for position in range(len(steps) - 1, -1, -1):
        here = (*path, position)
        placed = journey.layout.by_path[here]
        linked[placed.id] = _step(journey, placed, following, linked)
        following = placed.id
    return following


def _step(journey: ReadJourney, placed: Placed, following: str | None, linked: dict[str, proven.Step]) -> proven.Step:
    step, path, name = placed.step, placed.path, placed.id
    if isinstance(step, written.WaitStep):
        return _wait(step, name, following)
    if isinstance(step, written.WaitForStep):
        awaited, where = step.wait_for, journey.expression((*path, "wait_for", "where"))
        match: proven.EventMatch | None = None
        if isinstance(awaited, written.EventMatch):
            match = _match(awaited.event, where)
        elif isinstance(awaited, written.Reply):
            survey = journey.expressions[(*path, "wait_for", "reply")]
            match = proven.EventMatch(SURVEY_ANSWERED, both(survey, where))
        return proven.WaitFor(
            id=name,
            matched=_link(journey, (*path, "then"), step.then, following, linked),
            timed_out=_link(journey, (*path, "on_timeout"), step.on_timeout, following, linked),
            match=match,
            clicked=_sender(journey, awaited.clicked) if isinstance(awaited, written.Clicked) else None,
            opened=_sender(journey, awaited.opened) if isinstance(awaited, written.Opened) else None,
            timeout=step.timeout,
        )
    if isinstance(step, written.SendStep):
        defaults = journey.shape.defaults
        return proven.Email(
            id=name,
            next=following,
            message=step.message,
            topic=cast(str, step.topic if step.topic is not None else defaults.topic),
            priority=step.priority if step.priority is not None else defaults.priority,
            expires=step.expires if step.expires is not None else defaults.expires,
            with_={given: journey.expressions[(*path, "with", given)] for given in step.with_},
            channel=step.channel,
        )
    if isinstance(step, written.IfStep):
        return proven.If(
            id=name,
            condition=journey.expressions[(*path, "if")],
            then=_link(journey, (*path, "then"), step.then, following, linked),
            otherwise=_link(journey, (*path, "else"), step.else_, following, linked),
        )
    if isinstance(step, written.ChooseStep):
        ways: list[tuple[Expression, str | None]] = []
        otherwise = following
        for position, way in enumerate(step.choose):
            here = (*path, "choose", position)
            if isinstance(way, written.Way):
                first = _link(journey, (*here, "then"), way.then, following, linked)
                ways.append((journey.expressions[(*here, "if")], first))
            elif isinstance(way, written.OtherWay):
                otherwise = _link(journey, (*here, "else"), way.else_, following, linked)
        return proven.Choose(name, tuple(ways), otherwise)
    if isinstance(step, written.SplitStep):
        arms = {
            arm: proven.Arm(one.share, _link(journey, (*path, "split", arm, "then"), one.then, following, linked))
            for arm, one in step.split.items()
        }
        return proven.Split(name, arms, step.by)
    if isinstance(step, written.SetStep):
        given = {target: journey.expressions[(*path, "set", target)] for target in step.set}
        return proven.Set(name, following, _below("vars", given), _below("traits", given))
    if isinstance(step, written.EmitStep):
        properties = {given: journey.expressions[(*path, "properties", given)] for given in step.properties}
        return proven.Emit(name, following, step.emit, properties)
    if isinstance(step, written.WebhookStep):
        return proven.Webhook(
            id=name,
            next=following,
            url=step.webhook.url,
            type=step.webhook.type or f"{journey.shape.journey}.{name}",
            expires=step.expires if step.expires is not None else journey.shape.defaults.expires,
            with_={given: journey.expressions[(*path, "webhook", "with", given)] for given in step.webhook.with_},
        )
    if isinstance(step, written.TaskStep):
        title, note = journey.expressions[(*path, "task", "title")], journey.expression((*path, "task", "note"))
        return proven.Task(name, following, title, note, step.task.due)
    if isinstance(step, written.CouponStep):
        return proven.Coupon(name, following, step.coupon)
    if isinstance(step, written.PauseStep):
        return proven.Pause(name, following, step.pause)
    assert isinstance(step, written.ExitStep)
    return proven.Exit(name, step.exit)


def _sender(journey: ReadJourney, name: str) -> str:
    found, _ = journey.layout.sender(name)
    assert found is not None
    return found.id


def _match(event: str, where: Expression | None) -> proven.EventMatch:
    return proven.EventMatch(event, by_people(event, where))


def _wait(step: written.WaitStep, name: str, following: str | None) -> proven.Wait:
    wait = step.wait
    if isinstance(wait, written.WaitBetween):
        return proven.Wait(name, following, None, None, None, between=(wait.between[0], wait.between[1]))
    if not isinstance(wait, written.WaitUntil):
        return proven.Wait(name, following, wait, None, None)
    days = None if wait.on is None else frozenset(WEEKDAYS.index(day) for day in wait.on)
    if isinstance(wait.until, str):
        return proven.Wait(name, following, wait.for_, wait.at, None, date=tuple(wait.until.split(".")[1:]))
    return proven.Wait(name, following, wait.for_, wait.until, days)


def _below(root: str, given: Mapping[str, Expression]) -> dict[str, Expression]:
    """Those of dotted names that stand under one root, without it."""
    return {name.split(".", 1)[1]: value for name, value in given.items() if name.split(".", 1)[0] == root}
