"""What a run has recorded, replayed in one piece, and the two compared.

The journal of a run is what its streams hold, as their readers take it: events with outcomes and consent as they came
in, activations, and the ticks in their places. Replayed by one worker of each service, in large batches and without a
fault, it has to give the same states, timers, enrollments and commands (invariant 6 of the design).

Works on a simulated run as on a real one: `read_journal` and `states` ask the log and the database of either.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import msgspec

from services.journeys.commands import EMPTY
from services.journeys.coupons import SIGNS
from services.journeys.decisions import Decided, unpack
from services.journeys.worker import JourneysProcessor
from services.mailer.worker import MailerProcessor
from services.segmenter.history import Kind
from services.segmenter.profile import Profile
from services.segmenter.rules import compile_rules
from services.segmenter.worker import SegmenterProcessor
from shared.clock import ManualClock
from shared.contracts import customers
from shared.contracts.customers import SPEND_PERCENTILE, CustomerUpdated, Tick
from shared.contracts.events import CutOffs, Event, EventRecord, Refused
from shared.contracts.messages import MessageCancelled, MessageRecord, MessageRequested
from shared.contracts.streams import CUSTOMERS, EVENTS, MESSAGES, STREAMS
from shared.database.clauses import Clause
from shared.database.engine import Database
from shared.log.port import Entry, Log, Record
from shared.processing.installation import Installation
from shared.processing.playbooks import Shelf
from shared.processing.port import Connection, Given, Lane, Outputs, Present, Processor, Writes
from shared.processing.worker import Worker
from shared.runtime import Runtime
from shared.settings import Settings
from tests.fakes.memory_log import MemoryLog

Journal = Mapping[tuple[str, int], Sequence[Record]]
"""By stream and partition, what its reader takes."""
States = Mapping[str, Sequence[Mapping[str, Any]]]
"""By table, its rows in any order."""

_CODE = re.compile(rf'"[A-Z]+-[{SIGNS}]{{8}}"'.encode())
"""Which code of a pool somebody got, and whether there was one left, is drawn and raced for."""
_ANY_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = "\0tick"
_decode_tick = msgspec.json.Decoder(Tick).decode
_decode_event = msgspec.json.Decoder(EventRecord).decode
_decode_customer = msgspec.json.Decoder(customers.CustomerRecord).decode
_decode_message = msgspec.json.Decoder(MessageRecord).decode
_decode_profile = msgspec.msgpack.Decoder(Profile).decode
_encode = msgspec.json.Encoder().encode

_TABLES: dict[str, str] = {
    "profiles": "segmenter.profiles",
    # When a new playbook's turn comes for a profile depends on when its sweep passes by.
    "history": "segmenter.history WHERE kind > 0",
    # A partition that nothing came to has a row or none.
    "counters": "segmenter.counters WHERE processed + deduplicated > 0",
    "spend": "segmenter.spend WHERE customers <> 0",
    "timers": "processing.timers WHERE service <> 'mailer'",
    "dead letters": "processing.dead_letters",
    "stories": "journeys.customers",
    "enrollments": "journeys.enrollments",
    "tasks": "journeys.tasks",
    "tallies": "journeys.tallies WHERE count <> 0",
    "messages": "mailer.messages",
    "people": "mailer.customers",
}
_NOT_COMPARED = {
    "counters": {"as_of"},
    "dead letters": {"id", "record_offset", "filed_at", "retry_asked", "trace"},
}
_COMPARED = {
    # What became of a message once it was asked for is recorded as an event, and not done again.
    "messages": {"id", "partition", "customer", "journey", "message", "topic", "priority", "expires"},
}


class Gone(NamedTuple):
    """What had been read of a partition of a stream that was deleted up to `before`. What lies below that and is found
    in the log all the same is of no account: a broker that is killed may forget where it has deleted to."""

    records: Sequence[Record]
    before: int


async def read_journal(log: Log, gone: Mapping[tuple[str, int], Gone] = MappingProxyType({})) -> Journal:
    """Everything that the log still has, after what had been read of a partition and is `gone` from it. Raises
    AssertionError where its beginning, or something within, is missing."""
    found: dict[tuple[str, int], list[Record]] = {}
    for stream in STREAMS:
        reader = log.reader(stream)
        earliest = {partition: (await log.range_of(stream, partition))[0] for partition in range(log.partitions)}
        missing = [partition for partition, offset in earliest.items() if offset and (stream, partition) not in gone]
        assert not missing, f"{stream}: the beginning of {missing} is missing"
        reader.assign(earliest)
        for partition in range(log.partitions):
            read_before = gone.get((stream, partition), Gone((), 0))
            records = list(read_before.records)
            drained = False
            while not drained:
                fetched = await reader.fetch(partition, 2000, 1.0)
                records += [record for record in fetched.records if record.offset >= read_before.before]
                drained = fetched.drained
            found[stream, partition] = taken(records)
        await reader.close()
    return found


def taken(records: Sequence[Record]) -> list[Record]:
    """What a reader takes: the next of each source, and nothing twice."""
    seen: dict[tuple[str, int, int], int] = {}
    found = []
    for record in records:
        if record.origin is not None:
            service, partition, generation, seq = record.origin
            last = seen.get((service, partition, generation), 0)
            assert seq <= last + 1, f"records are missing before {record.origin}"
            if seq <= last:
                continue
            seen[service, partition, generation] = seq
        found.append(record)
    return found


async def states(database: Database) -> States:
    async with database.connect() as connection:
        told = await connection.fetch("SELECT partition, customer, body FROM journeys.decisions ORDER BY number")
        found: dict[str, list[Mapping[str, Any]]] = {
            name: [
                {
                    column: value
                    for column, value in row.items()
                    if column not in _NOT_COMPARED.get(name, ()) and column in _COMPARED.get(name, {column})
                }
                for row in await connection.fetch(f"SELECT * FROM {table}")
            ]
            for name, table in _TABLES.items()
        }
    # However many of them one row holds: that is the batch's doing.
    decided: dict[tuple[int, str, str, str], list[Decided]] = {}
    for partition, customer, body in told:
        for one in unpack(body):
            decided.setdefault((partition, customer, one.journey, one.enrollment), []).append(one)
    found["decisions"] = [
        {"partition": partition, "customer": customer, "journey": journey, "enrollment": enrollment, "told": all_of_it}
        for (partition, customer, journey, enrollment), all_of_it in decided.items()
    ]
    return found


async def replay(
    journal: Journal,
    database: Database,
    installation: Installation,
    shelf: Shelf,
    partitions: int,
    times: Mapping[tuple[str, str], datetime] | None = None,
) -> Journal:
    """Into a database that is empty but for its tables. Returns what the services put out.

    `times`: when each event stands on the road, where clocks went apart (`times_of`); else when it was received.
    """
    beyond = ManualClock(datetime(2200, 1, 1, tzinfo=UTC))
    settings = Settings(batch_records=2000, partitions_in_flight=4)
    logs: dict[str, MemoryLog] = {}
    workers = []
    told: list[tuple[Processor, str, Callable[[int], list[Entry]]]] = [
        (_Segmenter(shelf, times or {}), EVENTS, lambda partition: _with_ticks(journal, partition)),
        (JourneysProcessor(shelf), CUSTOMERS, lambda partition: [_entry(r) for r in journal[CUSTOMERS, partition]]),
        (MailerProcessor(_NoSending(), shelf), MESSAGES, lambda p: [_entry(r) for r in journal[MESSAGES, p]]),  # type: ignore[arg-type]
    ]
    for processor, stream, entries in told:
        log = logs[processor.service] = MemoryLog(partitions)
        for partition in range(partitions):
            log.take(stream, partition, entries(partition))
        worker = Worker(Runtime(log, beyond, database, installation), processor, settings)
        await worker.start()
        workers.append(worker)
    while await _under_way(database, logs):
        await asyncio.sleep(0.1)
    for worker in workers:
        await worker.stop()
    return {
        (stream, partition): taken(logs[service].records(stream, partition))
        for service, stream in (("segmenter", CUSTOMERS), ("journeys", MESSAGES))
        for partition in range(partitions)
    }


def times_of(journal: Journal) -> dict[tuple[str, str], datetime]:
    """By source and id of each event, the time at which the segmenter put it on the road: never ahead of its own clock,
    which nobody recorded."""
    return {
        (said.event.source, said.event.id): said.as_of
        for (stream, _), records in journal.items()
        if stream == CUSTOMERS
        for said in map(_decode_customer, [record.value for record in records])
        if isinstance(said, CustomerUpdated) and said.event is not None and said.cause == "event"
    }


class Beside(NamedTuple):
    """What happened beside the records, and so has no place among them: whom a pause holds is looked for when it ends,
    and who is to be taken along to another version when that is asked for; and a playbook that defines stages or
    segments anew, or another night's cut-offs, come to each profile when a sweep passes by."""

    held: frozenset[str]
    """The journeys that some activation of the journal pauses, or takes those inside along in."""
    redefined: bool
    ranked: bool
    """There were cut-offs. What comes of them comes before the next event of a customer, which therefore tells of it
    wherever the sweep had come by then."""
    early: bool
    """Somebody was there before any playbook was: what the first makes of them comes about when its sweep passes by."""


