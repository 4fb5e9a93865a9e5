"""Lanes that share a transaction: what is wrong with one of them harms no other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from conftest_processing import House
from crew import Crew
from patience import until
from tale import CUSTOMERS
from tally import Errand, Tally, counts, said

from shared.database.clauses import Clause
from shared.processing import store
from shared.processing.lane import Lane
from shared.processing.outlets import Outlet, Outputs
from shared.processing.port import Fenced

pytestmark = pytest.mark.parametrize("kafka", [None], ids=["postgres"])

ALL = range(4)


class Shared(Crew):
    """A worker of four lanes that have read a record each, and wait for one another."""

    async def waiting(self, house: House, outlet: Outlet | None = None, **bad: str) -> list[Lane]:
        """`bad` says what is wrong with somebody's record."""
        self.lanes = await self.claim_all(ALL)
        [self.frame] = self.frames
        if outlet is not None:
            self.frame = replace(self.frame, outlet=outlet)
            for lane in self.lanes:
                lane.frame = self.frame
        for _ in range(2):
            await self.frame.in_flight.acquire()
        for customer in CUSTOMERS.values():
            await house.post(customer, said(customer, bad=bad.get(customer, "")))

        async def all_wait() -> bool:
            return len(self.frame.together._waiting) == len(ALL)

        await until(all_wait)
        return self.lanes

    def go(self) -> None:
        for _ in range(2):
            self.frame.in_flight.release()


def once_each(*without: str) -> Mapping[str, int]:
    return {customer: 1 for customer in CUSTOMERS.values() if customer not in without}


async def test_lanes_that_have_something_at_the_same_moment_share_a_transaction(house: House) -> None:
    tally = Tally()
    crew = Shared(house, tally)
    await crew.waiting(house)
    crew.go()
    await until(lambda: _counted(house, once_each()))
    await crew.kill()
    assert [sorted(partitions) for partitions in tally.transactions] == [list(ALL)]
    for customer in CUSTOMERS.values():
        assert await house.output(customer) == [b"%s 1" % customer.encode()]


async def test_a_lane_that_was_lost_drops_out_and_the_others_go_on(house: House) -> None:
    crew = Shared(house, Tally())
    await crew.waiting(house)
    async with house.database.connect() as connection:
        assert await store.claim(connection, "tally", 2, uuid4(), 0.0)
    crew.go()
    await until(lambda: _counted(house, once_each(CUSTOMERS[2])))
    with pytest.raises(Fenced):
        await crew.tasks.pop(2)
    assert not any(task.done() for task in crew.tasks)
    await crew.kill()
    async with house.database.connect() as connection:
        rows = await connection.fetch("SELECT next_offset FROM processing.partitions ORDER BY partition")
    assert [row["next_offset"] for row in rows] == [1, 1, 0, 1]


@pytest.mark.parametrize("bad", ["poison", "defect", "save"])
async def test_a_record_that_cannot_be_processed_is_set_aside_and_the_others_are_not(house: House, bad: str) -> None:
    crew = Shared(house, Tally())
    await crew.waiting(house, **{CUSTOMERS[1]: bad})
    crew.go()
    await until(lambda: _counted(house, once_each(CUSTOMERS[1])))
    await until(lambda: _set_aside(house, [CUSTOMERS[1]]))
    # From here on they share transactions again.
    for customer in CUSTOMERS.values():
        await house.post(customer, said(customer))
    await until(lambda: _counted(house, {**dict.fromkeys(once_each(), 2), CUSTOMERS[1]: 1}))
    await crew.kill()


