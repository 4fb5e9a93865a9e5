"""The mechanics with the smallest of services: what is taken, what is fenced, what is set aside."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from conftest_processing import PARTITIONS, House
from fakes.memory_log import MemoryLog
from patience import until
from prometheus_client import REGISTRY
from tally import START, Said, Tally, counts, said
from wire import Wire

from shared.contracts.streams import partition_of
from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database, is_transient
from shared.errors import Unavailable
from shared.log.port import Origin, Record
from shared.processing import dead_letters, partitions, process, store
from shared.processing.port import Connection, Fenced, Lane, NewerContract, Outputs
from shared.processing.worker import Worker

_HALTED = ("rapport_processing_partitions_halted", {"service": "tally"})

_WAITING_FOR_TIMERS = """
    SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
     WHERE NOT granted AND d.datname = current_database() AND relation = 'processing.timers'::regclass"""


async def test_each_record_is_counted_once_and_its_output_follows_it(house: House) -> None:
    await house.post("ann", *[said("ann", n) for n in range(5)])
    await house.worker(Tally())
    await until(lambda: _counted(house, {"ann": 5}))
    assert await house.output("ann") == [b"ann %d" % n for n in range(1, 6)]


async def test_what_one_owner_says_to_all_comes_to_each_partition(house: House) -> None:
    worker = await house.worker(Tally())

    async def owned() -> Lane | None:
        return worker.lane(0)

    async def tell(connection: Connection, out: Outputs) -> None:
        out.emit_everywhere("customers", said("all"))

    lane = await until(owned)
    await lane.transact(tell)
    for partition in range(PARTITIONS):

        async def heard(partition: int = partition) -> list[Record]:
            return await house.records("customers", partition)

        told = await until(heard)
        assert {(record.value, record.origin) for record in told} == {
            (said("all"), Origin("tally", 0, house.installation.generation, 1))
        }


async def test_a_backlog_is_taken_in_large_batches(house: House) -> None:
    await house.post("ann", *[said("ann", n) for n in range(1000)])
    tally = Tally()
    await house.worker(tally, batch_records=400)
    await until(lambda: _counted(house, {"ann": 1000}))
    assert max(tally.batches) == 400
    assert len([size for size in tally.batches if size]) <= 4


async def test_a_timer_fires_before_the_record_that_reaches_its_time(house: House) -> None:
    await house.post("ann", said("ann", 0, remind=60), said("ann", 30), said("ann", 60), said("ann", 90))
    await house.worker(Tally())
    await until(lambda: _counted(house, {"ann": 4}))
    assert await house.output("ann") == [b"ann 1", b"ann 2", b"ann reminded at 60", b"ann 3", b"ann 4"]


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 1000])
async def test_batching_does_not_change_what_is_said(house: House, batch: int) -> None:
    posted = [said("ann", n, remind=n % 4) for n in range(40)]
    await house.post("ann", *posted)
    await house.worker(Tally(), batch_records=batch)
    await until(lambda: _counted(house, {"ann": 40}))
    expected: list[bytes] = []
    due: int | None = None
    for n in range(40):
        if due is not None and due <= n:
            expected.append(b"ann reminded at %d" % due)
        expected.append(b"ann %d" % (n + 1))
        due = n + n % 4
        # A reminder set for now fires before the next record.
    output = await house.output("ann")
    assert [line for line in output if b"reminded" not in line] == [
        line for line in expected if b"reminded" not in line
    ]
    assert output[: len(expected)] == expected


async def test_a_record_that_cannot_be_handled_is_set_aside_and_the_partition_flows_on(house: House) -> None:
    await house.post(
        "ann",
        said("ann"),
        said("ann", bad="poison"),
        b"no json",
        said("ann", bad="defect"),
        said("ann", bad="save"),
        said("ann"),
    )
    await house.worker(Tally())
    await until(lambda: _counted(house, {"ann": 2}))
    async with house.database.connect() as connection:
        rows = await connection.fetch("SELECT record_offset, code FROM processing.dead_letters ORDER BY id")
    assert [row["record_offset"] for row in rows] == [1, 2, 3, 4]
    assert await house.output("ann") == [b"ann 1", b"ann 2"]


async def test_a_timer_that_cannot_fire_is_set_aside(house: House) -> None:
    await house.post("ann", said("ann", 0, bad="timer"), said("ann", 5), said("ann", 6))
    await house.worker(Tally())
    await until(lambda: _counted(house, {"ann": 3}))
    async with house.database.connect() as connection:
        row = await connection.fetchrow("SELECT stream, key, message FROM processing.dead_letters")
    assert row is not None
    assert (row["stream"], row["key"]) == ("timers", "ann")


async def test_a_dead_letter_is_retried_by_the_owner(house: House) -> None:
    await house.post("ann", b"no json")
    await house.worker(Tally())
    async with house.database.connect() as connection:
        await until(lambda: connection.fetchval("SELECT count(*) FROM processing.dead_letters"))
        await connection.execute("UPDATE processing.dead_letters SET body = $1, retry_asked = true", said("ann"))
        await until(lambda: _counted(house, {"ann": 1}))
        assert await connection.fetchval("SELECT count(*) FROM processing.dead_letters") == 0


async def test_many_failures_in_a_row_halt_the_partition(house: House) -> None:
    await house.post("ann", *[said("ann", bad="defect") for _ in range(30)], said("ann"))
    worker = await house.worker(Tally())

    async def stands_still() -> bool:
        return any("stands still" in line for line in await worker.ready())

    await until(stands_still)
    assert await counts(house.database) == {}


class Fallible(Tally):
    """A release that can process nothing, until it is mended."""

    def __init__(self) -> None:
        super().__init__()
        self.bad = True

    def decode(self, key: str, value: bytes) -> Said:
        if self.bad:
            raise ZeroDivisionError("a defect")
        return super().decode(key, value)


async def test_a_bad_release_sets_aside_no_more_at_each_start_and_all_is_got_back(house: House) -> None:
    await house.post("ann", *[said("ann", n) for n in range(40)])
    release = Fallible()
    for _ in range(3):
        worker = await house.worker(release)

        async def stands_still(worker: Worker = worker) -> bool:
            return any("stands still" in line for line in await worker.ready())

        await until(stands_still)
        await worker.stop()
        async with house.database.connect() as connection:
            assert await connection.fetchval("SELECT count(*) FROM processing.dead_letters") == 19
    release.bad = False
    await house.worker(release)
    await until(lambda: _counted(house, {"ann": 21}))
    async with house.database.connect() as connection:
        assert await dead_letters.ask_retry_of_all(connection, "tally", None) == 19
    await until(lambda: _counted(house, {"ann": 40}))


async def test_what_halts_a_partition_is_told_in_whole_sentences(house: House) -> None:
    await house.post("ann", *[said("ann", bad="poison")] * 20)
    worker = await house.worker(Tally())

    async def told() -> list[str]:
        return [line for line in await worker.ready() if "stands still" in line]

    [why] = await until(told)
    assert "the last with: this cannot be handled. Start a release" in why


async def test_a_partition_that_a_person_resumes_is_tried_again_where_it_stands(house: House) -> None:
    await house.post("ann", *[said("ann", n) for n in range(40)])
    release = Fallible()
    worker = await house.worker(release)

    async def stands_still() -> bool:
        return any("stands still" in line for line in await worker.ready())

    await until(stands_still)
    release.bad = False
    async with house.database.connect() as connection:
        await partitions.resume(connection, "tally", partition_of("ann", 4))
    await until(lambda: _counted(house, {"ann": 21}))
    assert await worker.ready() == []


class OldRelease(Tally):
    """Too old for any record; it leaves them to a newer release."""

    def decode(self, key: str, value: bytes) -> Said:
        raise NewerContract("version 99 needs a newer release.")


async def test_a_partition_that_one_worker_avoids_is_taken_by_another_at_its_quota(house: House) -> None:
    await house.worker(OldRelease(), expiry_seconds=1.0)
    newer = await house.worker(Tally(), expiry_seconds=1.0)
    await until(lambda: _owns(newer, 2))
    for key in "abcdefgh":
        await house.post(key, said(key))
    await until(lambda: _counted(house, dict.fromkeys("abcdefgh", 1)))


async def test_a_partition_that_nobody_can_go_on_with_stands_still_until_somebody_can(house: House) -> None:
    await house.post("ann", said("ann"))
    worker = await house.worker(OldRelease(), expiry_seconds=1.0)
    why = f"tally[{partition_of('ann', 4)}] stands still: version 99 needs a newer release."

    async def stands_still() -> bool:
        return await worker.ready() == [why]

    await until(stands_still)
    assert REGISTRY.get_sample_value(*_HALTED) == 1
    await house.worker(Tally(), expiry_seconds=1.0)
    await until(lambda: _counted(house, {"ann": 1}))

    async def nothing_stands_still() -> bool:
        return not await worker.ready() and REGISTRY.get_sample_value(*_HALTED) == 0

    await until(nothing_stands_still)


async def test_a_successor_does_not_wait_for_the_heartbeat_of_a_process_that_is_gone(house: House) -> None:
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = process._name(ended.pid)
    assert name
    dead, living = uuid4(), uuid4()
    async with house.database.connect() as connection:
        await store.make_partitions(connection, "tally", 4)
        await store.beat(connection, "tally", dead, "here", name)
        await store.beat(connection, "tally", living, "elsewhere", "another/machine/1/2")
        await connection.execute(
            "UPDATE processing.partitions SET owner = CASE WHEN partition < 2 THEN $1::uuid ELSE $2::uuid END",
            dead,
            living,
        )
    assert not process.is_gone(name)
    ended.communicate(b"\n")
    assert process.is_gone(name)
    worker = await house.worker(Tally(), expiry_seconds=600)
    assert worker.owned == {0, 1}


async def test_workers_share_the_partitions_and_a_leaver_hands_over(house: House) -> None:
    first = await house.worker(Tally())
    assert len(first.owned) == 4
    second = await house.worker(Tally())

    async def shared() -> bool:
        return len(first.owned) == len(second.owned) == 2 and not first.owned & second.owned

    await until(shared)
    await house.post("ann", said("ann"))
    await first.stop()

    async def all_his() -> bool:
        return len(second.owned) == 4

    await until(all_his)
    await house.post("ann", said("ann"))
    await until(lambda: _counted(house, {"ann": 2}))


async def test_an_owner_whose_partition_was_taken_writes_nothing(house: House) -> None:
    worker = await house.worker(Tally(), heartbeat_seconds=60)
    partition = partition_of("ann", 4)
    lane = worker.lane(partition)
    assert lane is not None
    async with house.database.connect() as connection:
        await connection.execute("UPDATE processing.partitions SET epoch = epoch + 1")

        async def work(connection: Connection, out: Outputs) -> None:
            out.emit("customers", "ann", b"never")
            await connection.execute("INSERT INTO tally.counts VALUES ('ann', 99)")

        with pytest.raises(Fenced):
            await lane.transact(work)
    assert await counts(house.database) == {}
    assert await house.output("ann") == []


async def test_a_cut_connection_during_commit_neither_loses_nor_doubles(house: House) -> None:
    await house.post("ann", *[said("ann", n) for n in range(300)])
    await house.worker(Tally(), batch_records=3)
    # A connection of another pool, which is not cut itself.
    cutter = await asyncpg.connect(house.url)
    try:
        for _ in range(15):
            await cutter.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database() AND random() < 0.5"
            )
            await asyncio.sleep(0.05)
    finally:
        await cutter.close()
    await until(lambda: _counted(house, {"ann": 300}))
    assert await house.output("ann") == [b"ann %d" % n for n in range(1, 301)]


async def test_the_leader_ticks_where_its_stream_is_drained_and_timers_fire_with_it(house: House) -> None:
    await house.worker(Tally(leads=True))
    await house.post("ann", said("ann", 0, remind=60))
    await until(lambda: _counted(house, {"ann": 1}))
    house.clock.advance(timedelta(seconds=90))

    async def ticked() -> bool:
        return await house.output("ann") == [b"ann 1", b"ann reminded at 60", b"tick"]

    await until(ticked)
    async with house.database.connect() as connection:
        assert await connection.fetchval("SELECT count(*) FROM processing.timers") == 0
        reached = await connection.fetchval("SELECT max(as_of) FROM processing.partitions")
    assert reached == START + timedelta(seconds=90)


@pytest.mark.parametrize("kafka", [None], ids=["memory"])
async def test_no_tick_overtakes_a_timer_however_late_the_database_says_what_is_due(house: House) -> None:
    early, late = "ann", "ben"
    assert partition_of(early, PARTITIONS) != partition_of(late, PARTITIONS)
    worker = await house.worker(Tally(leads=True))
    await house.post(early, said(early, 0, remind=10))
    await house.post(late, said(late, 0, remind=60))
    await until(lambda: _counted(house, {early: 1, late: 1}))

    async def asked() -> bool:
        return bool(await other.fetchval(_WAITING_FOR_TIMERS))

    async def seen_idle_after_that() -> bool:
        lane = worker.lane(partition_of(late, PARTITIONS))
        return lane is not None and lane.idle_at == START + timedelta(seconds=90)

    async def reminded() -> bool:
        return f"{late} reminded at 60".encode() in await house.output(late)

    other = await asyncpg.connect(house.url)
    try:
        async with other.transaction():
            await other.execute("LOCK processing.timers IN ACCESS EXCLUSIVE MODE")
            house.clock.advance(timedelta(seconds=30))
            await until(asked)
            house.clock.advance(timedelta(seconds=60))
            await until(seen_idle_after_that)
    finally:
        await other.close()
    await until(reminded)


async def test_the_leaders_road_is_never_ahead_of_its_clock(house: House) -> None:
    await house.worker(Tally(leads=True))
    await house.post("ann", said("ann", 3600))
    await until(lambda: _counted(house, {"ann": 1}))
    async with house.database.connect() as connection:
        assert await connection.fetchval("SELECT max(as_of) FROM processing.partitions") == START


@pytest.mark.parametrize("kafka", [None], ids=["memory"])
async def test_a_worker_that_stops_does_not_wait_long_for_a_database_that_is_silent(
    house: House, postgres: EmbeddedPostgres
) -> None:
    async with Wire(lambda: postgres.port) as wire:
        database = Database(house.url.replace(f":{postgres.port}/", f":{wire.port}/"))
        home = replace(house, database=database, log=MemoryLog(PARTITIONS), workers=[])
        worker = await home.worker(Tally())
        await home.post("ann", said("ann"))
        await until(lambda: _counted(house, {"ann": 1}))
        wire.hush()
        await home.post("ann", said("ann"))
        await asyncio.sleep(0.1)  # it has begun with that, and waits for an answer
        async with asyncio.timeout(60):
            await worker.stop()
        wire.speak()
        await database.close()


async def _owns(worker: Worker, count: int) -> bool:
    return len(worker.owned) == count


async def _counted(house: House, expected: dict[str, int]) -> bool:
    try:
        return await counts(house.database) == expected
    except Exception as error:
        if not is_transient(error):
            raise
        return False  # the connection was one of those that were cut


async def test_a_stopped_owners_open_transaction_is_ended_by_the_claimer(house: House) -> None:
    worker = await house.worker(Tally())
    partition = partition_of("ann", 4)
    lane = worker.lane(partition)
    assert lane is not None
    held = asyncio.Event()
    go_on = asyncio.Event()

    async def work(connection: Connection, out: Outputs) -> None:
        held.set()
        await go_on.wait()

    stuck = asyncio.create_task(lane.transact(work))
    await held.wait()
    async with house.database.connect() as connection:
        async with asyncio.timeout(60):
            claiming = asyncio.create_task(store.claim(connection, "tally", partition, worker.id, 0.0))
            async with house.database.connect() as other:
                while not await store.end_blockers(other, connection.get_server_pid()):
                    await asyncio.sleep(0.01)
            assert await claiming is not None
    go_on.set()
    with pytest.raises((Fenced, Unavailable)):
        await stuck


class Lingering(Tally):
    """Its work beside the records ends when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.lingers, self.may_end = asyncio.Event(), asyncio.Event()

    async def attend(self, lane: Lane) -> None:
        await lane.leaving.wait()
        self.lingers.set()
        await self.may_end.wait()