async def beside(journal: Journal, database: Database, shelf: Shelf) -> Beside:
    held: set[str] = set()
    definitions = set()
    ranked = early = False
    async with database.connect() as connection:
        for (stream, _), records in journal.items():
            ranked |= stream == EVENTS and any(isinstance(_decode_event(one.value), CutOffs) for one in records)
            told = map(_decode_customer, [record.value for record in records] if stream == CUSTOMERS else [])
            active = False
            for said in told:
                active |= isinstance(said, customers.Activation)
                early |= isinstance(said, CustomerUpdated) and not active
                if isinstance(said, customers.Activation):
                    playbook = await shelf.get(connection, said.playbook)
                    held |= {*playbook.paused, *said.paused, *said.moves}
                    definitions.add(compile_rules(playbook).definition.hash)
    return Beside(frozenset(held), len(definitions) > 1, ranked, early)


def differences(
    journal: Journal,
    recorded: States,
    again: Journal,
    replayed: States,
    beside: Beside,
    *,
    most: int = 3,
) -> list[str]:
    """Where the replay differs, a line each; at most so many of a kind."""
    found: list[str] = []
    for table, rows in recorded.items():
        before = Counter(_comparable(table, row, beside) for row in rows)
        after = Counter(_comparable(table, row, beside) for row in replayed[table])
        before.pop(None, None)
        after.pop(None, None)
        found += [f"{table}: recorded only: {row}" for row in list(before - after)[:most]]
        found += [f"{table}: replayed only: {row}" for row in list(after - before)[:most]]
    for stream, partition in again:
        ours = _said(stream, journal[stream, partition], beside)
        theirs = _said(stream, again[stream, partition], beside)
        for place in range(max(len(ours), len(theirs))):
            one = ours[place] if place < len(ours) else None
            other = theirs[place] if place < len(theirs) else None
            if one != other:
                found.append(f"{stream}[{partition}]: number {place} was {one!r}, and is {other!r} when replayed")
                break
    return found