class Cut:
    """An outlet at which the connection is cut once: before the server has the statement, or after. Whoever looks what
    stands is cut off once, too."""

    def __init__(self, outlet: Outlet, done: bool) -> None:
        self._outlet, self._done, self._cut = outlet, done, False
        self._looked: set[int] = set()
        self.committed, self.full = outlet.committed, outlet.full
        self.drained, self.forget = outlet.drained, outlet.forget

    async def recover(self, partition: int) -> None:
        if self._cut and partition not in self._looked:
            self._looked.add(partition)
            raise ConnectionResetError("the outbox cannot be read")
        await self._outlet.recover(partition)

    def clause(self, outputs: Mapping[int, Outputs]) -> Clause | None:
        if not self._done:
            self._cut_once(outputs)
        return self._outlet.clause(outputs)

    def wrote(self, outputs: Mapping[int, Outputs], rows: Sequence[Any]) -> None:
        self._cut_once(outputs)
        self._outlet.wrote(outputs, rows)

    def _cut_once(self, outputs: Mapping[int, Outputs]) -> None:
        if not self._cut and len(outputs) == len(ALL):
            self._cut = True
            raise ConnectionResetError("the connection was lost")


@pytest.mark.parametrize("done", [True, False])
async def test_after_a_commit_of_unknown_outcome_each_lane_looks_what_stands(house: House, done: bool) -> None:
    tally = Tally()
    crew = Shared(house, tally)
    [frame] = (await crew.claim_all([]), crew.frames)[1]
    cut = Cut(frame.outlet, done)
    crew.frames.clear()
    await crew.waiting(house, cut)
    crew.go()
    await until(lambda: _counted(house, once_each()))
    for customer in CUSTOMERS.values():
        await house.post(customer, said(customer))
    await until(lambda: _counted(house, dict.fromkeys(once_each(), 2)))
    await crew.kill()
    for customer in CUSTOMERS.values():
        assert await house.output(customer) == [b"%s %d" % (customer.encode(), n) for n in (1, 2)]


async def test_a_lane_that_is_dropped_while_it_waits_takes_nothing_with_it(house: House) -> None:
    crew = Shared(house, Tally())
    await crew.waiting(house)
    dropped = crew.tasks.pop(3)
    dropped.cancel()
    await asyncio.gather(dropped, return_exceptions=True)
    crew.go()
    await until(lambda: _counted(house, once_each(CUSTOMERS[3])))
    await crew.kill()


async def test_work_beside_records_goes_along_for_who_asks_and_who_has_records(house: House) -> None:
    tally = Tally()
    tally.errand = Errand()
    crew = Shared(house, tally)
    lanes = await crew.waiting(house)
    asked = [asyncio.create_task(lane.join()) for lane in lanes[:2]]
    await asyncio.sleep(0)
    crew.go()
    assert await asyncio.gather(*asked) == [True, True]
    assert await asyncio.create_task(lanes[3].join())
    await crew.kill()
    assert tally.errand.present == [list(ALL), [3]]
    assert tally.errand.ended == ["committed", "committed"]
    said_there = [await house.output(CUSTOMERS[partition]) for partition in ALL]
    assert [values.count(b"errand") for values in said_there] == [1, 1, 1, 2]


async def test_work_beside_records_that_fails_is_left_to_each_and_keeps_no_record_back(house: House) -> None:
    tally = Tally()
    tally.errand = Errand(bad=True)
    crew = Shared(house, tally)
    lanes = await crew.waiting(house)
    asked = asyncio.create_task(lanes[0].join())
    await asyncio.sleep(0)
    crew.go()
    assert not await asked
    await until(lambda: _counted(house, once_each()))
    await crew.kill()
    assert set(tally.errand.ended) == {"failed"}
    for customer in CUSTOMERS.values():
        assert await house.output(customer) == [b"%s 1" % customer.encode()]


async def test_a_lane_that_is_busy_with_something_else_is_not_waited_for(house: House) -> None:
    tally = Tally()
    tally.errand = Errand()
    crew = Shared(house, tally)
    lanes = await crew.waiting(house)
    async with lanes[0].lock:
        asked = [asyncio.create_task(lane.join()) for lane in lanes]
        await asyncio.sleep(0)
        crew.go()
        assert await asyncio.gather(*asked) == [False, True, True, True]
    await until(lambda: _counted(house, once_each()))
    await crew.kill()


async def _counted(house: House, expected: Mapping[str, int]) -> bool:
    return await counts(house.database) == expected


async def _set_aside(house: House, customers: list[str]) -> bool:
    async with house.database.connect() as connection:
        rows = await connection.fetch("SELECT key FROM processing.dead_letters ORDER BY id")
    return [row["key"] for row in rows] == customers
