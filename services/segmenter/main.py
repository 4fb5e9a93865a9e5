"""How the segmenter is put together: the same alone and embedded."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from services.segmenter.api import create
from services.segmenter.past import Rulebook
from services.segmenter.settings import SegmenterSettings
from services.segmenter.worker import SegmenterProcessor
from shared.database.revisions import Migrations
from shared.errors import RapportError
from shared.processing.playbooks import PlaybookShelf
from shared.processing.worker import Worker
from shared.runtime import Runtime

MIGRATIONS = Migrations("segmenter", Path(__file__).parent / "migrations")


class Segmenter:
    """The built service."""

    name = "segmenter"

    def __init__(self, runtime: Runtime, settings: SegmenterSettings) -> None:
        if runtime.database is None:
            raise RapportError("segmenter needs a database. Set DATABASE_URL.")
        shelf = PlaybookShelf()
        self._worker = Worker(runtime, SegmenterProcessor(shelf), settings)
        self.app: FastAPI = create(
            runtime.database, Rulebook(shelf), runtime.log.partitions, settings.read_keys, self.ready
        )

    async def start(self) -> None:
        await self._worker.start()

    async def stop(self) -> None:
        await self._worker.stop()

    async def ready(self) -> list[str]:
        return await self._worker.ready()


def build(runtime: Runtime, settings: SegmenterSettings) -> Segmenter:
    return Segmenter(runtime, settings)
