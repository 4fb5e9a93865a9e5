"""Who enters a journey, and when again. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from services.journeys.enrollment import Enrollment, Entry, Happening, Left, key_of, key_text
from services.journeys.scopes import scope
from shared.contracts.customers import Customer, CustomerUpdated, DateReached, Invited
from shared.contracts.events import MAX_HOPS
from shared.language.playbook import (
    DateTrigger,
    EventMatch,
    EventTrigger,
    Journey,
    Playbook,
    SegmentTrigger,
    StageTrigger,
    WaitFor,
)

T = TypeVar("T")


class Declined(NamedTuple):
    """Why a record whose trigger fits does not enter: `historical`, `too_old`, `loop`, `paused`, `filtered` (its
    `where`), `condition` (its `if`), `no_key`, `inside`, `again`, `elsewhere` (`by` are the journeys that keep them
    out), `crowded`. `until` is when `again` is over, where time alone ends it."""

    reason: str
    by: tuple[str, ...] = ()
    until: datetime | None = None


Admission = Literal["enter", "restart", "replace"]
"""Begin a new enrollment; begin the steps of the one inside anew; or end that one and begin a new one."""

MOST_AT_ONCE = 100
"""How many enrollments one customer may have that are not over: each looks at all that the customer does, and all are
kept in one row. Who invents carts must not hold up everybody else's."""

_encode = msgspec.json.Encoder().encode
_NO_MATCH = Declined("filtered")
SEEN_AFTERWARDS = frozenset({"filtered", "historical", "too_old"})
"""Reasons that the event itself shows to whoever reads it later. They are the ones that may be had with each event."""
_GONE_REMEMBERED = timedelta(days=365)


class Triggers:
    """The journeys of a playbook by what lets customers in, so that a record for none of them costs next to nothing."""

    def __init__(self, journeys: Mapping[str, Journey]) -> None:
        events: dict[str, list[Journey]] = {}
        stages: dict[str, list[Journey]] = {}
        segments: dict[tuple[str, str], list[Journey]] = {}
        self._dates: dict[str, Journey] = {}
        for journey in journeys.values():
            match journey.trigger:
                case EventTrigger(event=event):
                    events.setdefault(event, []).append(journey)
                case StageTrigger(stage=stage):
                    stages.setdefault(stage, []).append(journey)
                case SegmentTrigger(segment=segment, change=change):
                    segments.setdefault((segment, change), []).append(journey)
                case DateTrigger():
                    self._dates[journey.name] = journey
        self._events, self._stages, self._segments = _frozen(events), _frozen(stages), _frozen(segments)
        self.tagged = bool(stages or segments)
        """Whether somebody is let in for a stage or a segment."""
        self.heard = frozenset(events) | frozenset(match.event for one in journeys.values() for match in _matches(one))
        """The names of events that let somebody in, or that somebody inside may wait for."""

    def touched_by(self, record: CustomerUpdated) -> tuple[Journey, ...]:
        """The journeys whose trigger this record may be."""
        if record.cause == "definition":
            # An edited threshold must not mail 400,000 people.
            return ()
        event = record.event
        found = self._events.get(event.name, ()) if event is not None and event.type == "track" else ()
        if record.stage_before is not None and record.stage_before != record.customer.stage:
            found += self._stages.get(record.customer.stage, ())
        if self._segments:
            for segment in record.entered:
                found += self._segments.get((segment, "entered"), ())
            for segment in record.left:
                found += self._segments.get((segment, "left"), ())
        return found

    def of_date(self, record: DateReached) -> Journey | None:
        """The journey that waits for this date, unless an edit has taken its trigger away meanwhile."""
        return self._dates.get(record.journey)


def entries(
    journey: Journey,
    record: CustomerUpdated | DateReached | Invited,
    happening: Happening | None,
    playbook: Playbook,
    now: datetime,
) -> list[Entry | Declined]:
    """What a record that touches the trigger is: an entry, one for each item, or none. Where time alone was the cause
    there is no event."""
    if journey.status == "paused":
        return [Declined("paused")]
    draft = journey.status == "draft"
    if isinstance(record, DateReached):
        found: list[Entry | Declined] = [Entry(at=now, cause=f"date\n{record.occasion}", draft=draft)]
    elif isinstance(record, Invited):
        found = [Entry(at=now, cause=f"backfill\n{record.occasion}", draft=draft)]
    elif happening is None:
        found = [Entry(at=now, cause="time", draft=draft)]
    else:
        event = happening.event
        if event.historical:
            return [Declined("historical")]
        if now - event.occurred_at > journey.max_age:
            return [Declined("too_old")]
        if event.hops >= MAX_HOPS:
            # What became of its message would be one more, and nobody would hear of it.
            return [Declined("loop")]
        cause = f"event\n{event.source}\n{event.id}"
        plain = Entry(at=now, cause=cause, trigger=bytes(event.properties), hops=event.hops, draft=draft)
        found = [plain]
        if isinstance(journey.trigger, EventTrigger):
            found = _of_event(journey.trigger, record.customer, happening, plain, playbook, now)
    condition = journey.condition
    if condition is None:
        return found
    properties = happening.properties if happening is not None else None

    def holds(entry: Entry) -> bool:
        return condition.truth(scope(playbook, record.customer, now, event=properties, entry=entry))

    return [one if isinstance(one, Declined) or holds(one) else Declined("condition") for one in found]