async def test_the_heart_beats_while_partitions_are_let_go_slowly(house: House) -> None:
    work, works = Lingering(), Lingering()
    first = await house.worker(work)
    second = await house.worker(works)

    async def beaten_at() -> dict[UUID, datetime]:
        async with house.database.connect() as connection:
            rows = await connection.fetch("SELECT id, heartbeat FROM processing.workers WHERE service = 'tally'")
        return {row["id"]: row["heartbeat"] for row in rows}

    async def both_beat() -> None:
        for _ in range(2):
            before = await beaten_at()
            assert before.keys() == {first.id, second.id}

            async def again(before: dict[UUID, datetime] = before) -> bool:
                now = await beaten_at()
                return all(now[worker] > at for worker, at in before.items())

            await until(again)

    async def shared() -> bool:
        return len(first.owned) == len(second.owned) == 2

    await work.lingers.wait()  # half of its partitions are the other's now
    await both_beat()
    work.may_end.set()
    await until(shared)
    kept = first.owned
    stopping = asyncio.create_task(second.stop())
    await works.lingers.wait()
    await both_beat()
    assert first.owned == kept
    works.may_end.set()
    await stopping
    assert second.owned == frozenset()
    assert (await beaten_at()).keys() == {first.id}

    async def all_his() -> bool:
        return len(first.owned) == 4

    await until(all_his)


async def test_a_partition_that_was_lost_and_won_again_goes_on_from_where_its_winner_left_it(house: House) -> None:
    worker = await house.worker(Tally())
    await house.post("ann", said("ann"))
    await until(lambda: _counted(house, {"ann": 1}))
    thief = uuid4()
    async with house.database.connect() as connection:
        for _ in range(3):
            # Another took it while we seemed dead, and dies in its turn.
            await store.beat(connection, "tally", thief, "elsewhere")
            await connection.execute(
                "UPDATE processing.partitions SET owner = $1, epoch = epoch + 1, version = version + 1", thief
            )

            async def lost() -> bool:
                return not worker.owned

            await until(lost)
            await store.forget_worker(connection, "tally", thief, 1.0)
            await house.post("ann", said("ann"))
    await until(lambda: _counted(house, {"ann": 4}))
    assert await house.output("ann") == [b"ann 1", b"ann 2", b"ann 3", b"ann 4"]
