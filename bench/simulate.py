"""How fast a history is simulated, and what memory it takes.

The history is the usual traffic of `bench.traffic` under the shipped playbook, as a file of messages. A round reads it,
lives through it and makes the report: in one process, where its figure is events a second of processor time; or as the
command does it, with a process for each core, by the clock. Memory is the peak of a round over a history three times as
long with the same customers, beside one over the short history: what grows with events would show there. Reading alone
says how much of the time is gone before anything happens.
"""

from __future__ import annotations

import resource
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from bench.measure import Series
from bench.traffic import Traffic
from services.backtest.processes import simulate_shared
from services.backtest.reading import History
from services.backtest.simulation import simulate
from shared.contracts.events import Event
from shared.language import SHIPPED, load, read_folder

CUSTOMERS = 20_000
EVENTS = 300_000
DAYS = 60
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def prepare(folder: Path) -> None:
    write(folder / "short.ndjson", EVENTS, DAYS)


def prepare_both(folder: Path) -> None:
    prepare(folder)
    write(folder / "long.ndjson", 3 * EVENTS, 3 * DAYS)


def write(path: Path, events: int, days: int) -> None:
    traffic = Traffic(CUSTOMERS, seed=1, run="past")
    apart = timedelta(days=days) / events
    with path.open("w") as lines:
        for number in range(events):
            _, event = traffic.usual()
            at = (BEGIN + number * apart).isoformat()
            lines.write(f'{event[:-1]},"timestamp":"{at}"}}\n')


def lived(path: Path) -> float:
    """Seconds of processor time."""
    playbook = load(read_folder(SHIPPED))
    began = time.process_time()
    (simulation,) = simulate([playbook], [History(path)], lambda read: None)
    report = simulation.report()
    seconds = time.process_time() - began
    assert report.sent > 0
    return seconds


def speed(folder: Path) -> float:
    return EVENTS / lived(folder / "short.ndjson")


def speed_of_reading(folder: Path) -> float:
    """What is left of the bound before anything has happened: lines read, admitted, and dropped."""
    began = time.process_time()
    read = sum(isinstance(one, Event) for one in History(folder / "short.ndjson"))
    seconds = time.process_time() - began
    assert read == EVENTS
    return EVENTS / seconds


def speed_of_decoding(folder: Path) -> float:
    began = time.process_time()
    with (folder / "short.ndjson").open("rb") as lines:
        for line in lines:
            msgspec.json.decode(line)
    return EVENTS / (time.process_time() - began)


def speed_on_all_cores(folder: Path) -> float:
    """With the time in which the processes start: a longer history has less of it."""
    files = read_folder(SHIPPED)
    began = time.perf_counter()
    told = simulate_shared([files], [(folder / "short.ndjson", None)], None, lambda read: None)
    seconds = time.perf_counter() - began
    assert told.reports[0].events == EVENTS
    return EVENTS / seconds


def peak_after_long(folder: Path) -> float:
    return _peak(folder / "long.ndjson")


def peak_after_short(folder: Path) -> float:
    return _peak(folder / "short.ndjson")


def _peak(path: Path) -> float:
    lived(path)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


SERIES = [
    Series(
        "simulate",
        "events/s of processor time",
        speed,
        goal=50_000,
        prepare=prepare,
        rounds=3,
    ),
    Series(
        "simulate, reading alone",
        "events/s of processor time",
        speed_of_reading,
        limit=speed_of_decoding,
        limit_name="lines decoded by msgspec",
        prepare=prepare,
        rounds=3,
    ),
    Series(
        "simulate on all cores",
        "events/s",
        speed_on_all_cores,
        goal=50_000,
        prepare=prepare,
        rounds=3,
    ),
    Series(
        "simulate, memory after three times the events",
        "MB",
        peak_after_long,
        limit=peak_after_short,
        limit_name="after once the events",
        more_is_better=False,
        prepare=prepare_both,
        rounds=1,
        long=True,
    ),
]