def _of_event(
    trigger: EventTrigger, customer: Customer, happening: Happening, plain: Entry, playbook: Playbook, now: datetime
) -> list[Entry | Declined]:
    items = [None] if trigger.for_each is None else _items(happening.properties, trigger.for_each)
    found: list[Entry | Declined] = []
    keys: set[str] = set()
    for item in items:
        seen = scope(playbook, customer, now, event=happening.properties, item=item)
        key = key_of(trigger.key.evaluate(seen)) if trigger.key is not None else None
        if trigger.where is not None and not trigger.where.truth(seen):
            found.append(_NO_MATCH)
        elif trigger.key is not None and key is None:
            found.append(Declined("no_key"))
        elif key_text(key) in keys:
            # The same item twice in one event is one cause.
            found.append(Declined("inside"))
        elif trigger.for_each is None:
            found.append(msgspec.structs.replace(plain, key=key))
        else:
            keys.add(key_text(key))
            found.append(msgspec.structs.replace(plain, key=key, item=_encode(item)))
    return found


def _items(properties: Mapping[str, Any], path: tuple[str, ...]) -> list[Any]:
    """The elements of a list in an event, as many as a customer may have enrollments."""
    value: Any = properties
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value[:MOST_AT_ONCE] if isinstance(value, list) else []


def admit(
    journey: Journey,
    entry: Entry,
    inside: Enrollment | None,
    left: Left | None,
    elsewhere: Collection[str],
    enrollments: int,
) -> Admission | Declined:
    """What an entry may do. `inside` is the customer's enrollment for the same key, `left` their last one before,
    `elsewhere` the journeys that they are in, and `enrollments` how many they have in all."""
    if not journey.unless_in.isdisjoint(elsewhere):
        return Declined("elsewhere", tuple(sorted(journey.unless_in.intersection(elsewhere))))
    if not entry.draft:
        # What a draft only counted keeps nobody from the journey itself.
        if inside is not None and inside.entry.draft:
            return "replace"
        if left is not None and left.draft:
            left = None
    if inside is not None:
        if journey.mode == "single":
            return Declined("inside")
        if not inside.gone_out:
            return "restart"
        return "replace" if enters_again(journey, inside.entry.at, entry.at) else _too_soon(journey, inside.entry.at)
    if left is not None and not enters_again(journey, left.at, entry.at):
        return _too_soon(journey, left.at)
    if enrollments >= MOST_AT_ONCE:
        return Declined("crowded")
    return "enter"


def enters_again(journey: Journey, last: datetime, now: datetime) -> bool:
    """Whether the journey takes a customer in at `now` whose last entry was at `last`."""
    if isinstance(journey.again, timedelta):
        return now - last >= journey.again
    return journey.again == "always"


def _too_soon(journey: Journey, last: datetime) -> Declined:
    return Declined("again", until=last + journey.again if isinstance(journey.again, timedelta) else None)


def left_of(journey: Journey | None, enrollment: Enrollment) -> Left:
    """What is remembered of an enrollment that has left. A journey that is gone may come back within a year."""
    last = enrollment.entry.at
    again = journey.again if journey is not None else _GONE_REMEMBERED
    until = last + again if isinstance(again, timedelta) else None
    return Left(enrollment.journey, key_text(enrollment.entry.key), last, until, enrollment.entry.draft)


def forgotten_at(journey: Journey | None, left: Left) -> datetime | None:
    """When a last entry stops to matter, by the rule in force; None where it always will."""
    if journey is None:
        return left.until
    if journey.again == "always":
        return left.at
    return left.at + journey.again if isinstance(journey.again, timedelta) else None


def _matches(journey: Journey) -> Iterator[EventMatch]:
    if journey.goal is not None:
        yield journey.goal.match
    yield from journey.exit_on
    for step in journey.steps.values():
        if isinstance(step, WaitFor) and step.match is not None:
            yield step.match


def _frozen(index: Mapping[T, Iterable[Journey]]) -> dict[T, tuple[Journey, ...]]:
    return {name: tuple(journeys) for name, journeys in index.items()}
