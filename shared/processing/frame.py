"""What the lanes of one worker share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple
from uuid import UUID

from prometheus_client import Counter, Histogram

from shared.clock import Clock
from shared.database.engine import Database
from shared.log.port import Log, Reader, Record
from shared.processing.outlets import Outlet
from shared.processing.port import Processor
from shared.processing.together import Together
from shared.telemetry import BATCH_RECORDS, BATCH_SECONDS, RECORDS
from shared.trouble import Trouble

BEFORE_TIME = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
"""Where a road stands that nobody has gone yet."""


class Item(NamedTuple):
    """A record, its message (None: not decoded yet; an error: it cannot be), and the time that it moves the road to."""

    record: Record
    message: Any = None
    at: datetime | None = None

    def road_after(self, road: datetime | None) -> datetime:
        """Where the road stands once this is reached: it never goes back."""
        return max(road or BEFORE_TIME, self.at or BEFORE_TIME)


class Counted(NamedTuple):
    """What is counted of every share, found once: looking up a label costs as much as a record."""

    records: Counter
    batch_records: Histogram
    batch_seconds: Histogram


@dataclass(frozen=True)
class Frame:
    """One worker of one service: what it runs on, and what its lanes do one after the other."""

    processor: Processor
    database: Database
    log: Log
    reader: Reader
    outlet: Outlet
    clock: Clock
    worker: UUID
    generation: int
    batch_records: int
    in_flight: asyncio.Semaphore
    leads_time: bool
    """Whether this service reads the clock and writes ticks (segmenter); the others are told the time."""
    trouble: Trouble = field(default_factory=lambda: Trouble("a partition", "It goes on by itself."))
    """What all of them wait for, while something does not answer."""
    care: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a record is taken that may have ended this process before, so that no other is blamed for it."""
    together: Together = field(default_factory=lambda: Together(0.0))

    @cached_property
    def service(self) -> str:
        return self.processor.service

    @cached_property
    def counted(self) -> Counted:
        name = self.service
        return Counted(RECORDS.labels(name), BATCH_RECORDS.labels(name), BATCH_SECONDS.labels(name))
