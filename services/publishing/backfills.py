"""`rapport journeys backfill`: who would be invited, and the record that begins, slows or stops it."""

from __future__ import annotations

import re
from datetime import timedelta
from math import ceil

import msgspec

from services.segmenter import store
from services.segmenter.backfills import count_eligible, why_not
from shared.contracts.events import Backfill
from shared.contracts.streams import EVENTS
from shared.errors import RapportError
from shared.language.durations import format_duration
from shared.language.playbook import Journey
from shared.log.port import Entry
from shared.processing.port import Connection
from shared.runtime import Runtime

_HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0}


def per_hour(rate: str) -> float:
    """`500/h`. Raises RapportError."""
    found = re.fullmatch(r"([1-9][0-9]{0,8})/([mhd])", rate)
    if found is None:
        raise RapportError(f"{rate!r} is no rate. Write how many in a minute, an hour or a day: 10/m, 500/h, 2000/d.")
    return int(found[1]) / _HOURS[found[2]]


def possible(journey: Journey, paused: tuple[str, ...]) -> None:
    """Raises RapportError where nobody can be invited to this journey."""
    reason = why_not(journey)
    if reason is not None:
        raise RapportError(f"{journey.name} cannot be backfilled: {reason}")
    if journey.status == "paused" or journey.name in paused:
        raise RapportError(f"{journey.name} is paused and takes nobody in. Resume it first.")


async def foresee(connection: Connection, partitions: int, journey: Journey, inside: int, rate: float) -> str:
    """Who would be invited, and how long it would take."""
    found, known = await count_eligible(connection, range(partitions), journey)
    told = f"{found:,} of {known:,} customers are where {journey.name} lets others in; {inside:,} are inside it already"
    if not found:
        return told
    minutes = ceil(found / rate * 60)
    if minutes > 180:
        minutes = 60 * round(minutes / 60)
    return f"{told}\nat this rate it takes about {format_duration(timedelta(minutes=minutes))}"


async def invite(runtime: Runtime, connection: Connection, journey: str, rate: float) -> bool:
    """Begin, or go on where one has stopped, at this many an hour; 0 stops. Whether it goes on."""
    partitions = runtime.log.partitions
    now = runtime.clock.now()
    last = await store.last_backfill(connection, journey)
    goes_on = last is not None and last.finished < partitions
    occasion = last.occasion if last is not None and goes_on else now.isoformat()
    asked = Backfill(journey=journey, occasion=occasion, per_hour=rate / partitions, received_at=now, v=2)
    value = msgspec.json.encode(asked)
    for partition in range(partitions):
        await runtime.log.append(EVENTS, partition, [Entry("", value)])
    return goes_on
