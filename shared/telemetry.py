"""Logs and metrics. This is the one list of every metric; names are `rapport_<service>_<what>_<unit>`."""

from __future__ import annotations

import logging
import sys

import structlog
from prometheus_client import Counter, Gauge, Histogram

# The mechanics, by service.
RECORDS = Counter("rapport_processing_records_total", "Records taken from a stream", ["service"])
DUPLICATES = Counter("rapport_processing_duplicates_total", "Records dropped as already taken", ["service"])
BATCH_RECORDS = Histogram(
    "rapport_processing_batch_records",
    "Records in one fenced transaction",
    ["service"],
    buckets=(1, 10, 100, 500, 1000, 2000),
)
BATCH_SECONDS = Histogram("rapport_processing_batch_seconds", "From load to COMMIT", ["service"])
TIMERS_FIRED = Counter("rapport_processing_timers_total", "Timers fired", ["service"])
TIMER_LATENESS = Histogram(
    "rapport_processing_timer_lateness_seconds",
    "How long after it was due a timer fired",
    ["service"],
    buckets=(0.1, 1, 5, 30, 300, 3600),
)
LAG = Gauge("rapport_processing_lag_records", "Records not read yet", ["service", "partition"])
OWNED = Gauge("rapport_processing_partitions_owned", "Partitions that this process owns", ["service"])
HALTED = Gauge("rapport_processing_partitions_halted", "Partitions that stand still and need a person", ["service"])
DEAD_LETTERS = Counter("rapport_processing_dead_letters_total", "Records set aside", ["service", "code"])
OUTBOX = Gauge("rapport_processing_outbox_batches", "Committed batches that are not published yet", ["service"])
FENCED = Counter("rapport_processing_fenced_total", "Partitions lost to another worker", ["service"])

# Ingest.

# Segmenter.

# Journeys.

# Mailer.


def configure_logging(level: str = "info", form: str = "auto") -> None:
    """Logs go to standard error: as JSON lines, or for people where that is a terminal (or `form` says `console`)."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
