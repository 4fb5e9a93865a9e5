"""What would become of those inside older versions of a journey if they were taken along to the one in force."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from services.journeys import store
from services.journeys.commands import SendMessage
from services.journeys.coupons import Stock
from services.journeys.engine import Course
from services.journeys.enrollment import Enrollment
from services.journeys.moving import take_along
from services.journeys.person import Person
from services.terminal import VERSION_SHOWN
from shared.language.playbook import Journey, Playbook
from shared.processing import partitions, playbooks
from shared.processing.port import Connection

_AT_ONCE = 500
"""Customers in memory."""


class Outlook(NamedTuple):
    """Where somebody stands, and what would become of them."""

    version: str
    step: str
    status: str
    becomes: str


async def foresee(connection: Connection, count: int, journey: Journey, playbook: Playbook) -> Counter[Outlook]:
    """How many would fare how: asked of each of them by the function that will move them. `count` is that of the
    partitions."""
    shelf = playbooks.PlaybookShelf()
    roads = {one.partition: one.as_of for one in await partitions.standings(connection, "journeys")}
    if journey.name in await playbooks.paused_by_hand(connection):
        playbook = playbook.pausing([journey.name])
    course = Course(journey, playbook.journeys[journey.name].status, playbook, Stock())
    found: Counter[Outlook] = Counter()
    for partition in range(count):
        now = roads.get(partition)
        after = ""
        while now is not None:
            keys = await store.customers_elsewhere(
                connection, partition, {journey.name: journey.version}, after, _AT_ONCE
            )
            rows = await store.customers(connection, [(partition, key) for key in keys]) if keys else {}
            for key, row in rows.get(partition, {}).items():
                person = Person(key, row)
                for one in person.enrollments:
                    if one.journey != journey.name or not one.inside or one.version == journey.version:
                        continue
                    own = (await shelf.get(connection, one.playbook)).journeys[journey.name]
                    moved, commands = take_along(own, course, one, person.latest, now)
                    sends = [command.message for command in commands if isinstance(command, SendMessage)]
                    found[Outlook(one.version, one.step, one.status, _in_words(one, moved, sends))] += 1
            if len(keys) < _AT_ONCE:
                break
            after = keys[-1]
    return found


def _in_words(before: Enrollment, after: Enrollment, sends: list[str]) -> str:
    if after.version == before.version:
        return "finishes the version that they began: the new one has no such step"
    if sends:
        return f"goes on at once, and is sent {', '.join(sends)}"
    if not after.inside:
        return f"leaves at once: {after.reason}"
    if (after.step, after.status) != (before.step, before.status):
        return f"goes on at once, to {after.step}"
    if after.due != before.due:
        return "goes on there, due at another time"
    return "goes on there"


def as_text(found: Counter[Outlook]) -> str:
    if not found:
        return "nobody is inside an older version"
    lines = [f"{sum(found.values())} inside older versions:"]
    for outlook, count in sorted(found.items()):
        at = f"{outlook.step} ({outlook.status})" if outlook.step else outlook.status.replace("_", " ")
        lines.append(f"  {count:>7,}  {outlook.version[:VERSION_SHOWN]}  {at}: {outlook.becomes}")
    return "\n".join(lines)
