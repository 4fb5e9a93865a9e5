"""A segmenter in memory for tests: playbooks by hand, and a driver that plays the mechanics over one partition."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal

import msgspec

from services.segmenter import fingerprints, history
from services.segmenter.batch import NO_MEMO, Memo, SegmenterBatch
from services.segmenter.history import Row
from services.segmenter.profile import Profile
from services.segmenter.rules import NO_RULES, NOTHING_DEFINED, Rules, compile_rules, feeding, wanted
from services.segmenter.store import Seen, unpack_profile
from shared.contracts.customers import SPEND_PERCENTILE, CustomerRecord, CustomerUpdated
from shared.contracts.events import Activation, CutOffs, Event, EventRecord
from shared.language.aggregates import SPEND, Aggregate
from shared.language.expressions import Expression, compile_expression
from shared.language.playbook import Brand, DateTrigger, Journey, Playbook, Segment, Stage, Topic
from shared.processing.agenda import Agenda
from shared.processing.port import Timer

START = datetime(2026, 3, 2, 12, tzinfo=UTC)

STAGES = {
    "delight": 'count("Order Completed") >= 3',
    "retain": 'count("Order Completed") >= 1',
    "convert": 'count("Product Added", within=30d) >= 1',
    "attract": "true",
}
TOPICS = {"newsletter": Topic("newsletter", "News", "", "promotional", "opt_in")}

_ids = itertools.count(1)


def condition(text: str) -> Expression:
    return compile_expression(text, allowed={"traits", "customer"}, condition=True).expression


def birthday(at: str = "09:00", before: int = 0, trait: str = "birthday") -> DateTrigger:
    return DateTrigger((trait,), "year", time.fromisoformat(at), before)


def playbook(
    stages: Mapping[str, str] = STAGES,
    segments: Mapping[str, str] | None = None,
    dates: Mapping[str, DateTrigger] | None = None,
    travelling: Sequence[str] = (),
    carts: Literal["derived", "sent"] = "sent",
    timezone: str = "UTC",
    topics: Mapping[str, Topic] = TOPICS,
    name: str | None = None,
    ranks: bool = False,
) -> Playbook:
    """A playbook as this service sees it; `travelling` are expressions that journeys are to evaluate. With `ranks` one
    of them asks for the percentile of customers."""
    proven_stages = tuple(Stage(stage, condition(when)) for stage, when in stages.items())
    proven_segments = {s: Segment(s, s, condition(when)) for s, when in (segments or {}).items()}
    of_journeys = [condition(text) for text in travelling]
    if ranks:
        of_journeys.append(condition(f"{SPEND_PERCENTILE} > 0"))
    aggregates: dict[str, Aggregate] = {}
    spend: Aggregate | None = None
    for expression in [*(s.when for s in proven_stages), *(s.when for s in proven_segments.values()), *of_journeys]:
        aggregates |= {aggregate.id: aggregate for aggregate in expression.definitions}
        if ("customer", "spend_percentile") in expression.names:
            aggregates[SPEND.id], spend = SPEND, SPEND
    return Playbook(
        hash=name or f"playbook-{next(_ids)}",
        files={},
        brand=Brand(
            name="Shop", sender="shop@example.com", reply_to=None, postal_address="", timezone=timezone, locale="en",
            currency="EUR", rates={}, urls={}, quiet_hours=None, caps=(), carts=carts,
        ),
        stages=proven_stages,
        segments=proven_segments,
        topics=topics,
        journeys={journey: _journey(journey, trigger) for journey, trigger in (dates or {}).items()},
        messages={},
        aggregates=aggregates,
        journey_expressions=frozenset(of_journeys),
        journey_aggregates=frozenset(a.id for expression in of_journeys for a in expression.definitions),
        spend=spend,
    )  # fmt: skip


def _journey(name: str, trigger: DateTrigger) -> Journey:
    return Journey(
        name=name, title=name, version="1", status="live", trigger=trigger, condition=None, mode="single",
        again="always", max_age=timedelta(days=1), goal=None, exit_on=(), topic=None, first=None, steps={},
    )  # fmt: skip


def at(days: float = 0, hours: float = 0, minutes: float = 0) -> datetime:
    """A moment of the story."""
    return START + timedelta(days=days, hours=hours, minutes=minutes)


def event(
    name: str,
    occurred: datetime = START,
    /,
    *,
    key: str = "ann",
    id: str | None = None,
    source: str = "shop",
    received: datetime | None = None,
    context: Mapping[str, Any] | None = None,
    historical: bool = False,
    hops: int = 0,
    **properties: Any,
) -> Event:
    return Event(
        id=id or f"event-{next(_ids)}",
        source=source,
        key=key,
        name=name,
        occurred_at=occurred,
        received_at=received or occurred,
        properties=msgspec.Raw(msgspec.json.encode(properties)),
        context=msgspec.Raw(msgspec.json.encode(context or {})),
        historical=historical,
        hops=hops,
    )


def identify(
    occurred: datetime = START, /, *, key: str = "ann", id: str | None = None, received: datetime | None = None,
    **traits: Any,
) -> Event:  # fmt: skip
    return Event(
        id=id or f"event-{next(_ids)}",
        source="shop",
        key=key,
        type="identify",
        occurred_at=occurred,
        received_at=received or occurred,
        traits=msgspec.Raw(msgspec.json.encode(traits)),
    )


def cut_offs(moment: datetime, *amounts: int, metric: str = SPEND.id) -> CutOffs:
    return CutOffs(metric=metric, amounts=tuple(map(Decimal, amounts)), customers=0, received_at=moment, v=3)


def activation(of: Playbook, moment: datetime = START) -> Activation:
    return Activation(playbook=of.hash, received_at=moment)


class Run:
    """What the heart asked for in one batch (`shared.processing.port.Outputs`)."""

    partition = 0

    def __init__(self, as_of: datetime, agenda: Agenda) -> None:
        self.as_of = as_of
        self.agenda = agenda
        self.emitted: list[bytes] = []
        self.letters: list[tuple[str, bytes, str, str]] = []

    def emit(self, stream: str, key: str, record: msgspec.Struct | bytes) -> None:
        self.emitted.append(msgspec.json.encode(record))

    def emit_here(self, stream: str, key: str, record: msgspec.Struct | bytes) -> None:
        self.emitted.append(msgspec.json.encode(record))

    def emit_everywhere(self, stream: str, record: msgspec.Struct | bytes) -> None:
        self.emitted.append(msgspec.json.encode(record))

    def set_timer(self, kind: str, subject: str, due: datetime | None) -> None:
        self.agenda.set(kind, subject, due)

    def dead_letter(self, key: str, body: bytes, code: str, message: str) -> None:
        self.letters.append((key, body, code, message))


class Road:
    """One partition of a segmenter, as the mechanics would drive it, without a database."""

    def __init__(self, *playbooks: Playbook) -> None:
        self.rules: dict[str, Rules] = {"": NO_RULES} | {one.hash: compile_rules(one) for one in playbooks}
        self.definitions = {NOTHING_DEFINED.hash: NOTHING_DEFINED}
        self.definitions |= {rules.definition.hash: rules.definition for rules in self.rules.values()}
        self.memo = b""
        self.as_of = datetime(1970, 1, 1, tzinfo=UTC)
        self.packed: dict[str, bytes] = {}
        self.seen: dict[bytes, Seen] = {}
        self.rows: list[Row] = []
        self.timers: dict[tuple[str, str], datetime] = {}
        self.emitted: list[bytes] = []
        self.letters: list[tuple[str, bytes, str, str]] = []
        self.processed = self.deduplicated = 0
        self.spend: Counter[int] = Counter()
        """How many customers are in which bucket of spending."""
        if playbooks:
            self.take(activation(playbooks[0], datetime(2020, 1, 1, tzinfo=UTC)))
            self.emitted.clear()

    @property
    def records(self) -> list[CustomerRecord]:
        return [msgspec.json.decode(value, type=CustomerRecord) for value in self.emitted]  # type: ignore[arg-type]

    @property
    def updates(self) -> list[CustomerUpdated]:
        return [record for record in self.records if isinstance(record, CustomerUpdated)]

    def profile(self, key: str = "ann") -> Profile:
        return unpack_profile(self.packed[key])

    def take(self, *messages: EventRecord, until: datetime | None = None) -> None:
        """One batch. `until` moves the road on at its end, as a tick does."""
        roads = list(itertools.accumulate((m.received_at for m in messages), max, initial=self.as_of))[1:]
        end = max([self.as_of, *roads, *([until] if until else [])])
        due = [Timer(when, *subject) for subject, when in self.timers.items() if when <= end]
        batch = self._load(messages, due)
        agenda = Agenda(due)
        run = Run(self.as_of, agenda)
        for message, road in zip(messages, roads, strict=True):
            self._fire(batch, run, agenda, road)
            run.as_of = road
            batch.handle(message, run)
        if until is not None:
            self._fire(batch, run, agenda, end)
            run.as_of = end
        self._commit(batch, run)

    def pass_to(self, moment: datetime) -> None:
        self.take(until=moment)

    def sweep(self) -> None:
        """The owner's own work: bring up every profile."""
        batch = self._load((), (), keys=self.packed)
        run = Run(self.as_of, Agenda(()))
        for key in sorted(self.packed):
            batch.bring_up(key, run)
        self._commit(batch, run)

    def _fire(self, batch: SegmenterBatch, run: Run, agenda: Agenda, until: datetime) -> None:
        while (timer := agenda.pop(until)) is not None:
            run.as_of = max(run.as_of, timer.due)
            batch.fire(timer, run)

    def _load(
        self, messages: Sequence[EventRecord], timers: Sequence[Timer], keys: Mapping[str, bytes] | None = None
    ) -> SegmenterBatch:
        memo = msgspec.msgpack.decode(self.memo, type=Memo) if self.memo else NO_MEMO
        names = [memo.playbook, *(m.playbook for m in messages if isinstance(m, Activation))]
        rules = {name: self.rules[name] for name in names}
        in_play = [rules[name] for name in names]
        touched = set(keys or ()) | {m.key for m in messages if isinstance(m, Event)}
        touched |= {t.subject.rpartition("\n")[2] for t in timers}
        packed = {key: self.packed[key] for key in touched if key in self.packed}
        profiles = {key: unpack_profile(state) for key, state in packed.items()}
        rebuilt = {}
        for key, profile in profiles.items():
            ids = wanted(self.definitions[profile.definition], in_play)
            mine = sorted((row for row in self.rows if row.customer == key), key=lambda row: row[1:4])
            rebuilt[key] = history.rebuild({}, feeding(ids, in_play), mine)
        ids_ = {fingerprints.identity(m.source, m.id) for m in messages if isinstance(m, Event)}
        seen = {identity: self.seen[identity] for identity in ids_ if identity in self.seen}
        sizes = {key: len(state) for key, state in packed.items()}
        uses = Counter(m.key for m in messages if isinstance(m, Event))
        return SegmenterBatch(
            *(0, memo, rules, self.definitions, {}, sizes, seen, rebuilt), stored=dict(packed), uses=uses
        )

    def _commit(self, batch: SegmenterBatch, run: Run) -> None:
        self.packed |= {key: state for key, _, state in batch.profiles()}
        self.seen |= batch.taken
        self.rows += batch.rows()
        self.memo = batch.memo()
        self.as_of = max(self.as_of, run.as_of)
        self.emitted += run.emitted
        self.letters += run.letters
        self.spend.update(dict(batch.moved_by_spending()))
        self.processed += batch.processed
        self.deduplicated += batch.deduplicated
        for subject, due in run.agenda.changed.items():
            if due is None:
                self.timers.pop(subject, None)
            else:
                self.timers[subject] = due
