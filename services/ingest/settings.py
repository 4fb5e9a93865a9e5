"""What ingest reads from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from services.ingest.rates import Rate, rate_of
from shared.settings import Settings


class IngestSettings(Settings):
    """Ingest's own settings beside the common ones."""

    ingest_sources: Path | None = None
    """The file of sources and hashed write keys (see `keyfile.py`); it is watched."""
    ingest_flush_seconds: float = Field(0.003, ge=0, le=1)
    """From the begin of one append to that of the next where many requests come; where few do, it is sooner."""
    ingest_answer_seconds: float = Field(10.0, gt=0, le=300)
    """After which time a client is told that the log has not confirmed; less than the clients' own 15 s."""
    ingest_bytes_in_flight: int = Field(64 * 1024 * 1024, ge=8 * 1024 * 1024)
    """How many bytes may wait for the log; beyond them, requests are answered 503."""
    ingest_rate: float | None = Field(None, gt=0, le=1e9)
    """Events per second that one write key may post to one process, unless its source says otherwise; None: any."""
    ingest_burst: float | None = Field(None, ge=1, le=1e9)
    """How many of them may come at once; None: what ten seconds bring."""

    @property
    def rate(self) -> Rate | None:
        return None if self.ingest_rate is None else rate_of(self.ingest_rate, self.ingest_burst)
