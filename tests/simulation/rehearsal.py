"""What a run has recorded, lived through by the house in memory, which is what `rapport simulate` lives through.

Events, ticks and activations come in the order of the log, with the outcomes as they were recorded; profiles, stories,
enrollments, and what segmenter and journeys said must be the same, one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from services.journeys.enrollment import Enrollment, key_text
from services.rehearsal.house import House
from services.rehearsal.witness import Witness
from shared.contracts import customers, messages
from shared.contracts.customers import CustomerUpdated, DateReached, Tick
from shared.contracts.events import JOURNEYS_SOURCE, Activation, CutOffs, Event, EventRecord
from shared.contracts.streams import CUSTOMERS, EVENTS, MESSAGES
from shared.database.engine import Database
from shared.log.port import Record
from shared.processing.playbooks import Shelf
from tests.simulation.replay import Beside, Journal, States, differences

_BEFORE = datetime(1970, 1, 1, tzinfo=UTC)
_COMPARED = ("profiles", "stories", "enrollments")
_decode_event = msgspec.json.Decoder(EventRecord).decode
_decode_customer = msgspec.json.Decoder(customers.CustomerRecord).decode
_decode_message = msgspec.json.Decoder(messages.MessageRecord).decode
_encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode


class _Listener(Witness):
    """Keeps all that is told, and how each enrollment stands."""

    def __init__(self) -> None:
        self.told_of: list[bytes] = []
        self.said_to_mailer: list[bytes] = []
        self.reports: list[bytes] = []
        self.enrollments: dict[str, tuple[str, Enrollment]] = {}

    def told(self, record: CustomerUpdated | DateReached, at: datetime) -> None:
        self.told_of.append(_encode(record))

    def said(self, record: messages.MessageRecord, at: datetime) -> None:
        if not isinstance(record, customers.Activation):
            self.said_to_mailer.append(_encode(record))

    def reported(self, event: Event, at: datetime) -> None:
        self.reports.append(_encode(event))

    def moved(self, customer: str, enrollment: Enrollment, at: datetime) -> None:
        self.enrollments[enrollment.id] = customer, enrollment


async def rehearse(
    journal: Journal, recorded: States, beside: Beside, database: Database, shelf: Shelf, partitions: int
) -> list[str]:
    """Where the house in memory differs from what was recorded, a line each. A history in which journeys were paused,
    or people taken along, by hand is not lived through: no playbook says so."""
    if any(map(_is_by_hand, (one for (stream, _), some in journal.items() if stream == EVENTS for one in some))):
        return []
    again: dict[tuple[str, int], list[Record]] = {}
    found: list[str] = []
    rows: dict[str, list[Mapping[str, Any]]] = {name: [] for name in _COMPARED}
    for partition in range(partitions):
        listener = _Listener()
        house = House(None, _BEFORE, witness=listener, remembers=True, recorded=True)
        async with database.connect() as connection:
            for said in _road(journal, partition):
                if isinstance(said, Event):
                    house.take(said)
                elif isinstance(said, Activation):
                    house.pass_to(said.received_at)
                    house.activate(await shelf.get(connection, said.playbook), said.keeps)
                elif isinstance(said, CutOffs):
                    for key in sorted(house.profiles):
                        house.bring_up(key)  # to those of the last night, which says nothing: what did is on the road
                    house.pass_to(said.received_at)
                    house.rank(said)
                elif isinstance(said, CustomerUpdated):
                    house.pass_to(said.as_of)
                    house.bring_up(said.customer.key)
                else:
                    house.pass_to(said.as_of if isinstance(said, Tick) else said.received_at)
        for key in sorted(house.profiles):
            house.bring_up(key)
        _note(house, listener, partition, rows)
        again[CUSTOMERS, partition] = _records(listener.told_of)
        again[MESSAGES, partition] = _records(listener.said_to_mailer)
        reports = {record.value for record in journal[EVENTS, partition] if _is_report(_decode_event(record.value))}
        found += [f"reported only live: {report!r}" for report in sorted(reports - set(listener.reports))[:3]]
        found += [f"reported only in memory: {report!r}" for report in sorted(set(listener.reports) - reports)[:3]]
    told = {name: [{column: row[column] for column in _columns(name)} for row in recorded[name]] for name in _COMPARED}
    return found + differences(_as_said(journal, partitions), told, again, rows, beside)


def _road(journal: Journal, partition: int) -> list[Any]:
    """The events of a partition, with the ticks in the places at which the segmenter gave them out, and what no event
    changed, which the sweep may have, before what was told next."""
    coming = deque((record.offset, _decode_event(record.value)) for record in journal[EVENTS, partition])
    road: list[Any] = []
    beside: list[CustomerUpdated] = []

    def come(before: Callable[[int, Any], bool]) -> None:
        while coming and before(*coming[0]):
            road.append(coming.popleft()[1])
        road.extend(beside)
        beside.clear()

    for one in (_decode_customer(record.value) for record in journal[CUSTOMERS, partition]):
        if isinstance(one, Tick):
            come(lambda offset, said, after=one.after: offset < after)  # type: ignore[misc]
            road.append(one)
        elif isinstance(one, customers.Activation):
            come(lambda offset, said: not isinstance(said, Activation))
            road.append(coming.popleft()[1])
        elif isinstance(one, CustomerUpdated) and one.event is None:
            beside.append(one)
        elif isinstance(one, CustomerUpdated) and not one.derived:
            name = one.event.source, one.event.id
            come(lambda offset, said, name=name: not isinstance(said, Event) or (said.source, said.id) != name)  # type: ignore[misc]
            road.append(coming.popleft()[1])
    come(lambda offset, said: True)
    return road


def _as_said(journal: Journal, partitions: int) -> Journal:
    """Of the journal, what is about customers."""
    found: dict[tuple[str, int], list[Record]] = {}
    for partition in range(partitions):
        told = [record.value for record in journal[CUSTOMERS, partition]]
        found[CUSTOMERS, partition] = _records(
            [value for value in told if isinstance(_decode_customer(value), CustomerUpdated | DateReached)]
        )
        asked = [record.value for record in journal[MESSAGES, partition]]
        found[MESSAGES, partition] = _records(
            [value for value in asked if not isinstance(_decode_message(value), Tick | customers.Activation)]
        )
    return found


def _is_by_hand(record: Record) -> bool:
    said = _decode_event(record.value)
    return isinstance(said, Activation) and bool(said.paused or said.moves)


def _is_report(said: Any) -> bool:
    return isinstance(said, Event) and said.source == JOURNEYS_SOURCE


def _records(values: Sequence[bytes]) -> list[Record]:
    return [Record(offset, "", value) for offset, value in enumerate(values)]


def _columns(table: str) -> tuple[str, ...]:
    return {
        "profiles": ("partition", "key", "stage", "state"),
        "stories": ("partition", "customer", "story", "snapshot"),
        "enrollments": (
            *("partition", "id", "customer", "journey", "version", "key", "status", "step"),
            *("due", "entered_at", "ended_at", "reason", "goal_at"),
        ),
    }[table]


def _note(house: House, listener: _Listener, partition: int, rows: dict[str, list[Mapping[str, Any]]]) -> None:
    """How everything stands, as the tables would have it."""
    for key, profile in house.profiles.items():
        rows["profiles"].append({"partition": partition, "key": key, "stage": profile.stage, "state": _pack(profile)})
    for person in house.people.values():
        stored = person.row()
        if stored is not None:
            row = dict(
                zip(_columns("stories"), (partition, stored.customer, stored.story, stored.snapshot), strict=True)
            )
            rows["stories"].append(row)
    for customer, one in listener.enrollments.values():
        told = (
            *(
                partition,
                UUID(one.id),
                customer,
                one.journey,
                one.version,
                key_text(one.entry.key),
                one.status,
                one.step,
            ),
            *(one.due, one.entry.at, one.ended_at, one.reason, one.goal_at),
        )
        rows["enrollments"].append(dict(zip(_columns("enrollments"), told, strict=True)))
