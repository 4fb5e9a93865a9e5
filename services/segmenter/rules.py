"""What a playbook means to this service: which events feed which aggregates, and which conditions they can change.

Compiled once for each playbook. A condition is asked again only where something that it reads has changed, or where
time alone may have flipped it; that must give what asking all of them would.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from graphlib import TopologicalSorter
from hashlib import blake2b
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import replace

from services.segmenter import carts, consent
from shared.contracts.customers import SPEND_PERCENTILE
from shared.contracts.events import Activation
from shared.language.aggregates import Aggregate
from shared.language.expressions import Expression, Scope
from shared.language.flips import foreseen
from shared.language.playbook import DateTrigger, Playbook, SegmentTrigger, Stage, StageTrigger, Topic
from shared.language.rising import Needed, least_counts, needed_counts, rising

STAGE = ""
"""The name of the one condition whose value is not yes or no but the first stage that holds."""

READS_CONSENT = "consent"

_COUNTS = frozenset({"count", "exists"})


class Definition(msgspec.Struct, array_like=True, frozen=True):
    """What was defined when a profile was last brought up to date, so that a change is noticed piece by piece.

    `conditions` maps the stage condition and each segment to a hash of its text, `dates` each journey with a date.
    """

    hash: bytes
    aggregates: frozenset[str] = frozenset()
    conditions: dict[str, bytes] = {}
    dates: dict[str, bytes] = {}
    surroundings: bytes = b""
    """The brand's timezone, currency and rates and the topics' defaults, which any condition may depend on."""


NOTHING_DEFINED = Definition(hash=b"")
"""No playbook was in force."""


Foreseen = Callable[[Scope], datetime | None]


class Condition(msgspec.Struct, frozen=True):
    """A segment, or (`STAGE`) all stages in their order. `bit` is its place in masks; later ones may read earlier.

    `flip` foresees when time alone changes it, for each stage of its own; None where it never does."""

    name: str
    bit: int
    segment: Expression | None
    flip: Foreseen | None
    stages: tuple[tuple[Stage, Foreseen | None], ...]


class Watcher(msgspec.Struct, frozen=True):
    """A condition that reads an aggregate. One more event changes nothing about it while the customer is in one of
    `stages`, or in the segment `member`, or while the aggregate counts fewer than `least`, or while one of the counts
    in `needs`, which are of other events, is not what the condition asks for."""

    bit: int
    stages: frozenset[str]
    member: str | None
    least: int = 0
    needs: tuple[Needed, ...] = ()


def may_change(
    watchers: Iterable[Watcher], state: Any, states: Mapping[str, Any], stage: str, segments: Collection[str]
) -> int:
    """The mask of the conditions that one more event may have changed, which left an aggregate in this state; `states`
    has those of the others."""
    mask = 0
    for watcher in watchers:
        if stage in watcher.stages or watcher.member in segments:
            continue
        # Without a window the state is the count. With one it may hold some that are over, so this is the most.
        if watcher.least > 1 and (state if type(state) is int else sum(state[1])) < watcher.least:
            continue
        for other, compare, number in watcher.needs:
            if not compare(states.get(other.id, 0), number):
                break
        else:
            mask |= watcher.bit
    return mask


class Rules(msgspec.Struct, frozen=True):
    """`readers` maps what can change about a profile (an aggregate's id, `traits.country`, `customer.last_seen`,
    `segment.vip`, `consent`) to the mask of conditions that read it."""

    definition: Definition
    aggregates: Mapping[str, Aggregate]
    fed_by: Mapping[str, tuple[Aggregate, ...]]
    """Event name to the aggregates over it."""
    conditions: tuple[Condition, ...]
    by_name: Mapping[str, Condition]
    readers: Mapping[str, int]
    watchers: Mapping[str, tuple[Watcher, ...]]
    """By the id of an aggregate."""
    heard: frozenset[str]
    """The names of events that feed an aggregate, say something of consent, or change a cart that is kept up here."""
    dates: Mapping[str, DateTrigger]
    """Journeys that begin on a date."""
    travelling: frozenset[str]
    """Aggregates whose state goes along on the stream."""
    topics: Mapping[str, Topic]
    zone: ZoneInfo
    currency: str
    rates: Mapping[str, Decimal]
    derives_carts: bool
    reads_last_seen: bool
    """Whether a condition changes by a customer's mere presence."""
    only_counted: Mapping[str, tuple[tuple[Aggregate, tuple[Watcher, ...]], ...]]
    """As `fed_by`, of the events that are counted, and of which nothing else is kept."""
    condition_bytes: int
    """A bound on what conditions and dates take in a packed profile."""
    every_condition: int
    """The mask of those that may hold of somebody: where there are no stages, that condition never does."""
    spend: Aggregate | None = None
    """What customers are ranked by, where something asks for their percentile."""
    percentile_travels: bool = False
    """Whether a journey asks for it."""


