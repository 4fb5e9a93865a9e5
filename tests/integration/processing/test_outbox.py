"""The outbox, on a log that is told when to fail: what is committed goes out in order, whatever stands in the way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from conftest_processing import PARTITIONS, House
from crew import Crew
from fakes.memory_log import MemoryLog
from patience import PATIENCE, until
from tally import Tally, counts, said

from shared.contracts.streams import partition_of
from shared.log.port import Entry, Origin
from shared.processing.outlets import OutboxOutlet

pytestmark = pytest.mark.parametrize("kafka", [None], ids=["memory"])

ANN = partition_of("ann", PARTITIONS)


class Stumbling(MemoryLog):
    """Fails in a way that nobody thought of."""

    defects = 0

    async def append(self, stream: str, partition: int, entries: Sequence[Entry]) -> None:
        if stream == "customers" and self.defects:
            self.defects -= 1
            raise ValueError("a defect")
        await super().append(stream, partition, entries)


@pytest_asyncio.fixture
async def home(house: House) -> AsyncIterator[House]:
    """The house with a log that is not PostgreSQL's, so that outputs go through the outbox."""
    yield replace(house, log=Stumbling(PARTITIONS))


async def test_what_a_killed_owner_left_unpublished_goes_out_before_anything_new(home: House) -> None:
    log: Any = home.log
    await home.post("ann", *[said("ann", n) for n in range(6)])
    crew = Crew(home, Tally(), batch_records=2)
    log.hold()
    await crew.claim(ANN)
    await until(lambda: _counted(home, 6))
    await crew.kill()
    log.resume()
    await home.post("ann", said("ann", 6))
    await crew.claim(ANN)
    await until(lambda: _said(home, 7))
    await until(lambda: _outbox_is_empty(home))
    await crew.kill()


async def test_answers_that_were_lost_make_duplicates_and_never_gaps(home: House) -> None:
    log: Any = home.log
    await home.post("ann", *[said("ann", n) for n in range(8)])
    log.answers_to_lose = 3
    crew = Crew(home, Tally(), batch_records=2)
    await crew.claim(ANN)
    await until(lambda: _said(home, 8))
    await until(lambda: _outbox_is_empty(home))
    await crew.kill()


async def test_an_unexpected_failure_does_not_stop_publishing(home: House) -> None:
    log: Any = home.log
    log.defects = 3
    await home.post("ann", said("ann"))
    crew = Crew(home, Tally())
    await crew.claim(ANN)
    await until(lambda: _said(home, 1))
    await until(lambda: _outbox_is_empty(home))
    await crew.kill()


async def test_what_was_published_is_deleted_though_the_database_was_away_just_then(home: House) -> None:
    log: Any = home.log
    await home.post("ann", said("ann"))
    log.hold()
    crew = Crew(home, Tally())
    await crew.claim(ANN)
    await until(lambda: _counted(home, 1))
    async with home.database.transaction() as locking:
        await locking.execute("LOCK TABLE processing.outbox IN SHARE MODE")
        log.resume()
        await until(lambda: _deletion_cut_off(home))
    await until(lambda: _outbox_is_empty(home))
    await crew.kill()


async def test_who_leaves_waits_a_while_for_a_log_that_stumbles(home: House) -> None:
    log: Any = home.log
    await home.post("ann", said("ann"))
    log.defects = 1_000_000
    crew = Crew(home, Tally())
    lane = await crew.claim(ANN)
    lane.frame = replace(lane.frame, outlet=OutboxOutlet(log, home.database, "tally", patience=PATIENCE))
    await until(lambda: _counted(home, 1))
    lane.leave()
    [leaving] = crew.tasks
    left = log.defects

    async def tried_again_or_gone() -> bool:
        return log.defects <= left - 2 or leaving.done()

    await until(tried_again_or_gone)
    log.defects = 0
    await leaving
    assert await _outbox_is_empty(home)
    await crew.kill()


class LosesAnAnswer(OutboxOutlet):
    """The next COMMIT succeeds, and whoever waits for it is not told."""

    lose = False

    def wrote(self, outputs: Any, rows: Any) -> None:
        if self.lose:
            self.lose = False
            raise ConnectionResetError("the server went away")


