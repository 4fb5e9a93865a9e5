"""Lanes without a worker: claimed by hand, and killed as a process is: in the middle of anything, without a goodbye."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from uuid import uuid4

from conftest_processing import House

from shared.log.postgres import PostgresLog
from shared.processing import store
from shared.processing.lane import Frame, Lane
from shared.processing.outlets import OutboxOutlet, Outlet, StreamOutlet


class Crew:
    """Each `claim` is a new owner, who finds what the one before left."""

    def __init__(self, house: House, processor: Any, *, batch_records: int = 100) -> None:
        self._house, self._processor = house, processor
        self.batch_records = batch_records
        self.tasks: list[asyncio.Task[None]] = []
        self.frames: list[Frame] = []

    async def claim(self, partition: int) -> Lane:
        [lane] = await self.claim_all([partition])
        return lane

    async def claim_all(self, partitions: Iterable[int]) -> list[Lane]:
        """As one worker, whose lanes may share transactions."""
        house = self._house
        log = house.log
        outlet: Outlet = (
            StreamOutlet(log)
            if isinstance(log, PostgresLog)
            else OutboxOutlet(log, house.database, self._processor.service)
        )
        frame = Frame(
            processor=self._processor,
            database=house.database,
            log=log,
            reader=log.reader("events"),
            outlet=outlet,
            clock=house.clock,
            worker=uuid4(),
            generation=1,
            batch_records=self.batch_records,
            in_flight=asyncio.Semaphore(2),
            leads_time=False,
        )
        self.frames.append(frame)
        lanes = []
        for partition in partitions:
            async with house.database.connect() as connection:
                await store.make_partitions(connection, self._processor.service, log.partitions)
                found = await store.claim(connection, self._processor.service, partition, frame.worker, 0.0)
            assert found is not None
            position, before = found
            lanes.append(Lane(frame, partition, position, taken_over=before is not None))
        frame.reader.assign({lane.partition: lane.position.next_offset for lane in lanes})
        self.tasks += [asyncio.create_task(lane.run()) for lane in lanes]
        return lanes

    async def kill(self) -> None:
        for frame in self.frames:
            await frame.together.close()
        for task in self.tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self.tasks.clear()
        for frame in self.frames:
            await frame.outlet.close()
        self.frames.clear()