def _said(stream: str, records: Sequence[Record], beside: Beside) -> list[Any]:
    """What a stream says in its order, but for what came about beside it."""
    values = [record.value for record in records]
    if stream == CUSTOMERS:
        causes = ("event",) if beside.redefined or beside.ranked else ("event", "time")
        said = [(value, _decode_customer(value)) for value in values]
        kept = [(v, one) for v, one in said if not (isinstance(one, CustomerUpdated) and one.cause not in causes)]
        if not beside.redefined:
            return [value for value, _ in kept]
        return [(one.as_of, one.event, one.derived) for _, one in kept if isinstance(one, CustomerUpdated)]
    values = [_CODE.sub(b"null", value) for value in values]
    if beside.redefined:
        values = [_untagged(value) for value in values]
    if not beside.held:
        return values
    # At the end, by their ids, what was held; without the ticks that are not needed where something is said.
    in_order, held, ids = [], [], set()
    for value in values:
        one = _decode_message(value)
        if isinstance(one, MessageRequested) and one.journey in beside.held:
            ids.add(one.id)
            one = msgspec.structs.replace(one, as_of=one.due)
            held.append(_encode(one))
        elif isinstance(one, MessageCancelled) and one.id in ids:
            held.append(_encode(msgspec.structs.replace(one, as_of=_ANY_TIME)))
        elif not isinstance(one, Tick):
            in_order.append(value)
    return in_order + sorted(held)


def _untagged(value: bytes) -> bytes:
    """A message without the stage and the segments of its customer, who may have others once a sweep has passed by."""
    one = _decode_message(value)
    if not isinstance(one, MessageRequested) or "customer" not in one.data:
        return value
    customer = {**one.data["customer"], "stage": None, "segments": None}
    return _encode(msgspec.structs.replace(one, data={**one.data, "customer": customer}))


