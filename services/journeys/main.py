"""How journeys is put together: the same alone and embedded."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from services.journeys.api import create
from services.journeys.settings import JourneysSettings
from services.journeys.worker import SERVICE, Journeys
from shared.database.migrations import Migrations
from shared.errors import RapportError
from shared.processing.playbooks import PlaybookShelf
from shared.processing.worker import Worker
from shared.runtime import Runtime

MIGRATIONS = Migrations(SERVICE, Path(__file__).parent / "migrations")


class JourneysService:
    """The built service: a worker over its partitions, and the pages that show what it did."""

    name = SERVICE

    def __init__(self, runtime: Runtime, settings: JourneysSettings) -> None:
        if runtime.database is None:
            raise RapportError("journeys needs a database. Set DATABASE_URL.")
        self._database = runtime.database
        self._log = runtime.log
        self.worker = Worker(runtime, Journeys(PlaybookShelf()), settings)
        self.app: FastAPI = create(runtime.database, runtime.log.partitions, settings.read_keys, self.ready)

    async def start(self) -> None:
        await self.worker.start()

    async def stop(self) -> None:
        await self.worker.stop()

    async def ready(self) -> list[str]:
        problems = [await self._database.ready(), await self._log.ready()]
        return [problem for problem in problems if problem] + await self.worker.ready()


def build(runtime: Runtime, settings: JourneysSettings) -> JourneysService:
    return JourneysService(runtime, settings)
