"""What the segmenter keeps in PostgreSQL: the same as in memory, quick from the empty table on, and not for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY
from segmenter_world import Road, Run, activation, at, birthday, event, identify, playbook

from services.segmenter import spans, store
from services.segmenter.fingerprints import identity
from services.segmenter.history import Kind
from services.segmenter.worker import SegmenterProcessor
from shared.contracts.events import CutOffs, EventRecord
from shared.database.clauses import execute
from shared.database.engine import Database
from shared.errors import Unavailable
from shared.language.aggregates import SPEND
from shared.language.playbook import Playbook
from shared.processing.agenda import Agenda
from shared.processing.port import Connection, Given, Outputs, Timer

USUAL = playbook(
    segments={"vip": 'sum("Order Completed", "total", within=20d) >= 100', "nordic": 'traits.country == "NO"'},
    dates={"birthday": birthday()},
    carts="derived",
)
EDITED = playbook(
    segments={"vip": 'sum("Order Completed", "total", within=20d) >= 40', "lookers": 'count("Page Viewed") >= 3'},
    carts="derived",
)


RANKING = playbook(ranks=True, timezone="Europe/Oslo")


class Shelf:
    async def get(self, connection: Connection, content_hash: str) -> Playbook:
        return {one.hash: one for one in (USUAL, EDITED, RANKING)}[content_hash]


class Owner:
    """One partition on a real database, played as the mechanics would; also the lane of its background work."""

    def __init__(self, database: Database, partition: int = 0) -> None:
        self.database = database
        self.partition = partition
        self.processor = SegmenterProcessor(Shelf())
        self.memo = b""
        self.as_of = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
        self.timers: dict[tuple[str, str], datetime] = {}
        self.emitted: list[bytes] = []
        self.leaving = asyncio.Event()
        self.woken = asyncio.Event()

    async def take(self, messages: Sequence[EventRecord]) -> None:
        end = max([self.as_of, *(message.received_at for message in messages)])
        due = [Timer(when, *subject) for subject, when in self.timers.items() if when <= end]
        async with self.database.connect() as connection:
            given = Given(self.partition, self.memo, messages, due)
            [batch] = await self.processor.load(connection, [given])
        agenda = Agenda(due)
        run = Run(self.as_of, agenda)
        for message in messages:
            road = max(run.as_of, message.received_at)
            while (timer := agenda.pop(road)) is not None:
                run.as_of = max(run.as_of, timer.due)
                batch.fire(timer, run)
            run.as_of = road
            batch.handle(message, run)
        async with self.database.transaction() as connection:
            clauses, work = self.processor.save([batch])
            await execute(connection, clauses)
            if work is not None:
                await work(connection)
        self.memo = batch.memo()
        self._keep(run)

    async def transact(self, work: Callable[[Connection, Outputs], Awaitable[Any]]) -> Any:
        run = Run(self.as_of, Agenda(()))
        async with self.database.transaction() as connection:
            result = await work(connection, run)
        self._keep(run)
        return result

    def _keep(self, run: Run) -> None:
        self.as_of = run.as_of
        self.emitted += run.emitted
        for subject, due in run.agenda.changed.items():
            if due is None:
                self.timers.pop(subject, None)
            else:
                self.timers[subject] = due


def story(events: int, seed: int) -> list[EventRecord]:
    """A month of five customers, with repetitions, late events and a change of the playbook in the middle."""
    chance = random.Random(seed)
    told: list[EventRecord] = [activation(USUAL, at())]
    for number in range(events):
        now = at(hours=number * 720 / events)
        late = now - timedelta(days=chance.choice([0, 0, 0, 1, 40]))
        key = f"c{chance.randrange(5)}"
        told.append(
            chance.choice(
                [
                    event("Order Completed", late, key=key, id=f"e{number}", received=now, total=30, currency="EUR"),
                    event("Product Added", late, key=key, id=f"e{number}", received=now, product_id="lamp", price=5),
                    event("Page Viewed", late, key=key, id=f"e{number}", received=now),
                    identify(late, key=key, id=f"e{number}", received=now, country="NO", birthday="1990-03-20"),
                    *(event("Page Viewed", now, key=key, id=f"e{number - back}") for back in (1, 2)),
                ]
            )
        )
        if number == events // 2:
            told.append(activation(EDITED, now))
    return told


async def test_database_and_memory_agree_however_the_road_is_cut(database: Database) -> None:
    told = story(200, seed=7)
    road = Road()
    road.rules |= Road(USUAL, EDITED).rules
    road.definitions |= {rules.definition.hash: rules.definition for rules in road.rules.values()}
    for one in told:
        road.take(one)
    owner = Owner(database)
    chance = random.Random(1)
    rest = list(told)
    while rest:
        size = chance.choice([1, 3, 20, 70])
        await owner.take(rest[:size])
        rest = rest[size:]
        if chance.random() < 0.3:
            # Another process takes over: nothing that was only in memory is needed.
            owner.processor = SegmenterProcessor(Shelf())
    assert owner.emitted == road.emitted
    assert owner.timers == road.timers
    assert owner.memo == road.memo
    async with database.connect() as connection:
        known = await store.known(connection, [(0, key) for key in road.packed])
        assert known._replace(places={}) == ({0: road.packed}, {}, {})
        kept = await connection.fetch("SELECT customer, occurred_at, kind, id, source, name, body, changes"
                                      " FROM segmenter.history")  # fmt: skip
        assert sorted(tuple(row)[:7] for row in kept) == sorted(row[:7] for row in road.rows)
        assert await store.events_counted(connection) == (road.processed, road.deduplicated)
        assert await store.not_in_history(connection, [row.id for row in road.rows if row.kind == Kind.EVENT]) == []


async def test_much_at_once_leaves_what_little_by_little_would(database: Database) -> None:
    told = story(1800, seed=11)
    little, much = Owner(database, 0), Owner(database, 1)
    for owner, size in ((little, 90), (much, 900)):
        for first in range(0, len(told), size):
            await owner.take(told[first : first + size])
    assert (much.emitted, much.timers, much.memo) == (little.emitted, little.timers, little.memo)
    async with database.connect() as connection:
        for what in (
            "key, stage, state FROM segmenter.profiles",
            "customer, occurred_at, kind, id, source, name, body, changes FROM segmenter.history",
            "id, content, seen_at FROM segmenter.seen",
            "processed, deduplicated, as_of FROM segmenter.counters",
        ):
            one, other = [
                sorted(await connection.fetch(f"SELECT {what} WHERE partition = $1", partition), key=repr)
                for partition in (0, 1)
            ]
            assert one
            assert one == other


async def test_profiles_that_do_not_stand_where_they_were_read_are_not_written(database: Database) -> None:
    owner = Owner(database)
    many = [event("Page Viewed", at(), key=f"c{number}", id=f"e{number}") for number in range(600)]
    again = [event("Page Viewed", at(1), key=f"c{number}", id=f"f{number}") for number in range(600)]
    await owner.take([activation(USUAL, at()), *many])
    given = Given(0, owner.memo, again, [])
    async with database.connect() as connection:
        [batch] = await owner.processor.load(connection, [given])
        run = Run(at(1), Agenda(()))
        for message in again:
            batch.handle(message, run)
        await connection.execute("DELETE FROM segmenter.profiles WHERE key = 'c7'")
        await connection.execute("VACUUM FULL segmenter.profiles")
    _, work = owner.processor.save([batch])
    assert work is not None
    async with database.connect() as connection:
        with pytest.raises(Unavailable, match="not all stand where they were read"):
            await work(connection)
    await owner.take(again)
    async with database.connect() as connection:
        assert await store.events_counted(connection) == (1200, 0)
        assert await connection.fetchval("SELECT count(*) FROM segmenter.profiles") == 600


async def test_load_reads_by_keys_though_its_plans_were_made_over_empty_tables(database: Database) -> None:
    owner = Owner(database)
    await owner.take([activation(USUAL, at())])
    for number in range(8):
        await owner.take([event("Page Viewed", at(minutes=number), key=f"early{number}")])
    async with database.connect() as connection:
        await connection.execute(
            "INSERT INTO segmenter.profiles SELECT 0, 'late' || n, 'attract', '\\x00' FROM generate_series(1, 30000) n"
        )
        await connection.execute(
            "INSERT INTO segmenter.seen SELECT $1, n, 0, sha256(n::text::bytea) FROM generate_series(1, 30000) n", at()
        )
    before = await _rows_scanned(database)
    for number in range(8):
        await owner.take([event("Page Viewed", at(hours=1), key=f"early{number}")])
    assert await _rows_scanned(database) - before < 30_000


async def test_an_event_is_known_in_its_own_partition_and_no_other(database: Database) -> None:
    here, there = Owner(database, 0), Owner(database, 1)
    await here.take([event("Page Viewed", at(), id="e1"), event("Page Viewed", at(), id="e2")])
    await there.take([event("Page Viewed", at(), id="e3")])
    ids = {name: identity("shop", name) for name in ("e1", "e2", "e3")}
    asked = [(0, ids["e1"]), (0, ids["e3"]), (1, ids["e2"]), (1, ids["e3"])]
    async with database.connect() as connection:
        seen = (await store.known(connection, [], asked, at(-1))).seen
        assert {partition: set(taken) for partition, taken in seen.items()} == {0: {ids["e1"]}, 1: {ids["e3"]}}
        assert (await store.known(connection, [], asked, at(1))).seen == {}


async def _rows_scanned(database: Database) -> int:
    async with database.connect() as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        await connection.execute("SELECT pg_stat_clear_snapshot()")
        found: int = await connection.fetchval(
            "SELECT sum(seq_tup_read)::bigint FROM pg_stat_user_tables WHERE schemaname = 'segmenter'"
            " AND (relname = 'profiles' OR relname LIKE 'seen%')"
        )
    return found


async def test_day_takes_over_what_the_default_partition_had_of_it(database: Database) -> None:
    owner = Owner(database)
    async with database.transaction() as connection:
        await execute(connection, store.changed({0: store.Changes([], [(b"x" * 16, 1, at(5))], [], None)}).clauses)
    await owner.take([event("Page Viewed", at(5))])
    async with database.connect() as connection:
        assert await connection.fetchval("SELECT count(*) FROM segmenter.seen_default") == 0
        assert await connection.fetchval("SELECT count(*) FROM segmenter.seen_20260307") == 2


async def test_two_owners_make_the_same_day_at_the_same_time(database: Database) -> None:
    owners = [Owner(database, partition) for partition in range(4)]
    await asyncio.gather(*(owner.take([event("Page Viewed", at(), key=f"c{owner.partition}")]) for owner in owners))
    async with database.connect() as connection:
        assert await connection.fetchval("SELECT count(*) FROM segmenter.seen_20260302") == 4


async def test_duplicate_is_known_over_midnight_and_forgotten_after_a_day(database: Database) -> None:
    owner = Owner(database)
    for moment in (at(hours=11), at(hours=13), at(hours=34.9)):
        owner.processor = SegmenterProcessor(Shelf())
        await owner.take([event("Page Viewed", moment, id="e1")])
    async with database.connect() as connection:
        assert await store.events_counted(connection) == (1, 2)
    await owner.take([event("Page Viewed", at(hours=35), id="e1")])
    async with database.connect() as connection:
        assert await store.events_counted(connection) == (2, 2)


async def test_what_no_partition_needs_any_more_is_dropped(database: Database) -> None:
    ahead, behind = Owner(database, 0), Owner(database, 1)
    await ahead.take([event("Page Viewed", at(), id="e1"), event("Page Viewed", at(-3000), received=at(), id="e2")])
    await behind.take([event("Page Viewed", at(), key="bob")])
    await ahead.take([event("Page Viewed", at(3), id="e3")])
    assert await _tables(database) >= {"seen_20260302", "seen_20260305", "history_202603"}

    await ahead.processor.keep_house(ahead)
    assert "seen_20260302" in await _tables(database), "the other partition has not come so far"
    await behind.take([event("Page Viewed", at(3), key="bob")])
    await behind.processor.keep_house(behind)
    await ahead.processor.keep_house(ahead)
    assert "seen_20260302" not in await _tables(database)
    assert await _tables(database) >= {"seen_20260305", "history_202603"}
    async with database.connect() as connection:
        assert await connection.fetchval("SELECT count(*) FROM segmenter.history_default") == 0

    await ahead.take([event("Page Viewed", at(800))])
    await behind.take([event("Page Viewed", at(800), key="bob")])
    await ahead.processor.keep_house(ahead)
    assert "history_202603" not in await _tables(database)


async def test_each_night_the_owner_of_the_first_partition_tells_what_makes_which_percentile(
    database: Database,
) -> None:
    first, second = Owner(database, 0), Owner(database, 1)
    for owner in (first, second):
        await owner.take([activation(RANKING, at())])
    await first.take([event("Order Completed", at(), total=100, currency="EUR")])
    await second.take([event("Order Completed", at(), key="bob", total=30, currency="EUR")])
    await second.take([event("Order Completed", at(), key="bob", total=20, currency="EUR")])

    async def told_by(moment: datetime) -> list[CutOffs]:
        await first.take([event("Page Viewed", moment)])
        first.emitted.clear()
        for owner in (second, first):
            await owner.processor.cut_off(owner)
        assert not any(b"cut-offs" in value for value in second.emitted)
        return [msgspec.json.decode(value, type=CutOffs) for value in first.emitted]

    async def swept() -> None:
        async with database.transaction() as connection:
            for partition in (0, 1):
                await store.note_sweep(connection, partition, "", 0, True)

    midnight = at(hours=11)  # in Oslo
    await swept()
    assert await told_by(midnight - timedelta(minutes=1)) == []
    await first.take([activation(USUAL, midnight), activation(RANKING, midnight)])
    assert await told_by(midnight) == [], "that is not the night after the playbook came into force"
    await swept()
    assert await told_by(midnight + timedelta(hours=23)) == [], "the next midnight is the first"
    [told] = await told_by(midnight + timedelta(days=1))
    assert (told.metric, told.customers, told.amounts) == (SPEND.id, 2, (Decimal(100),) * 50)
    assert await told_by(midnight + timedelta(days=1, hours=1)) == [], "this night's are told"

    for owner in (first, second):
        await owner.take([told])
    first.processor = SegmenterProcessor(Shelf())
    later = midnight + timedelta(days=2, hours=3)
    assert await told_by(later) == [], "not everybody has what the last night brought"
    assert REGISTRY.get_sample_value("rapport_segmenter_night_late_seconds") == 3 * 3600
    await swept()
    assert len(await told_by(later)) == 1
    assert REGISTRY.get_sample_value("rapport_segmenter_night_late_seconds") == 0


async def _tables(database: Database) -> set[str]:
    async with database.connect() as connection:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'segmenter'")
    return {row[0] for row in rows}


def test_spans_of_days_and_months() -> None:
    assert spans.day("seen", at()).name == "seen_20260302"
    assert spans.month("history", at(300)).name == "history_202612"
    assert spans.month("history", at(300)).end == datetime.fromisoformat("2027-01-01T00:00:00+00:00")
    kept = spans.months("history", [at(-9000), at(-40), at()], since=at(-731), until=at())
    assert {span.name for span in kept} == {"history_202601", "history_202603"}