def _comparable(table: str, row: Mapping[str, Any], beside: Beside) -> str | None:
    """None for what has no place among the records."""
    shown = dict(row)
    if table == "profiles":
        profile = _decode_profile(row["state"])
        if beside.redefined:
            profile.flips, profile.timer = {}, None
        profile.ranked_at = None  # two nights that a sweep has yet to come by after are one to it
        # Packed again, so that what it keeps packed is compared as what it is.
        shown["state"] = msgspec.msgpack.decode(msgspec.msgpack.encode(profile))
    elif table == "stories":
        shown["story"] = msgspec.msgpack.decode(row["story"])
    elif table == "history" and beside.redefined:
        if row["kind"] in (Kind.TIME, Kind.DATE):
            return None
        del shown["changes"]
    elif (
        (table == "history" and row["kind"] == Kind.TIME and row["name"] == SPEND_PERCENTILE)
        or (table == "decisions" and row["journey"] in beside.held)
        or (table == "timers" and beside.redefined and row["service"] == "segmenter")
    ):
        return None
    text = repr(_sorted(shown)).replace(f"word={EMPTY!r}", "word=''")
    return _CODE.sub(b"null", text.encode()).decode()


def _sorted(value: Any) -> Any:
    """The order of names in an object says nothing."""
    if isinstance(value, dict):
        return [(name, _sorted(value[name])) for name in sorted(value, key=repr)]
    return [_sorted(one) for one in value] if isinstance(value, list | tuple) else value


def _with_ticks(journal: Journal, partition: int) -> list[Entry]:
    """The events of a partition, with the ticks in the places at which the segmenter gave them out."""
    ticks = [
        (said.after, record)
        for record in journal[CUSTOMERS, partition]
        if isinstance(said := _decode_customer(record.value), Tick)
    ]
    ticks.reverse()
    entries = []
    for record in journal[EVENTS, partition]:
        while ticks and ticks[-1][0] <= record.offset:
            entries.append(Entry(_TICK, ticks.pop()[1].value))
        entries.append(_entry(record))
    return [*entries, *(Entry(_TICK, record.value) for _, record in reversed(ticks))]


def _entry(record: Record) -> Entry:
    return Entry(record.key, record.value, record.origin, record.trace)


async def _under_way(database: Database, logs: Mapping[str, MemoryLog]) -> bool:
    streams = {"segmenter": EVENTS, "journeys": CUSTOMERS, "mailer": MESSAGES}
    async with database.connect() as connection:
        rows = await connection.fetch("SELECT service, partition, next_offset FROM processing.partitions")
        left = await connection.fetchval(
            "SELECT (SELECT count(*) FROM processing.outbox)"
            " + (SELECT count(*) FROM segmenter.sweeps WHERE NOT finished)"
        )
    ends = {service: await log.ends(streams[service]) for service, log in logs.items()}
    return bool(left) or any(offset < ends[service][partition] for service, partition, offset in rows)


class _Segmenter(SegmenterProcessor):
    """Takes the ticks of the journal as they come, and reads no clock."""

    def __init__(self, shelf: Shelf, times: Mapping[tuple[str, str], datetime]) -> None:
        super().__init__(shelf)
        self._times = times

    def decode(self, key: str, value: bytes) -> Any:
        return _decode_tick(value) if key == _TICK else super().decode(key, value)

    def as_of(self, message: Any) -> datetime:
        if isinstance(message, Tick):
            return message.as_of
        if self._times and isinstance(message, (Event, Refused)):
            # What was told of nowhere, since it was refused or buried, moves nothing on that another does not.
            named = (message.source, message.id) if isinstance(message, Event) else ("", "")
            return self._times.get(named, _ANY_TIME)
        return super().as_of(message)

    async def load(self, connection: Connection, given: Sequence[Given]) -> Any:
        events = [one._replace(messages=[m for m in one.messages if not isinstance(m, Tick)]) for one in given]
        return [_Batch(batch) for batch in await super().load(connection, events)]

    def save(self, batches: Sequence[Any]) -> Writes:
        return super().save([batch.of for batch in batches])

    def tick(self, as_of: datetime, after: int) -> Any:
        return None

    async def cut_off(self, lane: Lane) -> None:
        """Those of the journal come as they came."""


class _Batch:
    def __init__(self, batch: Any) -> None:
        self.fire, self.memo, self.nothing_to_save = batch.fire, batch.memo, batch.nothing_to_save
        self.of = batch

    def handle(self, message: Any, out: Outputs) -> None:
        if isinstance(message, Tick):
            out.emit_here(CUSTOMERS, "", _encode(message))
        else:
            self.of.handle(message, out)


class _NoSending:
    """What was handed over is recorded, and not done again."""

    channel = "email"

    def look(self, partition: int) -> None:
        return

    def sitting(self) -> Self:
        return self

    async def work(self, connection: Connection, present: Sequence[Present]) -> Sequence[Clause]:
        return ()

    def committed(self) -> None:
        return

    def failed(self) -> None:
        return

    async def attend(self, lane: Lane) -> None:
        return
