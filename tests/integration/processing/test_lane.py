"""One lane at a time: what it does where records, timers, outputs or its owner are not as they should be."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest
from conftest_processing import House
from crew import Crew
from patience import until
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from tally import START, Said, Tally, TallyBatch, counts, said

from shared.contracts.streams import partition_of
from shared.errors import Unavailable
from shared.log.port import LARGEST_RECORD, Entry, Fetched, Origin, Reader
from shared.log.postgres import PostgresLog
from shared.processing import partitions, store
from shared.processing.fenced import Part
from shared.processing.lane import Lane as OwnedLane
from shared.processing.outlets import StreamOutlet
from shared.processing.port import Connection, Given, Lane, NewerContract, Outputs

pytestmark = pytest.mark.parametrize("kafka", [None], ids=["postgres"])

ANN = partition_of("ann", 4)


async def letters(house: House) -> list[tuple[str, int | None]]:
    async with house.database.connect() as connection:
        rows = await connection.fetch("SELECT key, record_offset FROM processing.dead_letters ORDER BY id")
    return [(row["key"], row["record_offset"]) for row in rows]


class OldRelease(Tally):
    def decode(self, key: str, value: bytes) -> Said:
        message = super().decode(key, value)
        if message.bad == "later":
            raise NewerContract("version 99 needs a newer release.")
        return message


async def test_records_after_one_of_a_newer_contract_are_not_passed_over(house: House) -> None:
    await house.post("ann", said("ann"), said("ann"), said("ann", bad="later"), said("ann"))
    crew = Crew(house, OldRelease())
    lane = await crew.claim(ANN)
    [waits] = crew.tasks
    with pytest.raises(NewerContract):
        await waits
    assert lane.position.next_offset == 2
    crew = Crew(house, Tally())
    await crew.claim(ANN)
    await until(lambda: _all(house, 4))
    await crew.kill()


async def test_timers_that_fire_without_a_record_are_told_of_with_the_time_in_one_transaction(house: House) -> None:
    crew = Crew(house, Tally(leads=True))
    lane = await crew.claim(ANN)
    await house.post("ann", said("ann", remind=60))
    await until(lambda: _all(house, 1))
    async with lane.lock:
        await lane.attempt([], START + timedelta(seconds=90))
    # Whoever is killed now has left nothing that a reader of the streams could not know.
    assert lane.position.as_of == START + timedelta(seconds=90)
    assert await house.output("ann") == [b"ann 1", b"ann reminded at 60", b"tick"]
    await crew.kill()


async def test_the_time_is_not_told_before_all_timers_of_its_instant_have_fired(house: House) -> None:
    other = next(name for name in map(str, range(100)) if partition_of(name, 4) == ANN)
    crew = Crew(house, Tally(leads=True))
    lane = await crew.claim(ANN)
    await house.post("ann", said("ann", remind=60))
    await house.post(other, said(other, remind=60))

    async def both_came() -> bool:
        return await counts(house.database) == {"ann": 1, other: 1}

    await until(both_came)
    async with lane.lock:
        while await lane.attempt([], START + timedelta(seconds=60), 1):
            assert b"tick" not in await house.output("ann")
    assert (await house.output("ann"))[-1] == b"tick"
    assert sum(b"reminded" in told for told in await house.output("ann")) == 2
    await crew.kill()


async def test_a_timer_is_as_late_as_it_was_due_before_the_clock(house: House) -> None:
    """Nothing was said for a night: the road comes to the timer only with the first record after it."""
    crew = Crew(house, Tally())
    await crew.claim(ANN)
    await house.post("ann", said("ann", remind=60))
    await until(lambda: _all(house, 1))
    before = _lateness()
    house.clock.advance(timedelta(hours=8))
    await house.post("ann", said("ann", at=8 * 3600))
    await until(lambda: _all(house, 2))
    assert _lateness() - before == 8 * 3600 - 60
    await crew.kill()


def _lateness() -> float:
    return REGISTRY.get_sample_value("rapport_processing_timer_lateness_seconds_sum", {"service": "tally"}) or 0.0


class Deadly(Tally):
    """Taking the record at 13 ends the process, in the middle of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.died = asyncio.Event()

    async def batch(self, connection: Connection, given: Given) -> TallyBatch:
        if any(message.at == 13 for message in given.messages):
            self.died.set()
            await asyncio.Event().wait()
        return await super().batch(connection, given)

    async def attend(self, lane: Lane) -> None:
        async def nothing(connection: Connection, out: Outputs) -> None:
            return

        await lane.transact(nothing)  # work beside the records proves nothing about them


