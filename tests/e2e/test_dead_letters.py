"""What cannot be processed is set aside with its reason, and `rapport dead-letters` works as it is typed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import pytest_asyncio
from house import WRITE_KEY, House, Said, a_house, identify, rapport, track
from patience import until

from shared.contracts.streams import DEFAULT_PARTITIONS, EVENTS, partition_of
from shared.database.embedded import url_of_running
from shared.database.engine import Database
from shared.log.port import Entry
from shared.log.postgres import PostgresLog
from shared.processing import dead_letters
from shared.processing.dead_letters import Letter

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    async with a_house() as house:
        await house.start()
        yield house


@asynccontextmanager
async def database_of(house: House) -> AsyncIterator[Database]:
    """The database of the running house, as its operator gets at it."""
    url = url_of_running(house.data / "postgres")
    assert url is not None
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


async def set_aside(house: House, code: str) -> Letter:
    """The dead letter with this code, once there is one."""
    async with database_of(house) as database, database.connect() as connection:

        async def found() -> Letter | None:
            return next((one for one in await dead_letters.newest(connection, None, 50) if one.code == code), None)

        letter: Letter = await until(found, what=f"a dead letter for {code}")
        return letter


async def typed(house: House, *arguments: object) -> Said:
    return await rapport("dead-letters", *map(str, arguments), "--data", house.data)


async def test_what_a_service_cannot_take_is_set_aside_and_told(house: House) -> None:
    # One that ingest takes and the segmenter cannot: another event under an id that was used already.
    await house.post(identify("ann"), {**track("ann", "Product Viewed", price=1), "messageId": "the-same"})
    await house.post({**track("ann", "Product Viewed", price=2), "messageId": "the-same"})
    conflict = (await set_aside(house, "conflicting_duplicate")).id
    shown = await typed(house, "show", conflict)
    assert shown.code == 0
    assert "segmenter" in shown.output
    assert '"price":2' in shown.output
    refused = await typed(house, "retry", conflict)
    assert refused.code == 1
    assert f"dead letter {conflict} (conflicting_duplicate) cannot be tried again" in refused.output
    # One that ingest refuses: it is named in the answer, and kept with its bytes.
    wrong = {"batch": [track("undefined", "Product Viewed")]}
    response = await house.http.post("/v1/batch", json=wrong, auth=(WRITE_KEY, ""))
    assert [one["code"] for one in response.json()["rejected"]] == ["refused_id"]
    assert b"undefined" in (await set_aside(house, "refused_id")).body
    told = await typed(house, "list")
    assert [word for word in ("conflicting_duplicate", "refused_id") if word not in told.output] == []


async def test_a_poison_record_stands_in_nobodys_way_and_is_tried_again_when_it_is_mended(house: House) -> None:
    await house.post(identify("bob"), track("bob", "Product Viewed"))
    (viewed,) = await until(lambda: house.timeline("bob", "Product Viewed"), what="the event")
    good = {"kind": "event", "id": "mended", "source": "shop", "key": "bob", "name": "Product Added"}
    good |= {"occurred_at": viewed["received_at"], "received_at": viewed["received_at"]}
    async with database_of(house) as database:
        # Past ingest, as a faulty release might write it.
        log = PostgresLog(database, DEFAULT_PARTITIONS)
        poison = Entry("bob", msgspec.json.encode({**good, "occurred_at": "yesterday"}))
        await log.append(EVENTS, partition_of("bob", DEFAULT_PARTITIONS), [poison])
        await log.close()
    letter = (await set_aside(house, "poison")).id
    await house.post(track("bob", "Checkout Started"))
    await house.happened("bob", "Checkout Started")
    tried = await typed(house, "retry", letter)
    assert (tried.code, tried.output.split()[:5]) == (0, ["1", "will", "be", "tried", "again"])
    # It is as bad as before, so it stays, with the reason of this time.
    assert (await set_aside(house, "failed")).id == letter
    async with database_of(house) as database, database.connect() as connection:
        # What an operator does here, a better release does by being one.
        mended = msgspec.json.encode(good)
        await connection.execute("UPDATE processing.dead_letters SET body = $2 WHERE id = $1", letter, mended)
    assert (await typed(house, "retry", letter)).code == 0
    assert (await house.happened("bob", "Product Added"))["id"] == "mended"
    gone = await typed(house, "show", letter)
    assert (gone.code, gone.output.partition(".")[0]) == (1, f"there is no dead letter {letter}")
