"""Workers in processes of their own, stopped and resumed behind their backs; and a database that falls over."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest_processing import PARTITIONS, House
from patience import until
from tally import START, Tally, counts, make_table, said

from shared.clock import ManualClock
from shared.contracts.streams import partition_of
from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database, is_transient
from shared.database.migrations import migrate
from shared.errors import Unavailable
from shared.log.port import Entry
from shared.log.postgres import MIGRATIONS as LOG_MIGRATIONS
from shared.log.postgres import PostgresLog
from shared.processing import MIGRATIONS
from shared.processing.installation import open_installation
from shared.processing.worker import Worker
from shared.runtime import Runtime
from shared.settings import Settings

HERE = Path(__file__).parent
PEOPLE = ["ann", "bob", "cid", "dee", "eve", "fay"]


class Process:
    def __init__(self, url: str) -> None:
        folders = os.pathsep.join([str(HERE), str(HERE.parents[2])])
        self._popen = subprocess.Popen(
            [sys.executable, str(HERE / "tally_process.py"), url], env={**os.environ, "PYTHONPATH": folders}
        )

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    async def end(self) -> None:
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._popen.wait, 60)
        finally:
            self._popen.kill()


@pytest.mark.parametrize("kafka", [None], ids=["postgres"])
async def test_an_owner_stopped_past_its_heartbeat_and_resumed_doubles_and_loses_nothing(house: House) -> None:
    processes = [Process(house.url), Process(house.url)]

    async def owners() -> int:
        async with house.database.connect() as connection:
            found: int = await connection.fetchval("SELECT count(DISTINCT owner) FROM processing.partitions")
        return found

    async def post_for(seconds: float) -> int:
        posted = 0
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            for name in PEOPLE:
                await house.post(name, said(name, posted))
            posted += 1
            await asyncio.sleep(0.005)
        return posted

    try:
        await until(lambda: _is(owners, 2))
        total = await post_for(0.3)
        for stopped in (processes[0], processes[1], processes[0]):
            stopped.signal(signal.SIGSTOP)
            total += await post_for(1.6)
            stopped.signal(signal.SIGCONT)
            total += await post_for(0.3)
        await until(lambda: _counted(house.database, dict.fromkeys(PEOPLE, total)))
        await until(lambda: _is(owners, 2))
    finally:
        await asyncio.gather(*(process.end() for process in processes))
    for partition in range(PARTITIONS):
        here = [name for name in PEOPLE if partition_of(name, PARTITIONS) == partition]
        said_here = [record.value.decode() for record in await house.records("customers", partition)]
        for name in here:
            assert [line for line in said_here if line.startswith(name)] == [f"{name} {n + 1}" for n in range(total)]


async def test_a_database_that_falls_over_and_comes_back_heals() -> None:
    with tempfile.TemporaryDirectory(prefix="rapport-test-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedPostgres(Path(folder) / "postgres")
        await server.start()
        port = server.port
        database = Database(server.url)
        await migrate(database, [LOG_MIGRATIONS, MIGRATIONS])
        await make_table(database)
        log = PostgresLog(database, PARTITIONS)
        await log.start()
        async with database.connect() as connection:
            installation = await open_installation(connection, PARTITIONS, 1.0)
        settings = Settings(heartbeat_seconds=0.2, expiry_seconds=1.0, batch_records=3)
        worker = Worker(Runtime(log, ManualClock(START), database, installation), Tally(leads=True), settings)
        await worker.start()

        accepted = 0
        unknown = 0

        async def shop() -> None:
            nonlocal accepted, unknown
            while True:
                try:
                    await log.append("events", partition_of("ann", PARTITIONS), [Entry("ann", said("ann"))])
                    accepted += 1
                except Unavailable:
                    unknown += 1  # it may be there, and a shop would post it again

                await asyncio.sleep(0.002)

        shopping = asyncio.create_task(shop())
        for _ in range(2):
            await asyncio.sleep(0.3)
            await server.stop(immediate=True)
            await asyncio.sleep(0.5)
            await server.start()
            assert server.port == port

            before = accepted

            async def takes_events_again(before: int = before) -> bool:
                return accepted > before + 20

            await until(takes_events_again)
        shopping.cancel()
        await asyncio.gather(shopping, return_exceptions=True)

        async def all_counted() -> bool:
            ends = await log.ends("events")
            return await _counted(database, {"ann": sum(ends.values())}) and accepted > 40

        await until(all_counted)
        assert accepted <= (await counts(database))["ann"] <= accepted + unknown + 1

        async def ready() -> bool:
            return await worker.ready() == []

        await until(ready)
        await worker.stop()
        await log.close()
        await database.close()
        await server.stop()


async def _is(question: object, answer: object) -> bool:
    return await question() == answer  # type: ignore[operator]


async def _counted(database: Database, expected: dict[str, int]) -> bool:
    try:
        return await counts(database) == expected
    except Exception as error:
        if not is_transient(error):
            raise
        return False
