"""What a service is built from, and what it is once built: the same alone and embedded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from shared.clock import Clock
from shared.database.engine import Database
from shared.log.port import Log
from shared.processing.installation import Installation


@dataclass(frozen=True)
class Runtime:
    """The outer world of a service. Only ingest on Kafka does without `database` and `installation`."""

    log: Log
    clock: Clock
    database: Database | None = None
    installation: Installation | None = None


class Service(Protocol):
    """A built service: an ASGI application beside background work."""

    @property
    def name(self) -> str: ...

    @property
    def app(self) -> Any:
        """Its HTTP face (ASGI). Its lifespan is not used: `start` and `stop` are."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Let go of everything in order: finish what is in hand, publish it, release ownership."""
        ...

    async def ready(self) -> list[str]:
        """What keeps it from working now, a line each; empty when it is ready."""
        ...
