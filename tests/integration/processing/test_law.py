"""The law of the mechanics: however records are batched, whatever transactions partitions share, and however often an
owner dies, the same is said."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from conftest_processing import House
from crew import Crew
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from patience import until
from tale import CUSTOMERS, NAMES, Tale, Word, encoded, told_plainly

from shared.log.port import Entry

pytestmark = pytest.mark.parametrize("kafka", [None], ids=["postgres"])

_services = count()

delays = st.none() | st.integers(-4, 8)
words = st.builds(
    Word,
    n=st.integers(0, 99),
    at=st.integers(0, 20),
    idle=st.booleans(),
    sets=st.dictionaries(st.sampled_from(NAMES), delays, max_size=3),
    bad=st.sampled_from(["", "", "", "", "poison", "defect", "save", "unreadable"]),
)
lives = st.lists(st.tuples(st.sampled_from([1, 2, 3, 5, 100]), st.integers(0, 40)), max_size=4)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    told=st.lists(st.lists(words, max_size=16), min_size=1, max_size=1)
    | st.lists(st.lists(words, max_size=6), max_size=4),
    lives=lives,
    last=st.sampled_from([1, 2, 3, 100]),
)
@example(told=[[Word(0, sets={"e": 0, "d": -1}), Word(0)]], lives=[], last=100)
@example(told=[[Word(0, sets={"e": 0, "d": -1, "a": 0, "c": 0}), Word(0)]], lives=[], last=1)
@example(told=[[Word(0, sets={"g": 2, "h": 2, "b": 2}), Word(0, 9, bad="save"), Word(0, 1)]], lives=[], last=1)
@example(told=[[Word(0), Word(0, 5, idle=True), Word(0, bad="save"), Word(1)]], lives=[], last=1)
@example(
    told=[[Word(0), Word(1, bad="save")], [Word(2)], [Word(3, bad="poison")], [Word(4, sets={"e": 0})]],
    lives=[],
    last=100,
)
async def test_what_is_said_depends_on_the_records_alone(
    house: House, told: list[list[Word]], lives: list[tuple[int, int]], last: int
) -> None:
    """`told` is what is told in each partition. One owner has them all, and they share transactions."""
    tale = Tale(f"tale-{next(_services)}")
    crew = Crew(house, tale)
    begins = await house.log.ends("events")
    said_before = await house.log.ends("customers")
    for partition, some in enumerate(told):
        if some:
            entries = [Entry(CUSTOMERS[partition], encoded(word)) for word in some]
            await house.log.append("events", partition, entries)
    async with house.database.connect() as connection:
        for partition in range(len(told)):
            await connection.execute(
                "INSERT INTO processing.partitions (service, partition, next_offset) VALUES ($1, $2, $3)",
                tale.service,
                partition,
                begins[partition],
            )
    for batch, steps in lives:
        crew.batch_records = batch
        await crew.claim_all(range(len(told)))
        for _ in range(steps):
            await asyncio.sleep(0.0005)
        await crew.kill()
    crew.batch_records = last
    lanes = await crew.claim_all(range(len(told)))

    async def through() -> bool:
        return all(
            task.done()
            or lane.halted is not None
            or lane.position.next_offset == begins[lane.partition] + len(told[lane.partition])
            for lane, task in zip(lanes, crew.tasks, strict=True)
        )

    await until(through)
    for lane, task in zip(lanes, crew.tasks, strict=True):
        assert not task.done(), task.exception()
        assert lane.halted is None
    await crew.kill()

    for partition, some in enumerate(told):
        records = await house.records("customers", partition, said_before[partition])
        async with house.database.connect() as connection:
            letters = await connection.fetch(
                "SELECT stream, record_offset, key FROM processing.dead_letters"
                " WHERE service = $1 AND partition = $2 ORDER BY id",
                tale.service,
                partition,
            )
        aside = [
            row["key"] if row["stream"] == "timers" else str(row["record_offset"] - begins[partition])
            for row in letters
        ]
        assert ([record.value.decode() for record in records], aside) == told_plainly(some)