NO_RULES = Rules(
    definition=NOTHING_DEFINED,
    aggregates={},
    fed_by={},
    conditions=(),
    by_name={},
    readers={},
    watchers={},
    heard=frozenset(consent.SAYING),
    dates={},
    travelling=frozenset(),
    topics={},
    zone=ZoneInfo("UTC"),
    currency="",
    rates={},
    derives_carts=False,
    reads_last_seen=False,
    only_counted={},
    condition_bytes=0,
    every_condition=0,
)
"""Before any playbook is in force, profiles and history are kept all the same."""


def compile_rules(playbook: Playbook, kept: Sequence[Playbook] = ()) -> Rules:
    """`kept` are playbooks before it under which somebody still is in a journey: what their journeys count stays."""
    travels = any(map(_tells_percentile, (playbook, *kept)))
    for older in kept:
        counted = {id: older.aggregates[id] for id in older.journey_aggregates}
        spend = playbook.spend
        if spend is None and older.spend is not None and _tells_percentile(older):
            spend = counted[older.spend.id] = older.spend
        playbook = replace(
            playbook,
            aggregates={**counted, **playbook.aggregates},
            journey_aggregates=playbook.journey_aggregates | older.journey_aggregates,
            spend=spend,
        )
    fed_by: dict[str, list[Aggregate]] = {}
    for aggregate in playbook.aggregates.values():
        fed_by.setdefault(aggregate.event, []).append(aggregate)
    dates = {name: j.trigger for name, j in playbook.journeys.items() if isinstance(j.trigger, DateTrigger)}
    conditions = tuple(_condition(playbook, name, bit) for bit, name in enumerate(_in_order_of_reading(playbook)))
    readers: dict[str, int] = {}
    for condition in conditions:
        for expression in _expressions(condition):
            for read in reads(expression):
                readers[read] = readers.get(read, 0) | 1 << condition.bit
    derives_carts = playbook.brand.carts == "derived"
    watchers = {id: tuple(_watchers(conditions, one)) for id, one in playbook.aggregates.items()}
    does_more = consent.SAYING.keys() | (carts.CAUSES if derives_carts else frozenset())
    return Rules(
        definition=_definition(playbook, dates),
        aggregates=playbook.aggregates,
        fed_by={event: tuple(aggregates) for event, aggregates in fed_by.items()},
        conditions=conditions,
        by_name={condition.name: condition for condition in conditions},
        readers=readers,
        watchers=watchers,
        heard=frozenset(fed_by) | does_more,
        dates=dates,
        travelling=playbook.journey_aggregates,
        topics=playbook.topics,
        zone=ZoneInfo(playbook.brand.timezone),
        currency=playbook.brand.currency,
        rates=playbook.brand.rates,
        derives_carts=derives_carts,
        reads_last_seen="customer.last_seen" in readers or "customer" in readers,
        only_counted={
            event: tuple((aggregate, watchers[aggregate.id]) for aggregate in aggregates)
            for event, aggregates in fed_by.items()
            if event not in does_more and all(aggregate.function in _COUNTS for aggregate in aggregates)
        },
        every_condition=sum(1 << one.bit for one in conditions if one.segment is not None or one.stages),
        condition_bytes=sum(2 * len(c.name.encode()) + 60 for c in conditions) + sum(len(j) * 4 + 100 for j in dates),
        spend=playbook.spend,
        percentile_travels=travels,
    )


def as_journeys_read(playbook: Playbook, kept: Sequence[Playbook] = ()) -> Playbook:
    """The playbook with those stages and segments alone that a journey asks for, by itself or by another of them: what
    journeys do is the same without the others. `kept` as above."""
    read: set[str] = set().union(*(reads(asked) for one in (playbook, *kept) for asked in one.journey_expressions))
    for journey in playbook.journeys.values():
        match journey.trigger:
            case StageTrigger():
                read.add(change_of(STAGE))
            case SegmentTrigger(segment=segment):
                read.add(change_of(segment))
    names = _conditions(playbook)
    asked: set[str] = set()
    while True:
        everything = not read.isdisjoint(("customer", "customer.segments"))
        more = {name for name in names.keys() - asked if everything or change_of(name) in read}
        if not more:
            break
        asked |= more
        read |= set().union(*(reads(expression) for name in more for expression in names[name]))
    return replace(
        playbook,
        stages=playbook.stages if STAGE in asked else (),
        segments={name: segment for name, segment in playbook.segments.items() if name in asked},
    )


_AND = "+"


def in_force(activation: Activation) -> str:
    """The name that rules go by: the playbook's hash, and those of the playbooks whose journeys' counts are kept up."""
    return _AND.join((activation.playbook, *activation.keeps))


def playbooks_of(name: str) -> list[str]:
    """The hashes in such a name, the playbook in force first."""
    return name.split(_AND)


def wanted(before: Definition, in_play: Sequence[Rules]) -> frozenset[str]:
    """The aggregates that a profile kept under `before` lacks on its way through these rules, one after the other."""
    found: set[str] = set()
    held = before.aggregates
    for rules in in_play:
        found |= rules.aggregates.keys() - held
        # What one playbook drops and the next takes up again is begun anew.
        held &= rules.aggregates.keys()
    return frozenset(found)


