"""How ingest is put together: the same alone and embedded."""

from __future__ import annotations

from services.ingest.api import Intake, create
from services.ingest.batching import OpenBatches
from services.ingest.settings import IngestSettings
from services.ingest.sources import Sources, WatchedSources
from shared.contracts.streams import EVENTS
from shared.errors import RapportError
from shared.runtime import Runtime


class Ingest:
    """The built service. It keeps nothing of its own: what it took is in the log before it says so."""

    name = "ingest"

    def __init__(self, runtime: Runtime, settings: IngestSettings, sources: Sources) -> None:
        self._log, self._sources = runtime.log, sources
        self._batches = OpenBatches(
            runtime.log,
            EVENTS,
            flush_seconds=settings.ingest_flush_seconds,
            answer_seconds=settings.ingest_answer_seconds,
            bytes_in_flight=settings.ingest_bytes_in_flight,
        )
        self.app: Intake = create(sources, self._batches, runtime.clock, runtime.log.partitions, self.ready)

    async def start(self) -> None:
        """Raises RapportError where nobody can be let in: the file of write keys cannot be used."""
        await self._sources.start()
        self.app.open = True

    async def stop(self) -> None:
        """Take no more calls, and answer those in hand when the log has them."""
        self.app.open = False
        await self._batches.close()
        await self._sources.stop()

    async def ready(self) -> list[str]:
        if not self.app.open:
            return ["ingest: takes no calls, since it is starting or stopping"]
        problem = await self._log.ready()
        return [problem] if problem else []


def build(runtime: Runtime, settings: IngestSettings, sources: Sources | None = None) -> Ingest:
    """`sources` says who may post; without it, the file that the settings name does."""
    if sources is None:
        if settings.ingest_sources is None:
            raise RapportError("RAPPORT_INGEST_SOURCES is not set. Name the file with the hashed write keys.")
        sources = WatchedSources(settings.ingest_sources, settings.rate)
    return Ingest(runtime, settings, sources)
