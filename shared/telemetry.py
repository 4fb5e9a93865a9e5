"""Logs and metrics. This is the one list of every metric; names are `rapport_<service>_<what>_<unit>`."""

from __future__ import annotations

import logging
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.harmless import harmless

if TYPE_CHECKING:
    import structlog


class Tally(Collector):
    """A counter with one label that is added to by one thread only: a plain addition, where prometheus-client's own
    takes a lock and several calls."""

    def __init__(self, name: str, text: str, label: str, registry: CollectorRegistry = REGISTRY) -> None:
        self._family = partial(CounterMetricFamily, name, text, labels=[label])
        self._counts: defaultdict[str, int] = defaultdict(int)
        registry.register(self)

    def add(self, count: int, label: str) -> None:
        self._counts[label] += count

    def describe(self) -> Iterable[Metric]:
        """What the registry asks for before there is anything to collect."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for label, count in list(self._counts.items()):
            family.add_metric([label], count)
        return [family]


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
    "How long after it was due a timer fired: the first of those that the road reached together",
    ["service"],
    buckets=(0.1, 1, 5, 30, 300, 3600),
)
LAG = Gauge("rapport_processing_lag_records", "Records not read yet", ["service", "partition"])
OWNED = Gauge("rapport_processing_partitions_owned", "Partitions that this process owns", ["service"])
HALTED = Gauge("rapport_processing_partitions_halted", "Partitions that stand still and need a person", ["service"])
DEAD_LETTERS = Counter("rapport_processing_dead_letters_total", "Records set aside", ["service", "code"])
OUTBOX = Gauge("rapport_processing_outbox_batches", "Committed batches that are not published yet", ["service"])
WAITING = Gauge("rapport_waiting", "1 while this waits for something that does not answer", ["what"])
FENCED = Counter("rapport_processing_fenced_total", "Partitions lost to another worker", ["service"])

# Ingest.
INGEST_REQUESTS = Tally("rapport_ingest_requests_total", "Calls answered, by `ok` or the code of refusal", "code")
INGEST_EVENTS = Tally("rapport_ingest_events_total", "Events that the log has", "source")
INGEST_REFUSED = Counter("rapport_ingest_refused_total", "Events refused and kept with their bytes", ["source", "code"])
INGEST_APPEND_SECONDS = Histogram("rapport_ingest_append_seconds", "From handing a batch to the log to its answer")
INGEST_BYTES_IN_FLIGHT = Gauge("rapport_ingest_in_flight_bytes", "Bodies being read and entries that wait for the log")
INGEST_SOURCES_INVALID = Gauge("rapport_ingest_sources_invalid", "1 while the file of write keys cannot be used")

# Segmenter.
SEGMENTER_EVENTS = Counter("rapport_segmenter_events_total", "Events, by what became of them", ["outcome"])
SEGMENTER_CHANGES = Counter("rapport_segmenter_changes_total", "Records that moved a stage or a segment", ["cause"])
SEGMENTER_SWEPT = Counter("rapport_segmenter_swept_profiles_total", "Profiles looked at after a change of playbook")
NIGHT_LATE = Gauge(
    "rapport_segmenter_night_late_seconds",
    "How long the day has gone on without its percentiles; 0 where they have come, or nobody asks for them",
)

# Journeys.
ENROLLMENTS_BEGUN = Counter("rapport_journeys_begun_total", "Enrollments begun", ["journey"])
ENROLLMENTS_ENDED = Counter("rapport_journeys_ended_total", "Enrollments ended", ["journey", "reason"])
ENTRIES_DECLINED = Counter("rapport_journeys_declined_total", "Triggers that let nobody in", ["journey", "reason"])
COUPONS_ISSUED = Counter("rapport_coupons_issued_total", "Codes of coupons that were issued", ["pool"])
COUPONS_MISSING = Counter("rapport_coupons_missing_total", "Steps that got no code, since the pool was empty", ["pool"])
COUPONS_UNANNOUNCED = Counter(
    "rapport_coupons_unannounced_total", "Codes of coupons that the shop could not be told of", ["pool"]
)

# Mailer.
MAILER_OUTCOMES = Counter("rapport_mailer_outcomes_total", "How messages ended", ["status", "reason"])
MAILER_HELD = Counter("rapport_mailer_held_total", "Messages held, or to be tried again", ["reason"])
MAILER_IN_HAND = Gauge("rapport_mailer_in_hand_messages", "Messages whose hand-over has begun")
MAILER_DELIVERY_SECONDS = Histogram("rapport_mailer_delivery_seconds", "From the start of a hand-over to its receipt")


class Bound:
    """Lets so many lines of a kind through in a minute, and counts the others.

    The next line of that kind says how many were left out (`left_out`)."""

    def __init__(self, most: int, seconds: float = 60.0, now: Callable[[], float] = time.monotonic) -> None:
        self._most, self._seconds, self._now = most, seconds, now
        self._kinds: dict[Hashable, tuple[float, int]] = {}

    def left_out(self, kind: Hashable) -> int | None:
        """None where this line is one too many, else how many of its kind were left out before it."""
        now = self._now()
        began, count = self._kinds.get(kind, (now, 0))
        before = 0
        if now - began >= self._seconds:
            began, before, count = now, max(0, count - self._most), 0
        self._kinds[kind] = (began, count + 1)
        return before if count < self._most else None


_OWN_LINES = 30
_LIBRARY_LINES = 2


def _bounded(bound: Bound) -> structlog.types.Processor:
    """A broken thing that is met a thousand times is told a few times a minute, with the count."""
    import structlog

    def process(logger: Any, method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        left_out = bound.left_out((event.get("service"), event.get("event")))
        if left_out is None:
            raise structlog.DropEvent
        if left_out:
            event["left_out"] = left_out
        return event

    return process


class _Libraries(logging.Handler):
    """What libraries log, in the form of our own lines, a few of each logger in a minute: a client whose server is away
    says so at each of its attempts."""

    def __init__(self, unbounded: bool) -> None:
        super().__init__()
        self._bound = Bound(sys.maxsize if unbounded else _LIBRARY_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        left_out = self._bound.left_out((record.name, record.levelno))
        if left_out is None:
            return
        import structlog

        more: dict[str, Any] = {"left_out": left_out} if left_out else {}
        if record.exc_info and record.exc_info[0] is not None:
            more["exc_info"] = record.exc_info
        structlog.get_logger(library=record.name).log(record.levelno, record.getMessage().strip(), **more)


def _harmless(logger: Any, name: str, fields: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """What customers wrote may stand in an error, and a traceback is printed as it is."""
    return {field: harmless(value) if isinstance(value, str) else value for field, value in fields.items()}


def configure_logging(level: str = "info", form: str = "auto", file: TextIO = sys.stderr) -> None:
    """Logs go to `file`: as JSON lines, or for people where that is a terminal (or `form` says `console`).

    What libraries warn of is among them. At the level `debug` nothing is left out."""
    import structlog

    console = form == "console" or (form == "auto" and file.isatty())
    renderer = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *([] if level == "debug" else [_bounded(Bound(_OWN_LINES))]),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *([_harmless] if console else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=file),
        cache_logger_on_first_use=False,
    )
    logging.root.handlers[:] = [_Libraries(level == "debug")]
    logging.root.setLevel(logging.WARNING)
