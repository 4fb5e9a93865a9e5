"""An installation that knows its customers already, and has mails that fall due from the first second on.

Made as the services themselves store it: pasts by the segmenter's heart, enrollments by that of journeys. Customers
share a few hundred pasts; what is each one's own (key, address, timers) is their own.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from bench.house import House
from bench.traffic import CONTEXT, ORDER, PRODUCT, address, customer, traits
from services.journeys.batch import JourneysBatch, save
from services.journeys.memo import decode_memo
from services.journeys.triggers import Triggers
from services.mailer import store as mailer
from services.mailer.consent import Decision
from services.segmenter.batch import DATE, FLIP
from services.segmenter.profile import Profile, apply, pass_time, reach_date
from services.segmenter.rules import Rules, compile_rules
from services.segmenter.store import pack_profile
from shared.contracts.customers import CustomerRecord
from shared.contracts.events import Event
from shared.contracts.streams import partition_of
from shared.database.clauses import execute
from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database
from shared.language import load, read_folder
from shared.language.playbook import Playbook
from shared.processing import store as mechanics
from shared.processing.agenda import Agenda

PASTS = 500
AT_ONCE = 50_000
CARTS_A_SECOND = 200
ORDERS_A_SECOND = 64
"""What the mix of `bench.traffic` begins at 8,000 events a second."""
SERVER = {"fsync": "off", "shared_buffers": "1GB", "max_wal_size": "16GB"}
"""For the filling alone."""


async def make(
    folder: Path, customers: int, *, pending_seconds: float = 0.0, partitions: int = 12, **house: Any
) -> None:
    """`pending_seconds`: for so long, once the house is up, mails fall due at the rate at which the traffic makes new
    ones: to carts that were left an hour ago, and for orders of two hours ago."""
    async with House(folder, apart=True, partitions=partitions, **house) as begun:
        book = load(read_folder(begun.playbook))
        await begun.caught_up()
    rules = compile_rules(book)
    start = datetime.now(UTC).replace(hour=11, minute=0, second=0, microsecond=0) + timedelta(days=1)
    async with EmbeddedPostgres(folder / "postgres", settings=SERVER) as server:
        database = Database(server.url)
        async with database.connect() as connection:
            pasts = _pasts(rules, start)
            moved = await _begin_journeys(connection, book, rules, pasts, start, customers, pending_seconds, partitions)
            for first in range(0, customers, AT_ONCE):
                numbers = range(first, min(first + AT_ONCE, customers))
                await _fill(connection, {n: moved.get(n) or _own(pasts[n % PASTS], n) for n in numbers}, partitions)
            await connection.execute("VACUUM ANALYZE", timeout=600)
            await connection.execute("CHECKPOINT", timeout=600)
        await database.close()
    (folder / "start").write_text(start.isoformat())


async def set_clock(folder: Path) -> None:
    """Noon of the day that everything was made for; call it with no service running."""
    start = datetime.fromisoformat((folder / "start").read_text())
    async with EmbeddedPostgres(folder / "postgres") as server:
        connection = await asyncpg.connect(server.url)
        await connection.execute(
            "UPDATE processing.installation SET clock_real = $1, clock_shown = $2", datetime.now(UTC), start
        )
        await connection.close()


def _event(name: str, number: int, at: datetime, properties: str = "{}") -> Event:
    return Event(
        id=f"past-{number}-{at.timestamp()}",
        source="shop",
        key=customer(number),
        user_id=customer(number),
        type="track" if name else "identify",
        name=name,
        occurred_at=at,
        received_at=at,
        properties=msgspec.Raw(properties.encode()),
        traits=msgspec.Raw(b"{}" if name else traits(number).encode()),
        context=msgspec.Raw(CONTEXT.encode()),
    )


_PAST = (
    ("Product Viewed", PRODUCT % 1),
    ("Page Viewed", "{}"),
    ("Product Added", PRODUCT % 1),
    ("Order Completed", ORDER % 80 % "past"),
)


def _pasts(rules: Rules, until: datetime) -> list[Profile]:
    chance = random.Random(3)
    found = []
    for number in range(PASTS):
        moments = sorted(until - timedelta(days=1 + 60 * chance.random()) for _ in range(chance.randint(1, 15)))
        profile, _ = apply(None, _event("", number, moments[0]), rules, moments[0])
        for at in moments[1:]:
            profile = _passed(profile, rules, at)
            name = chance.choices(
                ["Product Viewed", "Page Viewed", "Product Added", "Order Completed"], [50, 40, 7, 3]
            )[0]
            properties = PRODUCT % 1 if name.startswith("Product") else ORDER % 80 % "past" if name[0] == "O" else "{}"
            profile, _ = apply(profile, _event(name, number, at, properties), rules, at)
        found.append(_passed(profile, rules, until - timedelta(hours=3)))
    return found


def _passed(profile: Profile, rules: Rules, until: datetime) -> Profile:
    """What time has made of a customer since."""
    while profile.timer is not None and profile.timer <= until:
        profile, _ = pass_time(profile, "", rules, profile.timer)
    for journey, date in list(profile.dates.items()):
        if date.due is not None and date.due <= until:
            profile, _ = reach_date(profile, "", rules, journey, date.due)
    return profile


def _own(past: Profile, number: int) -> Profile:
    """This customer's own, with a past like others'."""
    profile = copy.copy(past)
    profile.traits = {**past.traits, "email": address(number)}
    profile.address = address(number)
    return profile


async def _begin_journeys(
    connection: asyncpg.Connection,
    book: Playbook,
    rules: Rules,
    pasts: Sequence[Profile],
    start: datetime,
    customers: int,
    seconds: float,
    partitions: int,
) -> Mapping[int, Profile]:
    """Carts and orders of the hours before, taken by both hearts. Gives the customers' profiles after it."""
    chance = random.Random(4)
    moved: dict[int, Profile] = {}
    records: dict[int, list[CustomerRecord]] = {partition: [] for partition in range(partitions)}
    for name, rate, ago in (("Order Completed", ORDERS_A_SECOND, 2), ("Product Added", CARTS_A_SECOND, 1)):
        for n in range(int(rate * seconds)):
            number = chance.randrange(customers)
            if number in moved:
                continue
            at = start - timedelta(hours=ago) + timedelta(seconds=n / rate)
            properties = ORDER % 80 % f"past-{n}" if name == "Order Completed" else PRODUCT % 1
            profile = _passed(_own(pasts[number % PASTS], number), rules, at)
            moved[number], told = apply(profile, _event(name, number, at, properties), rules, at)
            records[partition_of(customer(number), partitions)] += told
    triggers = {book.hash: Triggers(book.journeys)}
    for partition, some in records.items():
        memo = await connection.fetchval(
            "SELECT memo FROM processing.partitions WHERE service = 'journeys' AND partition = $1", partition
        )
        batch = JourneysBatch(partition, decode_memo(memo), {book.hash: book}, triggers, {})
        out = _Out(partition, start)
        for record in sorted(some, key=lambda record: record.as_of):
            out.as_of = record.as_of
            batch.handle(record, out)
        timers = mechanics.timers("journeys", {partition: out.agenda.changed})
        await execute(connection, [*save([batch]).clauses, *timers])
    return moved


