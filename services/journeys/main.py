"""How journeys is put together: the same alone and embedded."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI

from services.journeys.api import create
from services.journeys.settings import JourneysSettings
from services.journeys.worker import SERVICE, JourneysProcessor
from shared.database.revisions import Migrations
from shared.errors import RapportError
from shared.processing.playbooks import PlaybookShelf
from shared.processing.worker import Worker
from shared.runtime import Runtime

MIGRATIONS = Migrations(SERVICE, Path(__file__).parent / "migrations")


class Journeys:
    """The built service: a worker over its partitions, and the pages that show what it did."""

    name = SERVICE

    def __init__(self, runtime: Runtime, settings: JourneysSettings) -> None:
        if runtime.database is None:
            raise RapportError("journeys needs a database. Set DATABASE_URL.")
        shelf = PlaybookShelf()
        self.worker = Worker(runtime, JourneysProcessor(shelf, timedelta(days=settings.story_days)), settings)
        self.app: FastAPI = create(runtime.database, shelf, runtime.clock, runtime.log.partitions, settings, self.ready)

    async def start(self) -> None:
        await self.worker.start()

    async def stop(self) -> None:
        await self.worker.stop()

    async def ready(self) -> list[str]:
        return await self.worker.ready()


def build(runtime: Runtime, settings: JourneysSettings) -> Journeys:
    return Journeys(runtime, settings)
