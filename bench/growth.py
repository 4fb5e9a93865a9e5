"""How cost grows: twice and ten times as many segments, journeys, customers and partitions, and a customer with a very
long past.

The heart of the segmenter is measured by processor time, since nothing else is in it, and so is journeys, over the load
of `bench.journeys`. The whole is measured as `bench.box` does it, for a quarter of a minute each.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import uvloop

from bench import journeys, known
from bench.box import Load
from bench.house import House
from bench.measure import Series
from bench.segmenter import APART, BEGIN, event_of, key_of, lives
from bench.traffic import Traffic
from services.segmenter.profile import Profile, apply
from services.segmenter.rules import Rules, compile_rules
from services.segmenter.store import pack_profile
from shared.language import SHIPPED, load, read_folder

TIMES = (1, 2, 10)
CUSTOMERS = 5_000
EVENTS = 20_000
LONG_PAST = 100_000
TENTH = LONG_PAST // 10

KNOWN = 50_000
WARM_UP_SECONDS = 5
SECONDS = 15


def rules_with(segments: int) -> Rules:
    """The shipped playbook's, and so many segments more. A fifth of them ask about what half of the events are."""
    files = dict(read_folder(SHIPPED))
    names = ("Product Viewed", "Order Completed", "Email Link Clicked", "Product Added", "Checkout Started")
    more = [
        f"  more-{n}:\n    title: More of {n}\n"
        f'    when: count("{names[n % len(names)]}", within={1 + n % 90}d) >= {2 + n % 7}\n'
        for n in range(segments)
    ]
    files["segments.yaml"] += "".join(more).encode()
    return compile_rules(load(files))


def segments(folder: Path) -> Mapping[str, float]:
    """Microseconds of processor time an event."""
    shipped = len(load(read_folder(SHIPPED)).segments)
    return {f"{n} times the segments": _heart(rules_with((n - 1) * shipped)) for n in TIMES}


def _heart(rules: Rules) -> float:
    past, chance = lives(rules), random.Random(3)
    profiles = {key_of(customer): past[customer % len(past)] for customer in range(CUSTOMERS)}
    events = [event_of(chance, n, chance.randrange(CUSTOMERS), BEGIN + n * APART) for n in range(EVENTS)]
    began = time.process_time()
    for event in events:
        profiles[event.key], _ = apply(profiles[event.key], event, rules, event.received_at)
    return 1e6 * (time.process_time() - began) / EVENTS


def long_past(folder: Path) -> Mapping[str, float]:
    """One customer who does something every nine minutes, for nearly two years: the first and the last tenth of it."""
    rules, chance = rules_with(0), random.Random(3)
    events = [event_of(chance, n, 0, BEGIN + n * timedelta(minutes=9)) for n in range(LONG_PAST)]
    profile: Profile | None = None
    tenths: list[float] = []
    bytes_kept = 0
    for first in range(0, LONG_PAST, TENTH):
        began = time.process_time()
        for event in events[first : first + TENTH]:
            profile, _ = apply(profile, event, rules, event.received_at)
        tenths.append(1e6 * (time.process_time() - began) / TENTH)
        assert profile is not None
        bytes_kept = bytes_kept or len(pack_profile(profile))
    assert profile is not None
    return {
        "first tenth": tenths[0],
        "last tenth": tenths[-1],
        "bytes after the first": bytes_kept,
        "bytes after the last": len(pack_profile(profile)),
    }


def more_journeys(folder: Path) -> Mapping[str, float]:
    """Microseconds of the service's processor time a record, where all journeys but one wait for events that nobody
    sends. That it starts is in it."""
    found = {}
    for n in TIMES:
        own = folder / f"journeys-{n}"
        own.mkdir(mode=0o755)  # PostgreSQL runs there as somebody else
        journeys.prepare(own, journeys.Size(others=n * (journeys.OTHER_JOURNEYS + 1) - 1))
        began = time.process_time()
        journeys.run(own)
        found[f"{n} times the journeys"] = 1e6 * (time.process_time() - began) / journeys.RECORDS
    return found


def whole(folder: Path, sizes: Sequence[tuple[str, int, int]]) -> Mapping[str, float]:
    """Events a second of the whole, each service a process, for each number of customers and partitions."""
    found = {}
    for name, customers, partitions in sizes:
        own = folder / name.replace(" ", "-")
        own.mkdir()
        own.chmod(0o755)  # PostgreSQL runs there as somebody else
        found[name] = uvloop.run(_whole(own, customers, partitions))
    return found


async def _whole(folder: Path, customers: int, partitions: int) -> float:
    await known.make(folder, customers, partitions=partitions)
    await known.set_clock(folder)
    async with House(folder, apart=True, partitions=partitions) as house:
        load = Load(house, Traffic(customers, 1, f"growth-{time.time():.0f}"))
        await load.run(WARM_UP_SECONDS)
        rate = await load.run(SECONDS)
        await load.end()
    return rate


def _sizes(what: str, of: Callable[[int], tuple[int, int]]) -> list[tuple[str, int, int]]:
    return [(f"{n} times the {what}", *of(n)) for n in TIMES]


SERIES = (
    Series("growth, segments", "µs an event", segments, more_is_better=False, rounds=1),
    Series("growth, 100,000 events of one customer", "µs; bytes", long_past, more_is_better=False, rounds=1),
    Series("growth, journeys", "µs a record", more_journeys, more_is_better=False, rounds=1, long=True, seconds=900),
    Series(
        "growth, customers",
        "events/s",
        partial(whole, sizes=_sizes("customers", lambda n: (n * KNOWN, 12))),
        rounds=1,
        long=True,
        seconds=900,
    ),
    Series(
        "growth, partitions",
        "events/s",
        partial(whole, sizes=_sizes("partitions", lambda n: (KNOWN, n * 12))),
        rounds=1,
        long=True,
        seconds=900,
    ),
)