class _Out:
    """Keeps timers; what was said then was heard then."""

    def __init__(self, partition: int, as_of: datetime) -> None:
        self.partition, self.as_of, self.agenda = partition, as_of, Agenda()

    def emit(self, stream: str, key: str, record: msgspec.Struct | bytes) -> None:
        return

    emit_here = emit

    def emit_everywhere(self, stream: str, record: msgspec.Struct | bytes) -> None:
        raise NotImplementedError

    def set_timer(self, kind: str, subject: str, due: datetime | None) -> None:
        self.agenda.set(kind, subject, due)

    def dead_letter(self, key: str, body: bytes, code: str, message: str) -> None:
        raise AssertionError(f"{code}: {message}")


async def _fill(connection: asyncpg.Connection, profiles: Mapping[int, Profile], partitions: int) -> None:
    places = {number: partition_of(customer(number), partitions) for number in profiles}
    await connection.copy_records_to_table(
        "profiles",
        schema_name="segmenter",
        columns=("partition", "key", "stage", "state"),
        records=((places[n], customer(n), profile.stage, pack_profile(profile)) for n, profile in profiles.items()),
    )
    await connection.copy_records_to_table(
        "timers",
        schema_name="processing",
        columns=("service", "partition", "kind", "subject", "due"),
        records=_timers(profiles, places),
    )
    people: dict[int, dict[str, mailer.Person]] = {}
    for n, profile in profiles.items():
        said = {
            topic: Decision(topic, one.subscribed, one.decided_at, "shop") for topic, one in profile.consent.items()
        }
        people.setdefault(places[n], {})[customer(n)] = mailer.Person(address(n), said)
    for partition, some in people.items():
        await execute(connection, [mailer.people_put([(partition, *one) for one in some.items()])])
    addresses = {person.address: person.decisions.values() for some in people.values() for person in some.values()}
    await mailer.make_addresses(connection, [one for one in addresses if one])
    await mailer.write_consent(connection, {one: decisions for one, decisions in addresses.items() if one})


def _timers(profiles: Mapping[int, Profile], places: Mapping[int, int]) -> Iterator[tuple[Any, ...]]:
    for n, profile in profiles.items():
        if profile.timer is not None:
            yield "segmenter", places[n], FLIP, customer(n), profile.timer
        for journey, date in profile.dates.items():
            if date.due is not None:
                yield "segmenter", places[n], DATE, f"{journey}\n{customer(n)}", date.due