def feeding(ids: frozenset[str], in_play: Sequence[Rules]) -> dict[str, tuple[Aggregate, ...]]:
    """By event name, the aggregates among `ids`."""
    found = {
        aggregate_id: rules.aggregates[aggregate_id]
        for rules in in_play
        for aggregate_id in ids & rules.aggregates.keys()
    }
    by_event: dict[str, list[Aggregate]] = {}
    for aggregate in found.values():
        by_event.setdefault(aggregate.event, []).append(aggregate)
    return {event: tuple(aggregates) for event, aggregates in by_event.items()}


def _condition(playbook: Playbook, name: str, bit: int) -> Condition:
    if name == STAGE:
        return Condition(name, bit, None, None, tuple((stage, foreseen(stage.when)) for stage in playbook.stages))
    when = playbook.segments[name].when
    return Condition(name, bit, when, foreseen(when), ())


def _watchers(conditions: Iterable[Condition], watched: Aggregate) -> Iterator[Watcher]:
    aggregate = watched.id
    for condition in conditions:
        mask = 1 << condition.bit
        if condition.segment is not None:
            if aggregate in condition.segment.aggregates:
                stays = aggregate in rising(condition.segment)
                least = least_counts(condition.segment).get(aggregate, 0)
                needs = tuple(one for one in needed_counts(condition.segment) if one.aggregate.event != watched.event)
                yield Watcher(mask, frozenset(), condition.name if stays else None, least, needs)
            continue
        # Whose stage stands above all that read it, or is made truer by it while none above reads it, keeps the stage.
        stages: set[str] = set()
        for stage, _ in condition.stages:
            read = aggregate in stage.when.aggregates
            if not read or aggregate in rising(stage.when):
                stages.add(stage.name)
            if read:
                yield Watcher(mask, frozenset(stages), None)
                break


def reads(expression: Expression) -> set[str]:
    """What about a profile an expression depends on, apart from the time, in the words of `Rules.readers`."""
    found = {*expression.aggregates, *(change_of(segment) for segment in expression.segments)}
    if expression.topics:
        found.add(READS_CONSENT)
    for root, *path in expression.names:
        if root in ("traits", "customer"):
            found.add(f"{root}.{path[0]}" if path else root)
    return found


def _tells_percentile(playbook: Playbook) -> bool:
    return any(SPEND_PERCENTILE in reads(asked) for asked in playbook.journey_expressions)


def _expressions(condition: Condition) -> Iterable[Expression]:
    return [condition.segment] if condition.segment is not None else [stage.when for stage, _ in condition.stages]


def _in_order_of_reading(playbook: Playbook) -> Iterable[str]:
    """Names of conditions, each after those that it reads."""
    names = _conditions(playbook)
    order: TopologicalSorter[str] = TopologicalSorter()
    for name, expressions in names.items():
        read = set().union(*map(reads, expressions))
        order.add(name, *(other for other in names if other != name and change_of(other) in read))
    return order.static_order()


def _conditions(playbook: Playbook) -> dict[str, list[Expression]]:
    """What each asks."""
    stages = {STAGE: [stage.when for stage in playbook.stages]}
    return stages | {name: [segment.when] for name, segment in playbook.segments.items()}


def change_of(condition: str) -> str:
    """The word in `Rules.readers` for a condition whose outcome changed."""
    return "customer.stage" if condition == STAGE else f"segment.{condition}"


def _definition(playbook: Playbook, dates: Mapping[str, DateTrigger]) -> Definition:
    brand = playbook.brand
    conditions = {name: _hash(segment.when.canonical) for name, segment in playbook.segments.items()}
    conditions[STAGE] = _hash(*(f"{stage.name}={stage.when.canonical}" for stage in playbook.stages))
    of_dates = {name: _hash(repr((t.trait, t.every, t.at, t.before)), brand.timezone) for name, t in dates.items()}
    surroundings = _hash(
        brand.timezone,
        brand.currency,
        *(f"{currency}={rate}" for currency, rate in sorted(brand.rates.items())),
        *(f"{topic.name}={topic.kind}/{topic.default}" for _, topic in sorted(playbook.topics.items())),
    )
    aggregates = frozenset(playbook.aggregates)
    whole = _hash(
        *sorted(aggregates),
        *(f"{name}={text.hex()}" for part in (conditions, of_dates) for name, text in sorted(part.items())),
        surroundings.hex(),
        # Last, and only where it is asked for: where it is not, nobody's definition is another one for it.
        *([] if playbook.spend is None else [SPEND_PERCENTILE, playbook.spend.id]),
    )
    return Definition(whole, aggregates, conditions, of_dates, surroundings)


def _hash(*texts: str) -> bytes:
    return blake2b("\0".join(texts).encode(), digest_size=8).digest()