async def test_who_leaves_publishes_what_it_does_not_know_that_it_committed(home: House) -> None:
    crew = Crew(home, Tally())
    lane = await crew.claim(ANN)
    outlet = LosesAnAnswer(home.log, home.database, "tally")
    lane.frame = replace(lane.frame, outlet=outlet)

    async def settled() -> bool:
        return not lane.doubtful

    await until(settled)
    async with lane.lock:
        run, after = lane.begin()
        run.emit("customers", "ann", b"ann 1")
        after.out_seqs = run.out_seqs
        outlet.lose = True
        with pytest.raises(ConnectionResetError):
            await lane.commit(run, after)
        lane.leave()
    await crew.tasks[0]
    assert await _outbox_is_empty(home)
    assert await home.output("ann") == [b"ann 1"]
    await crew.kill()


async def test_a_log_that_is_away_holds_back_the_reader_before_memory_fills(home: House) -> None:
    log: Any = home.log
    await home.post("ann", *[said("ann", n) for n in range(200)])
    log.hold()
    crew = Crew(home, Tally(), batch_records=1)
    lane = await crew.claim(ANN)
    outlet = lane.frame.outlet
    assert isinstance(outlet, OutboxOutlet)

    async def full() -> bool:
        return outlet.full(ANN)

    await until(full)
    assert (await counts(home.database))["ann"] < 100
    log.resume()
    await until(lambda: _said(home, 200))
    await crew.kill()


class Watched(deque[Sequence[Entry]]):
    """A queue that has something done as soon as somebody has found it empty."""

    def __init__(self, found_empty: Callable[[], None]) -> None:
        super().__init__()
        self._found_empty = found_empty

    def __len__(self) -> int:
        count = super().__len__()
        if not count:
            asyncio.get_running_loop().call_soon(self._found_empty)
        return count


async def test_what_is_added_just_as_a_publisher_ends_goes_out_too(home: House) -> None:
    outlet = OutboxOutlet(home.log, home.database, "tally")
    destination = ("customers", ANN)
    key = (ANN, destination)
    late = [[Entry("ann", b"late", Origin("tally", ANN, 1, 2))]]

    def add_where_it_has_ended() -> None:
        if late and outlet._publishers[key].done():
            outlet.committed({ANN: {destination: late.pop()}})

    outlet._queues[key] = Watched(add_where_it_has_ended)
    outlet.committed({ANN: {destination: [Entry("ann", b"early", Origin("tally", ANN, 1, 1))]}})

    async def both() -> bool:
        return await home.output("ann") == [b"early", b"late"]

    await until(both)
    assert not late
    await outlet.drained(ANN)
    await outlet.close()


async def test_an_outlet_that_is_closed_has_nothing_under_way(home: House) -> None:
    log: Any = home.log
    outlet = OutboxOutlet(home.log, home.database, "tally")
    others = asyncio.all_tasks()
    outlet.committed({ANN: {("customers", ANN): [Entry("ann", b"out", Origin("tally", ANN, 1, 1))]}})

    async def acknowledged() -> bool:
        return bool(outlet._acknowledged)

    await until(acknowledged)
    log.hold()
    outlet.committed({ANN: {("customers", ANN): [Entry("ann", b"held", Origin("tally", ANN, 1, 2))]}})
    outlet.forget(ANN)
    await outlet.close()
    assert asyncio.all_tasks() == others
    log.resume()


async def test_records_of_strangers_are_set_aside_however_many_and_the_partition_flows_on(home: House) -> None:
    log: Any = home.log
    for _ in range(30):
        log.write_broken("events", ANN, "\ufffd", said("ann"))
    await home.post("ann", said("ann"))
    crew = Crew(home, Tally())
    await crew.claim(ANN)
    await until(lambda: _said(home, 1))
    await crew.kill()
    async with home.database.connect() as connection:
        rows = await connection.fetch("SELECT record_offset, code, retryable FROM processing.dead_letters ORDER BY id")
    assert [tuple(row) for row in rows] == [(offset, "poison", False) for offset in range(30)]


async def _counted(home: House, count: int) -> bool:
    return await counts(home.database) == {"ann": count}


async def _said(home: House, count: int) -> bool:
    return await home.output("ann") == [b"ann %d" % n for n in range(1, count + 1)]


async def _deletion_cut_off(home: House) -> bool:
    async with home.database.connect() as connection:
        rows = await connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE FROM processing.outbox%'"
        )
        return bool(rows)


async def _outbox_is_empty(home: House) -> bool:
    async with home.database.connect() as connection:
        return not await connection.fetchval("SELECT count(*) FROM processing.outbox")