async def test_a_record_that_ends_the_process_is_found_wherever_it_stands_in_its_batch(house: House) -> None:
    await house.post("ann", *[said("ann", n) for n in range(20)])
    for _ in range(15):
        deadly = Deadly()
        crew = Crew(house, deadly)
        lane = await crew.claim(ANN)
        while not deadly.died.is_set() and lane.next_offset < 20:
            await asyncio.sleep(0.005)
        await crew.kill()
        if not deadly.died.is_set():
            break
    assert await letters(house) == [("ann", 13)]
    assert await counts(house.database) == {"ann": 19}


class Deaf(Tally):
    """Nothing comes of a record."""

    async def batch(self, *known: Any) -> TallyBatch:
        class Idle(TallyBatch):
            def handle(self, message: Said, out: Outputs) -> None:
                return

        self.batches.append(0)
        return Idle(0, {}, b"")


class OneByOne:
    """A reader that has never more than a record."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.seek = reader.seek

    async def fetch(self, partition: int, limit: int, wait: float) -> Fetched:
        return await self._reader.fetch(partition, 1, wait)


async def test_records_that_concern_nobody_share_a_commit(house: House) -> None:
    async def standing() -> tuple[int, int]:
        async with house.database.connect() as connection:
            row = await connection.fetchrow("SELECT next_offset, version FROM processing.partitions WHERE epoch > 0")
        return row["next_offset"], row["version"]

    async def written() -> bool:
        return (await standing())[0] == 30

    deaf = Deaf()
    await house.post("ann", *[said("ann", n) for n in range(30)])
    crew = Crew(house, deaf)
    lane = await crew.claim(ANN)
    lane.frame = replace(lane.frame, reader=OneByOne(lane.frame.reader))
    await until(written)
    assert len(deaf.batches) == 30
    # However slow the machine is: there is one commit a second, and one at the end.
    assert (await standing())[1] < 20
    assert lane.as_of == START + timedelta(seconds=29)
    await crew.kill()


async def test_an_output_that_its_key_makes_too_large_for_the_log_is_no_longer_committed(house: House) -> None:
    class Loud(TallyBatch):
        def handle(self, message: Said, out: Outputs) -> None:
            out.emit("customers", "ann" * 10, b"x" * (LARGEST_RECORD - 10))

    class Shouting(Tally):
        async def batch(self, *known: Any) -> TallyBatch:
            return Loud(0, {}, b"")

    await house.post("ann", said("ann"))
    crew = Crew(house, Shouting())
    await crew.claim(ANN)
    await until(lambda: letters(house))
    await crew.kill()
    async with house.database.connect() as connection:
        text = await connection.fetchval("SELECT message FROM processing.dead_letters")
    assert "an output for customers has" in text


async def test_a_time_without_an_offset_is_the_records_own_fault(house: House) -> None:
    class Timeless(Tally):
        def as_of(self, message: Said) -> datetime:
            at = super().as_of(message)
            return at.replace(tzinfo=None) if message.bad == "naive" else at

    await house.post("ann", said("ann"), said("ann", bad="naive"), said("ann"))
    crew = Crew(house, Timeless())
    await crew.claim(ANN)
    await until(lambda: _all(house, 2))
    await crew.kill()
    assert await letters(house) == [("ann", 1)]


async def test_a_gap_in_the_sequence_of_a_source_halts_the_partition(house: House) -> None:
    def entry(seq: int) -> Entry:
        return Entry("ann", said("ann", seq), Origin("shop", 0, 1, seq))

    await house.log.append("events", ANN, [entry(1), entry(2), entry(2), entry(1), entry(3)])
    crew = Crew(house, Tally())
    lane = await crew.claim(ANN)
    await until(lambda: _all(house, 3))
    assert lane.next_offset == 5
    await house.log.append("events", ANN, [entry(5)])

    await until(lambda: _halted(lane))
    assert lane.next_offset == 5
    await crew.kill()
    assert await counts(house.database) == {"ann": 3}


async def test_a_source_whose_first_records_are_missing_halts_the_partition(house: House) -> None:
    await house.log.append("events", ANN, [Entry("ann", said("ann"), Origin("shop", 0, 1, 3))])
    crew = Crew(house, Tally())
    lane = await crew.claim(ANN)
    await until(lambda: _halted(lane))
    await crew.kill()
    assert await counts(house.database) == {}
    assert lane.halted is not None
    assert "goes from 0 to 3" in lane.halted


async def test_a_source_goes_on_under_a_new_generation_after_a_restore(house: House) -> None:
    await house.log.append(
        "events", ANN, [Entry("ann", said("ann"), Origin("shop", 0, *seq)) for seq in [(1, 1), (2, 7), (2, 8)]]
    )
    crew = Crew(house, Tally())
    await crew.claim(ANN)
    await until(lambda: _all(house, 3))
    await crew.kill()


async def test_who_sets_an_offset_by_hand_leaves_out_what_came_before(house: House) -> None:
    entries = [Entry("ann", said("ann"), Origin("shop", 0, 1, seq)) for seq in (1, 5, 6)]
    await house.log.append("events", ANN, entries)
    worker = await house.worker(Tally())
    await until(lambda: _all(house, 1))

    async def stands_still() -> bool:
        return any("stands still" in line for line in await worker.ready())

    await until(stands_still)
    async with house.database.connect() as connection:
        await partitions.seek(connection, "tally", ANN, 1)
    await until(lambda: _all(house, 3))
    await house.log.append("events", ANN, [Entry("ann", said("ann"), Origin("shop", 0, 1, 8))])
    await until(stands_still)  # once seen, a source has to go on without a gap again


async def test_a_dead_letter_is_not_retried_twice(house: House) -> None:
    await house.post("ann", b"no json")
    crew = Crew(house, Tally())
    lane = await crew.claim(ANN)
    await until(lambda: letters(house))
    async with house.database.connect() as connection:
        letter = await connection.fetchval(
            "UPDATE processing.dead_letters SET body = $1, retry_asked = true RETURNING id", said("ann")
        )
    await lane.retry(letter)
    await lane.retry(letter)  # asked of an owner who had looked before the first one was done
    await crew.kill()
    assert await counts(house.database) == {"ann": 1}


async def test_transactions_of_unknown_outcome_beside_the_records_take_none_twice(house: House) -> None:
    crew = Crew(house, Tally())
    lane = await crew.claim(ANN)
    for n in range(30):
        await house.post("ann", said("ann", n))
        async with lane.lock:
            with suppress(Unavailable):
                await lane.settle()
            # It goes through, and its answer is lost.
            begun = Part(lane, *lane.begin())
            async with house.database.transaction() as connection:
                await store.fence(connection, "tally", [begun.fence])
            lane.doubt()
        await asyncio.sleep(0.001 * (n % 5))
    await until(lambda: _all(house, 30))
    await crew.kill()
    assert await house.output("ann") == [b"ann %d" % n for n in range(1, 31)]


async def test_work_beside_the_records_is_begun_again_after_the_partition_seemed_lost(house: House) -> None:
    begun = 0

    class Attentive(Tally):
        async def attend(self, lane: Lane) -> None:
            nonlocal begun
            begun += 1

            async def work(connection: Connection, out: Outputs) -> None:
                out.emit("customers", "ann", b"beside")
                if begun == 1:  # as if another transaction had come before this one
                    await connection.execute("ROLLBACK")
                    await connection.execute("UPDATE processing.partitions SET version = version + 1")
                    raise OSError("the connection broke")

            await lane.transact(work)

    crew = Crew(house, Attentive())
    await crew.claim(ANN)

    async def said_once() -> bool:
        return await house.output("ann") == [b"beside"]

    await until(said_once)
    await crew.kill()


async def test_trouble_beside_the_records_is_over_once_that_work_has_gone_on(house: House) -> None:
    class Attentive(Tally):
        stumbled = went_on = False

        async def attend(self, lane: Lane) -> None:
            async def work(connection: Connection, out: Outputs) -> None:
                return

            if not self.stumbled:
                self.stumbled = True
                raise OSError("the database restarts")
            await lane.transact(work)
            self.went_on = True
            await lane.leaving.wait()  # it looks now and then, for as long as the partition is ours

    attentive = Attentive()
    crew = Crew(house, attentive)
    lane = await crew.claim(ANN)

    async def went_on() -> bool:
        return attentive.went_on

    await until(went_on)
    assert lane.frame.trouble.problems(-1.0) == []
    await crew.kill()


async def test_a_defect_beside_the_records_says_once_where_it_is(house: House) -> None:
    class Defective(Tally):
        begun = 0

        async def attend(self, lane: Lane) -> None:
            self.begun += 1
            if self.begun < 3:
                raise KeyError("mistake")
            await lane.leaving.wait()

    defective = Defective()
    with capture_logs() as logged:
        crew = Crew(house, defective)
        await crew.claim(ANN)

        async def went_on() -> bool:
            return defective.begun == 3

        await until(went_on)
        await crew.kill()
    first, second = [line for line in logged if line["event"] == "background work stumbled"]
    assert isinstance(first["exc_info"], KeyError)
    assert first["error"] == second["error"] == "KeyError: 'mistake'"
    assert "exc_info" not in second


async def test_a_partition_whose_last_words_are_cut_off_is_left_in_order(house: House) -> None:
    class CutOff(StreamOutlet):
        async def drained(self, partition: int) -> None:
            raise ConnectionResetError("the server went away")

    await house.post("ann", said("ann"))
    crew = Crew(house, Tally())
    lane = await crew.claim(ANN)
    assert isinstance(house.log, PostgresLog)
    lane.frame = replace(lane.frame, outlet=CutOff(house.log))
    await until(lambda: counted(house, {"ann": 1}))
    lane.leave()
    await crew.tasks[0]  # raises nothing: the next owner goes on from what stands in the database
    await crew.kill()


async def counted(house: House, expected: dict[str, int]) -> bool:
    return await counts(house.database) == expected


class BadTimes(Tally):
    """Leads, and none of its timers can be saved."""

    async def batch(self, connection: Connection, given: Given) -> TallyBatch:
        batch = await super().batch(connection, given)
        batch.spoilt = bool(given.timers)
        batch.changed = {"ann": 1} if batch.spoilt else {}
        return batch


async def test_timers_that_cannot_be_saved_are_set_aside_and_time_goes_on(house: House) -> None:
    await house.post("ann", *[said(f"ann{n}", 0, remind=n + 1) for n in range(5)])
    await house.worker(BadTimes(leads=True))
    house.clock.advance(timedelta(seconds=60))

    async def all_aside() -> bool:
        return len(await letters(house)) == 5

    await until(all_aside)
    house.clock.advance(timedelta(seconds=60))

    async def moved_on() -> bool:
        async with house.database.connect() as connection:
            found: bool = await connection.fetchval(
                "SELECT bool_and(as_of = $1) FROM processing.partitions", START + timedelta(seconds=120)
            )
        return found

    await until(moved_on)


class Swallowing(TallyBatch):
    """Loses the error of a statement, and says nothing that would need the connection again."""

    def handle(self, message: Said, out: Outputs) -> None:
        self._count(message.key)

    async def work(self, connection: Connection) -> None:
        if self.spoilt:
            with suppress(asyncpg.PostgresError):
                await connection.execute("SELECT 1 / 0")

    @property
    def numbers(self) -> list[object]:
        return list(self.changed.values())


async def test_a_batch_whose_failed_statement_was_swallowed_has_failed(house: House) -> None:
    class Careless(Tally):
        async def batch(self, connection: Connection, given: Given) -> TallyBatch:
            found = await super().batch(connection, given)
            batch = Swallowing(found.partition, found.counts, found.memo())
            batch.spoilt = any(message.bad for message in given.messages)
            return batch

    await house.post("ann", said("ann"), said("ann", bad="swallow"), said("ann"))
    crew = Crew(house, Careless())
    await crew.claim(ANN)
    await until(lambda: _all(house, 2))
    await crew.kill()
    assert await letters(house) == [("ann", 1)]


async def test_many_timers_in_a_row_that_fail_halt_the_partition(house: House) -> None:
    await house.post("ann", *[said(f"ann{n}", 0, remind=n + 1) for n in range(30)])
    worker = await house.worker(BadTimes(leads=True))
    house.clock.advance(timedelta(seconds=60))

    async def stands_still() -> bool:
        return any("stands still" in line for line in await worker.ready())

    await until(stands_still)


async def test_timers_of_one_instant_have_one_order_in_the_database_and_here(house: House) -> None:
    async with house.database.connect() as connection:
        found = await connection.fetch(
            "SELECT attname, collname FROM pg_attribute JOIN pg_collation c ON c.oid = attcollation"
            " WHERE attrelid = 'processing.timers'::regclass AND attname IN ('kind', 'subject')"
        )
    assert {(row["attname"], row["collname"]) for row in found} == {("kind", "C"), ("subject", "C")}


async def _halted(lane: OwnedLane) -> bool:
    return lane.halted is not None


async def _all(house: House, count: int) -> bool:
    return await counts(house.database) == {"ann": count}
