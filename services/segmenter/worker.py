"""The segmenter as the mechanics see it. Reads the stream `events`, writes `customers`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import msgspec

from services.segmenter import fingerprints, history, spans, store
from services.segmenter.backfills import invite, paced, room, why_not
from services.segmenter.batch import NO_MEMO, Backfilling, Memo, Ranking, SegmenterBatch, customer_of, decode_memo, save
from services.segmenter.definitions import Definitions
from services.segmenter.percentiles import as_record, next_night
from services.segmenter.profile import snapshot
from services.segmenter.rules import (
    NO_RULES,
    Definition,
    Rules,
    compile_rules,
    feeding,
    in_force,
    playbooks_of,
    wanted,
)
from services.segmenter.store import Changes, Counts, Known, Seen, definition_of, unpack_profile
from shared.contracts import customers
from shared.contracts.events import VERSION, Activation, Event, EventRecord
from shared.contracts.streams import CUSTOMERS, EVENTS
from shared.database.clauses import execute
from shared.language.aggregates import HISTORY
from shared.processing.playbooks import MOST_LOADED, Shelf
from shared.processing.port import Connection, Given, Lane, Outputs, Writes
from shared.processing.records import decoder
from shared.recent import Recent
from shared.telemetry import NIGHT_LATE, SEGMENTER_SWEPT

_SWEEP_PROFILES = 200
_BACKFILL_SECONDS = 1.0
_SEEN_MARGIN = timedelta(hours=2)
"""How far ahead of ours the clock of whoever received an event may be."""

_encode = msgspec.json.Encoder().encode
_decode = decoder(EVENTS, EventRecord, VERSION)


class SegmenterProcessor:
    """The segmenter, as the mechanics see it (`shared.processing.port.Processor`)."""

    service = "segmenter"
    stream = EVENTS

    def __init__(self, shelf: Shelf, housekeeping_seconds: float = 20.0) -> None:
        self._shelf = shelf
        self._housekeeping_seconds = housekeeping_seconds
        self._rules: Recent[Rules] = Recent(MOST_LOADED)
        self._definitions = Definitions()
        self._rooms: set[spans.Span] = set()
        self._swept: dict[int, tuple[bytes, datetime | None, Ranking | None]] = {}
        self._backfilled: set[tuple[int, str, str]] = set()
        self._cut_off_at: datetime | None = None
        """When this process sent cut-offs last."""

    def decode(self, key: str, value: bytes) -> EventRecord:
        record: EventRecord = _decode(key, value)
        return record

    def as_of(self, message: EventRecord) -> datetime:
        return message.received_at

    async def load(self, connection: Connection, given: Sequence[Given]) -> list[SegmenterBatch]:
        ids, since = list[tuple[int, bytes]](), store.NEVER
        received, occurred = list[datetime](), list[datetime]()
        uses: dict[int, dict[str, int]] = {}
        # Once over all of them: what thousands of events are made of is in no cache any more the next time.
        for partition, _, messages, timers in given:
            of_partition = uses[partition] = Counter(map(customer_of, timers))
            for message in messages:
                if isinstance(message, Event):
                    of_partition[message.key] = of_partition.get(message.key, 0) + 1
                    received.append(message.received_at)
                    occurred.append(message.occurred_at)
                    ids.append((partition, fingerprints.identity(message.source, message.id)))
        if received:
            await self._make_room(connection, occurred, min(received), max(received))
            since = min(received) - fingerprints.WINDOW - _SEEN_MARGIN
        keys = {(partition, key) for partition, of_partition in uses.items() for key in of_partition}
        packed, places, seen = await store.known(connection, keys, ids, since) if keys else Known({}, {}, {})
        batches = []
        for one in given:
            memo = decode_memo(one.memo) if one.memo else NO_MEMO
            playbooks = [memo.playbook, *(in_force(m) for m in one.messages if isinstance(m, Activation))]
            rules = {name: await self._rules_of(connection, name) for name in dict.fromkeys(playbooks)}
            in_play = [rules[name] for name in playbooks]
            profiles, known = packed.get(one.partition, {}), seen.get(one.partition, {})
            batch = await self._batch(
                *(connection, one.partition, memo, rules, in_play, profiles, known), uses[one.partition]
            )
            batch.places = places.get(one.partition, {})
            batches.append(batch)
        return batches

    async def provide(self, connection: Connection, batch: SegmenterBatch) -> bool:
        return False

    def save(self, batches: Sequence[SegmenterBatch]) -> Writes:
        return save(batches)

    def tick(self, as_of: datetime, after: int) -> tuple[str, bytes]:
        return CUSTOMERS, _encode(customers.Tick(as_of=as_of, after=after))

    def beside(self) -> None:
        return None

    async def attend(self, lane: Lane) -> None:
        """Bring every profile up to the playbook in force, invite customers to journeys that are backfilled, and drop
        what is too old to be kept."""
        loop = asyncio.get_running_loop()
        house_kept = 0.0
        try:
            while not lane.leaving.is_set():
                lane.woken.clear()
                if await self._sweep(lane) or await self._backfill(lane):
                    continue
                if loop.time() - house_kept >= self._housekeeping_seconds:
                    await self.keep_house(lane)
                    await self.cut_off(lane)
                    house_kept = loop.time()
                pause = _BACKFILL_SECONDS if self._backfills(lane) else self._housekeeping_seconds
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await lane.woken.wait()
        finally:
            if lane.partition == 0:
                NIGHT_LATE.set(0)  # from now on it is somebody else's to say

    async def keep_house(self, lane: Lane) -> None:
        """Say how far this partition has come; the owner of the first drops what no partition needs any more."""

        async def note_as_of(connection: Connection, out: Outputs) -> datetime | None:
            noted = Changes([], [], [], Counts(0, 0, lane.as_of))
            await execute(connection, store.changed({lane.partition: noted}).clauses)
            if lane.partition != 0:
                return None
            return await store.slowest_as_of(connection)

        slowest = await lane.transact(note_as_of)
        if slowest is None:
            return

        async def drop(connection: Connection, out: Outputs) -> bool:
            """Whether there may be more."""
            gone = await store.drop_before(connection, "seen", slowest - fingerprints.WINDOW - _SEEN_MARGIN)
            return gone + await store.drop_before(connection, "history", slowest - HISTORY) > 0

        while not lane.leaving.is_set() and await lane.transact(drop):
            pass

    async def cut_off(self, lane: Lane) -> None:
        """The owner of the first partition: each night, tell all partitions how much makes which percentile. Who takes
        over in between may say so twice, which ranks everybody anew."""
        if lane.partition != 0 or not lane.memo:
            return
        late, told = timedelta(0), self._cut_off_at
        known = self._rules.get(decode_memo(lane.memo).playbook)
        if known is not None and known.spend is None:
            NIGHT_LATE.set(0)
            return

        async def tell(connection: Connection, out: Outputs) -> datetime | None:
            nonlocal late
            memo = decode_memo(lane.memo)
            rules = await self._rules_of(connection, memo.playbook)
            last = max((at for at in (told, memo.ranking.at if memo.ranking else memo.since) if at), default=None)
            if rules.spend is None or last is None or out.as_of < (night := next_night(last, rules.zone)):
                return told
            if await store.is_sweeping(connection, memo.definition):
                late = out.as_of - night
                return told  # not all are counted, or not all have what the last night brought
            found = await store.spending(connection)
            out.emit_everywhere(EVENTS, as_record(found, rules.spend.id, out.as_of))
            return out.as_of

        self._cut_off_at = await lane.transact(tell)
        NIGHT_LATE.set(late.total_seconds())

    async def _rules_of(self, connection: Connection, playbook: str) -> Rules:
        if not playbook:
            return NO_RULES
        found = self._rules.get(playbook)
        if found is None:
            books = [await self._shelf.get(connection, content_hash) for content_hash in playbooks_of(playbook)]
            found = self._rules.keep(playbook, compile_rules(books[0], books[1:]))
        return found

    async def _make_room(
        self, connection: Connection, occurred: Sequence[datetime], earliest: datetime, latest: datetime
    ) -> None:
        """The days and months that is written to, and those that come next."""
        needed = spans.months("history", occurred, latest - HISTORY, latest)
        needed |= {spans.month("history", latest + 3 * spans.DAY)}
        needed |= {spans.day("seen", earliest), spans.day("seen", latest), spans.day("seen", latest + spans.DAY)}
        if not needed <= self._rooms:
            await store.make_room(connection, needed - self._rooms)
            self._rooms |= needed

    async def _batch(
        self,
        connection: Connection,
        partition: int,
        memo: Memo,
        rules: Mapping[str, Rules],
        in_play: Sequence[Rules],
        packed: dict[str, bytes],
        seen: dict[bytes, Seen],
        uses: dict[str, int] | None = None,
    ) -> SegmenterBatch:
        """`in_play` are the rules in force at its begin, and those of each activation in it."""
        outdated = {
            key: definition
            for key, state in packed.items()
            if (definition := definition_of(state)) != in_play[0].definition.hash or len(in_play) > 1
        }
        definitions = {one.definition.hash: one.definition for one in in_play}
        definitions |= await self._definitions.of(connection, set(outdated.values()) - definitions.keys())
        rebuilt = await self._rebuild(connection, partition, in_play, outdated, definitions)
        sizes = {key: len(state) for key, state in packed.items()}
        return SegmenterBatch(
            *(partition, memo, rules, definitions, {}, sizes, seen, rebuilt), stored=packed, uses=uses
        )

    async def _rebuild(
        self,
        connection: Connection,
        partition: int,
        in_play: Sequence[Rules],
        outdated: Mapping[str, bytes],
        definitions: Mapping[bytes, Definition],
    ) -> dict[str, dict[str, Any]]:
        """From history: the aggregates that customers lack under rules that they will be brought up to."""
        groups: dict[frozenset[str], list[str]] = {}
        for key, definition in outdated.items():
            ids = wanted(definitions[definition], in_play)
            if ids:
                groups.setdefault(ids, []).append(key)
        rebuilt: dict[str, dict[str, Any]] = {}
        for ids, keys in groups.items():
            fed_by = feeding(ids, in_play)
            async for customer, rows in store.past(connection, partition, keys, fed_by.keys()):
                rebuilt[customer] = history.rebuild({}, fed_by, rows)
        return rebuilt

    def _backfills(self, lane: Lane) -> dict[str, Backfilling]:
        """Those that are asked for, and not through as far as this process knows."""
        return {
            name: asked
            for name, asked in (decode_memo(lane.memo).backfills if lane.memo else {}).items()
            if asked.per_hour and (lane.partition, name, asked.occasion) not in self._backfilled
        }

    async def _backfill(self, lane: Lane) -> bool:
        """Invite the next customers to journeys, as many as may be by now; whether there may be more at once."""
        more = False
        for name, backfilling in self._backfills(lane).items():

            async def next_chunk(
                connection: Connection, out: Outputs, name: str = name, backfilling: Backfilling = backfilling
            ) -> bool:
                current = decode_memo(lane.memo)
                playbook = await self._shelf.get(connection, playbooks_of(current.playbook)[0])
                journey = playbook.journeys.get(name)
                if current.backfills.get(name) != backfilling or journey is None or why_not(journey) is not None:
                    return False
                if journey.status == "paused" or name in current.paused:
                    return False
                progress = await store.backfill_progress(connection, lane.partition, name, backfilling.occasion)
                progress = paced(progress, backfilling.since)
                most = room(progress, backfilling.per_hour, out.as_of)
                if not most:
                    return False
                packed = await store.profiles_after(connection, lane.partition, progress.after_key, _SWEEP_PROFILES)
                rules = await self._rules_of(connection, current.playbook)
                profiles = {key: unpack_profile(state) for key, state in packed.items()}
                if any(profile.definition != current.definition for profile in profiles.values()):
                    return False  # the sweep comes first
                invited, progress = invite(journey, profiles, progress, most)
                for key in invited:
                    customer = snapshot(profiles[key], key, rules)
                    record = customers.Invited(
                        as_of=out.as_of, customer=customer, journey=name, occasion=backfilling.occasion, v=2
                    )
                    out.emit(CUSTOMERS, key, record)
                through = not packed or progress.after_key == next(reversed(packed))
                finished = through and len(packed) < _SWEEP_PROFILES
                progress = progress._replace(finished=finished)
                await store.note_backfill(connection, lane.partition, name, backfilling.occasion, progress)
                if finished:
                    self._backfilled.add((lane.partition, name, backfilling.occasion))
                return through and not finished

            more = await lane.transact(next_chunk) or more
        return more

    async def _sweep(self, lane: Lane) -> bool:
        """Bring up the next few profiles of the partition; False when all of them are."""
        if not lane.memo:
            return False
        memo = decode_memo(lane.memo)
        if self._swept.get(lane.partition) == (memo.definition, memo.since, memo.ranking):
            return False

        async def next_chunk(connection: Connection, out: Outputs) -> bool:
            current = decode_memo(lane.memo)
            sweep = await store.sweep_of(connection, lane.partition)
            if sweep is None or sweep.finished or sweep.definition != current.definition:
                return True
            rules = await self._rules_of(connection, current.playbook)
            packed = await store.profiles_after(connection, lane.partition, sweep.after_key, _SWEEP_PROFILES)
            batch = await self._batch(
                connection, lane.partition, current, {current.playbook: rules}, [rules], packed, {}
            )
            for key in packed:
                batch.bring_up(key, out)
            await execute(connection, save([batch]).clauses)  # and no more work: no event was taken
            last = next(reversed(packed), sweep.after_key)  # in the database's order, whatever its collation
            finished = len(packed) < _SWEEP_PROFILES
            await store.note_sweep(connection, lane.partition, last, len(packed), finished)
            SEGMENTER_SWEPT.inc(len(packed))
            return finished

        if await lane.transact(next_chunk):
            self._swept[lane.partition] = memo.definition, memo.since, memo.ranking
            return False
        return True
