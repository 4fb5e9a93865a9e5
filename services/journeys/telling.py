"""Putting a customer's story together: journeys' own part from its tables, the others' from whoever has them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from services.journeys import store, whynot
from services.journeys.person import Person
from services.journeys.story import Books, Own, Story, Teller, playbooks_named, zone_for
from shared.contracts.story import Mailed, Remembered
from shared.language.playbook import EventTrigger
from shared.processing import playbooks
from shared.processing.playbooks import Shelf
from shared.processing.port import Connection


class Elsewhere(Protocol):
    """The parts of the story that other services have."""

    async def remembered(self, customer: str, since: datetime, names: Sequence[str]) -> Remembered:
        """The segmenter's, with the latest events of these names."""
        ...

    async def mailed(self, customer: str, since: datetime) -> Mailed: ...


async def story_of(
    connection: Connection,
    shelf: Shelf,
    elsewhere: Elsewhere,
    partition: int,
    customer: str,
    subject: str | None,
    now: datetime,
    kept: timedelta,
) -> Story | None:
    """None where nobody has this key. `subject` is the name or id of a message, or a journey's name, if only the part
    about it is wanted. Raises `whynot.NoSuchMessage`."""
    since = now - kept
    own = await own_part(connection, partition, customer)
    in_force = await playbooks.in_force(connection)
    paused = await playbooks.paused_by_hand(connection)
    book = await shelf.get(connection, playbooks.name_in_force(in_force, paused)) if in_force is not None else None
    triggers = [journey.trigger for journey in book.journeys.values()] if book is not None and subject else []
    names = sorted({trigger.event for trigger in triggers if isinstance(trigger, EventTrigger)})
    remembered = await elsewhere.remembered(customer, since, names)
    mailed = await elsewhere.mailed(customer, since)
    if remembered.customer is None and not own.decided and not mailed.messages:
        return None
    files = await playbooks.files_of(connection, playbooks_named(own, remembered, mailed))
    books = Books(book, files)
    teller = Teller(books, zone_for(remembered, books), remembered, mailed, now)
    return whynot.tell(customer, teller, own, since, subject)


async def own_part(connection: Connection, partition: int, customer: str) -> Own:
    decided = await store.decisions_of(connection, partition, customer)
    stored = await store.customers(connection, [(partition, customer)])
    person = Person(customer, stored.get(partition, {}).get(customer))
    person.read()
    return Own(decided, tuple(person.enrollments), tuple(person.left))
