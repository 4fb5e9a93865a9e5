"""The SQL of the mailer's road: messages, from a request to its outcome, what is known of customers, and consent.

What pages, links and reports ask stands in `page_store.py`.

Rows of `messages` and `customers` are written by their partition's owner alone, inside its fenced transactions, but for
one change of what is over (`page_store.resolve`). Rows of `addresses` and `consent` are written by whoever answers an
unsubscribe, too: lock the address first (`lock_addresses`), then read or write its consent in a later statement, and
the order of the two transactions is the order of the locks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

import msgspec

from services.mailer.consent import Decision, merge
from shared.contracts.messages import EMAIL, MessageRequested
from shared.database.clauses import Clause, columns
from shared.database.keys import ASKED, THEIRS, by_partition
from shared.processing.port import Connection

_pack = msgspec.msgpack.Encoder().encode
# As JSON, since what templates see may hold integers of any length: expressions multiply.
_pack_request = msgspec.json.Encoder().encode
unpack_request = msgspec.json.Decoder(MessageRequested).decode
_unpack_decisions = msgspec.msgpack.Decoder(list[Decision]).decode


# What the owner of a partition reads and writes in its batches.


@dataclass(slots=True)
class Message:
    """A message's row as far as batches change it. See the migration for what the fields mean."""

    id: str
    customer: str
    status: str
    due: datetime
    reason: str = ""
    cancelled: str = ""
    ended_at: datetime | None = None
    channel: str = EMAIL
    request: MessageRequested | None = None
    """Present where this batch brought it; else `packed` has it."""
    packed: bytes = b""

    @property
    def asked(self) -> MessageRequested:
        if self.request is None:
            self.request = unpack_request(self.packed)
        return self.request


@dataclass(slots=True)
class Person:
    """A customer's address of the moment, as it was given, the customer's own decisions by topic, and until when
    nothing promotional goes to them."""

    address: str | None = None
    decisions: dict[str, Decision] = field(default_factory=dict)
    paused_until: datetime | None = None


class Changes(NamedTuple):
    """What a batch writes: `new` messages, and `changed` ones that were there; which journeys are paused from when on,
    where a playbook came into force; for whom a pause of promotion was `lifted`, and when; people, and the `addresses`
    and decisions by address that they brought. `as_of` is when the last of the new ones came."""

    new: Sequence[Message]
    changed: Sequence[Message]
    activated: Sequence[tuple[Collection[str], datetime]]
    lifted: Mapping[str, datetime]
    people: Mapping[str, Person]
    addresses: Collection[str]
    consent: Mapping[str, Sequence[Decision]]
    as_of: datetime


def written(changes: Mapping[int, Changes]) -> list[Clause]:
    """What batches of several partitions have changed in rows that only their owner writes."""
    clauses = []
    if new := [(partition, message) for partition, one in changes.items() for message in one.new]:
        clauses.append(new_messages(new))
    if messages := [message for one in changes.values() for message in one.changed]:
        clauses.append(_updated(messages))
    if people := [(p, customer, person) for p, one in changes.items() for customer, person in one.people.items()]:
        clauses.append(people_put(people))
    return clauses


async def write(connection: Connection, changes: Mapping[int, Changes]) -> list[Clause]:
    """What else they have changed, once that is written. Gives what may be written last."""
    for partition, one in changes.items():
        for paused, at in one.activated:
            await release(connection, partition, paused, at)
        if one.lifted:
            await release_of(connection, partition, one.lifted)
    # Rows that other processes write come last, so that their locks are held as briefly as can be.
    if addresses := {address for one in changes.values() for address in one.addresses}:
        await make_addresses(connection, addresses)
    decisions: dict[str, list[Decision]] = {}
    for one in changes.values():
        for address, of_one in one.consent.items():
            decisions.setdefault(address, []).extend(of_one)
    if decisions:
        await lock_addresses(connection, decisions)
        await write_consent(connection, decisions)
    # In small steps, and faster than new ones come.
    bounds = [(partition, one.as_of, 2 * len(one.new)) for partition, one in changes.items() if one.new]
    return [_forgotten(bounds)] if bounds else []


async def messages_by_id(connection: Connection, ids: Collection[str]) -> dict[str, Message]:
    rows = await connection.fetch(
        "SELECT id, customer, status, due, reason, cancelled, ended_at, channel, request FROM mailer.messages"
        " WHERE id = ANY($1::text[])",
        list(ids),
    )
    return {
        row["id"]: Message(
            row["id"],
            row["customer"],
            row["status"],
            row["due"],
            row["reason"],
            row["cancelled"],
            row["ended_at"],
            row["channel"],
            packed=row["request"],
        )
        for row in rows
    }


def new_messages(messages: Sequence[tuple[int, Message]]) -> Clause:
    """Each with its partition."""
    rows = []
    for partition, message in messages:
        asked = message.asked
        rows.append(
            (
                *(partition, message.id, message.customer, asked.journey, asked.message, asked.topic, asked.priority),
                *(message.status, message.due, asked.expires, message.reason, message.cancelled),
                *(asked.as_of, message.ended_at, _pack_request(asked), asked.channel),
            )
        )
    return Clause(_NEW, columns(rows, 16))


_NEW = """
    new_messages AS (
        INSERT INTO mailer.messages (partition, id, customer, journey, message, topic, priority, status, due, expires,
                                     reason, cancelled, requested_at, ended_at, request, channel)
        SELECT * FROM unnest($1::smallint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                             $7::smallint[], $8::text[], $9::timestamptz[], $10::timestamptz[], $11::text[],
                             $12::text[], $13::timestamptz[], $14::timestamptz[], $15::bytea[], $16::text[])
        ON CONFLICT (id) DO NOTHING)"""


def _updated(messages: Sequence[Message]) -> Clause:
    rows = [(one.id, one.status, one.due, one.reason, one.cancelled, one.ended_at) for one in messages]
    return Clause(_UPDATED, columns(rows, 6))


_UPDATED = """
    updated_messages AS (
        UPDATE mailer.messages m
           SET status = u.status, due = u.due, reason = u.reason, cancelled = u.cancelled, ended_at = u.ended_at
          FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::timestamptz[])
               AS u (id, status, due, reason, cancelled, ended_at)
         WHERE m.id = u.id)"""


KEPT = timedelta(days=90)
"""How long a message that did not go out is kept after its end, and after its expiry: were it asked for again then, it
would be skipped for having expired."""
LINKS_KEPT = timedelta(days=730)
"""How long one that went out, or may have, is kept: so long its links lead somewhere, and it counts under caps."""


def _forgotten(bounds: Sequence[tuple[int, datetime, int]]) -> Clause:
    """For each partition, delete messages that were over long before a time, the oldest first: up to so many of those
    that went out, and as many of those that did not."""
    return Clause(_FORGOTTEN, (*columns(bounds, 3), LINKS_KEPT, KEPT))


_FORGOTTEN = """
    forgotten AS (DELETE FROM mailer.messages WHERE id = ANY(ARRAY(
        SELECT old.id FROM unnest($1::smallint[], $2::timestamptz[], $3::bigint[]) AS b (partition, now, most),
            LATERAL ((SELECT id FROM mailer.messages m WHERE m.partition = b.partition
                         AND status IN ('sent', 'unknown') AND ended_at < b.now - $4::interval
                         AND expires < b.now - $4::interval ORDER BY ended_at LIMIT b.most)
                     UNION ALL
                     (SELECT id FROM mailer.messages m WHERE m.partition = b.partition
                         AND status IN ('skipped', 'failed') AND ended_at < b.now - $5::interval
                         AND expires < b.now - $5::interval ORDER BY ended_at LIMIT b.most)) AS old)))"""


async def release(connection: Connection, partition: int, paused: Collection[str], due: datetime) -> None:
    """Let what was held for want of a playbook, or with a journey that is none of the `paused`, be decided anew; it
    stands for the instant `due`."""
    # Both reasons (`policy.NO_PLAYBOOK`, `policy.PAUSED`) are spelled out: so the index serves that has no other rows.
    await connection.execute(
        "UPDATE mailer.messages SET status = 'requested', due = least(due, $3)"
        " WHERE partition = $1 AND status = 'held' AND reason IN ('no_playbook', 'paused')"
        " AND (reason = 'no_playbook' OR NOT journey = ANY($2::text[]))",
        partition,
        list(paused),
        due,
    )


async def people(connection: Connection, customers: Collection[tuple[int, str]]) -> dict[int, dict[str, Person]]:
    """What is known of these customers, each named with its partition; by partition."""
    rows = await connection.fetch(
        "SELECT c.*"
        f" FROM {ASKED}, LATERAL (SELECT partition, customer, address, decisions, paused_until FROM mailer.customers"
        f" WHERE partition = asked.partition AND customer = {THEIRS} OFFSET 0) AS c",
        *by_partition(customers),
    )
    found: dict[int, dict[str, Person]] = {}
    for partition, customer, address, decisions, paused_until in rows:
        found.setdefault(partition, {})[customer] = Person(address, _decisions(decisions), paused_until)
    return found


def _decisions(packed: bytes | None) -> dict[str, Decision]:
    return {decision.topic: decision for decision in _unpack_decisions(packed)} if packed else {}


def people_put(people: Sequence[tuple[int, str, Person]]) -> Clause:
    rows = [
        (partition, customer, one.address, _pack([*one.decisions.values()]) if one.decisions else b"", one.paused_until)
        for partition, customer, one in people
    ]
    return Clause(_PEOPLE, columns(rows, 5))


_PEOPLE = """
    people_put AS (
        INSERT INTO mailer.customers (partition, customer, address, decisions, paused_until)
        SELECT * FROM unnest($1::smallint[], $2::text[], $3::text[], $4::bytea[], $5::timestamptz[])
        ON CONFLICT (partition, customer) DO UPDATE SET address = EXCLUDED.address, decisions = EXCLUDED.decisions,
            paused_until = EXCLUDED.paused_until)"""


async def release_of(connection: Connection, partition: int, customers: Mapping[str, datetime]) -> None:
    """Let what a pause of promotion to these customers has held be decided anew; it stands for the instant at which
    the pause was lifted."""
    await connection.execute(
        "UPDATE mailer.messages m SET status = 'requested', due = least(due, lifted.at)"
        " FROM unnest($2::text[], $3::timestamptz[]) AS lifted (customer, at)"
        " WHERE m.partition = $1 AND m.customer = lifted.customer AND m.status = 'held' AND m.reason = 'paused'",
        partition,
        list(customers),
        list(customers.values()),
    )


# Consent and suppression, by normalised address.


async def make_addresses(connection: Connection, addresses: Collection[str]) -> None:
    """Rows to be locked. In order, like the locks, so that two transactions never wait for each other in a ring."""
    await connection.execute(
        "INSERT INTO mailer.addresses (address) SELECT a FROM unnest($1::text[]) AS a ON CONFLICT DO NOTHING",
        sorted(addresses),
    )


async def lock_addresses(connection: Connection, addresses: Collection[str]) -> dict[str, str]:
    """Hold these addresses to the end of the transaction. Gives why each is suppressed; empty where it is not."""
    rows = await connection.fetch(
        "SELECT address, suppressed FROM mailer.addresses WHERE address = ANY($1::text[]) ORDER BY address FOR UPDATE",
        sorted(addresses),
    )
    return {row["address"]: row["suppressed"] for row in rows}


async def lock_free(connection: Connection, addresses: Collection[str]) -> dict[str, str]:
    """Hold those of these addresses that no other transaction holds, as `lock_addresses` does. For whoever may hold
    others already: who never waits for a second one cannot be part of a ring."""
    rows = await connection.fetch(
        "SELECT address, suppressed FROM mailer.addresses WHERE address = ANY($1::text[]) FOR UPDATE SKIP LOCKED",
        list(addresses),
    )
    return {row["address"]: row["suppressed"] for row in rows}


async def suppress(connection: Connection, addresses: Mapping[str, str], now: datetime) -> None:
    """Never write to these addresses again, each for its reason. Their rows are locked."""
    await connection.execute(
        "UPDATE mailer.addresses a SET suppressed = s.reason, suppressed_at = $3"
        " FROM unnest($1::text[], $2::text[]) AS s (address, reason) WHERE a.address = s.address AND a.suppressed = ''",
        list(addresses),
        list(addresses.values()),
        now,
    )


async def consent_of(connection: Connection, addresses: Collection[str]) -> dict[str, dict[str, Decision]]:
    """What was decided about each address, by topic."""
    rows = await connection.fetch(
        "SELECT address, topic, subscribed, decided_at, source FROM mailer.consent WHERE address = ANY($1::text[])",
        list(addresses),
    )
    found: dict[str, dict[str, Decision]] = {address: {} for address in addresses}
    for row in rows:
        found[row["address"]][row["topic"]] = Decision(
            row["topic"], row["subscribed"], row["decided_at"], row["source"]
        )
    return found


async def write_consent(connection: Connection, decisions: Mapping[str, Iterable[Decision]]) -> None:
    """Merge decisions by address into what is kept: the latest wins, "no" wins a tie. The addresses are locked."""
    rows = [
        (address, *decision)
        for address in sorted(decisions)
        for _, decision in sorted(merge({}, decisions[address]).items())
    ]
    if not rows:
        return
    await connection.execute(
        "INSERT INTO mailer.consent AS known (address, topic, subscribed, decided_at, source)"
        " SELECT * FROM unnest($1::text[], $2::text[], $3::boolean[], $4::timestamptz[], $5::text[])"
        " ON CONFLICT (address, topic) DO UPDATE SET subscribed = EXCLUDED.subscribed,"
        " decided_at = EXCLUDED.decided_at, source = EXCLUDED.source WHERE EXCLUDED.decided_at > known.decided_at"
        " OR (EXCLUDED.decided_at = known.decided_at AND known.subscribed AND NOT EXCLUDED.subscribed)",
        *(list(column) for column in zip(*rows, strict=True)),
    )


async def decide_consent(connection: Connection, key: str | None, decisions: Iterable[Decision]) -> None:
    """Take a person's decisions about an address in the form in which it is kept, in a transaction of its own (or
    inside the caller's).

    When it has committed, no hand-over against them begins any more: answer the person after that, not before.
    """
    if key is None:
        return
    async with connection.transaction():
        await make_addresses(connection, [key])
        await lock_addresses(connection, [key])
        await write_consent(connection, {key: decisions})


# Handing over.


class Candidate(NamedTuple):
    """A message whose next decision is due, with the customer's address of the moment as it was given, and until when
    nothing promotional goes to the customer."""

    id: str
    due: datetime
    attempts: int
    address: str | None
    request: MessageRequested
    paused_until: datetime | None
    decisions: Mapping[str, Decision] | None = None
    """The customer's own, where they do not all stand at the address that it goes to."""

    def said(self, of_address: Mapping[str, Decision]) -> Mapping[str, Decision]:
        """What holds of what was decided about the address and by the customer."""
        return merge(of_address, self.decisions.values()) if self.decisions else of_address


class Change(NamedTuple):
    """What a decision or an outcome makes of a message. `address` and `links` are for one that comes to `sending`; with
    all others what is there stays."""

    id: str
    status: str
    due: datetime
    reason: str = ""
    detail: str = ""
    held: str | None = None
    """A line to be added to the story of its holds."""
    attempts: int = 0
    taken: str = ""
    counted_at: datetime | None = None
    ended_at: datetime | None = None
    address: str | None = None
    links: tuple[str, ...] | None = None
    over: MessageRequested | None = None
    """The request of a message that has ended: what it was rendered from is not kept."""


class InHand(NamedTuple):
    """A message in `sending`: `taken` names the hand-over, `address` is the one it goes to."""

    id: str
    due: datetime
    attempts: int
    taken: str
    address: str
    counted_at: datetime | None
    request: MessageRequested


# Spelled out in each statement, so that the index serves that has no others.
Channel = Literal["email", "webhook", "sms", "push"]


async def to_decide(
    connection: Connection, limits: Mapping[int, int], channel: Channel = "email"
) -> dict[int, list[Candidate]]:
    """Messages of a channel whose decision is due, so many of each partition: by the instant that it stands for, the
    more important ones first."""
    rows = await connection.fetch(
        "SELECT m.partition, m.id, m.due, m.attempts, c.address, c.paused_until, c.decisions, m.request"
        "  FROM unnest($1::smallint[], $2::integer[]) AS p (partition, most) CROSS JOIN LATERAL ("
        "       SELECT partition, id, customer, due, priority, attempts, request FROM mailer.messages"
        f"       WHERE partition = p.partition AND status = 'requested' AND channel = '{channel}'"
        "        ORDER BY due, priority DESC, id LIMIT p.most) AS m"
        "  LEFT JOIN mailer.customers c ON c.partition = m.partition AND c.customer = m.customer"
        " ORDER BY m.due, m.priority DESC, m.id",
        list(limits),
        list(limits.values()),
    )
    found: dict[int, list[Candidate]] = {partition: [] for partition in limits}
    for row in rows:
        found[row["partition"]].append(
            Candidate(
                row["id"],
                row["due"],
                row["attempts"],
                row["address"],
                unpack_request(row["request"]),
                row["paused_until"],
                _decisions(row["decisions"]) if channel in ("sms", "push") else None,
            )
        )
    return found


async def in_hand(connection: Connection, partition: int, channel: Channel = "email") -> list[InHand]:
    """The messages of a partition and a channel that are in `sending`."""
    rows = await connection.fetch(
        "SELECT id, due, attempts, taken, address, counted_at, request FROM mailer.messages"
        f" WHERE partition = $1 AND status = 'sending' AND channel = '{channel}' ORDER BY due, id",
        partition,
    )
    return [
        InHand(
            row["id"],
            row["due"],
            row["attempts"],
            row["taken"],
            row["address"],
            row["counted_at"],
            unpack_request(row["request"]),
        )
        for row in rows
    ]


async def cancelled_of(connection: Connection, ids: Collection[str]) -> dict[str, str]:
    """Why messages were cancelled while they were in hand; only those that were."""
    rows = await connection.fetch(
        "SELECT id, cancelled FROM mailer.messages WHERE id = ANY($1::text[]) AND cancelled <> ''", list(ids)
    )
    return {row["id"]: row["cancelled"] for row in rows}


async def counted(
    connection: Connection, customers: Collection[str], since: datetime, channel: Channel = "email"
) -> dict[tuple[str, str], list[datetime]]:
    """When messages that count under the caps of a channel were handed over after `since`, in order, by customer and
    channel."""
    rows = await connection.fetch(
        "SELECT customer, counted_at FROM mailer.messages WHERE customer = ANY($1::text[]) AND counted_at > $2"
        f" AND channel = '{channel}' ORDER BY counted_at",
        list(customers),
        since,
    )
    found: dict[tuple[str, str], list[datetime]] = {(customer, channel): [] for customer in customers}
    for row in rows:
        found[row["customer"], channel].append(row["counted_at"])
    return found


def changed(channel: Channel, changes: Sequence[Change]) -> list[Clause]:
    """What decisions and outcomes make of messages, all of one channel. Most of it does not concern what is taken in
    hand, and each array costs something for each message."""
    taken = [one for one in changes if one.status == "sending"]
    others = [one for one in changes if one.status != "sending"]
    clauses = []
    if taken:
        rows = [
            (one.id, one.attempts, one.taken, one.counted_at, one.address, "\n".join(one.links or ())) for one in taken
        ]
        clauses.append(Clause(_TAKEN.format(channel=channel), columns(rows, 6)))
    if others:
        *plain, _, _, over = (list(column) for column in zip(*others, strict=True))
        plain.append([None if one is None else _pack_request(msgspec.structs.replace(one, data={})) for one in over])
        clauses.append(Clause(_CHANGED.format(channel=channel), plain))
    return clauses


_TAKEN = """
    taken_{channel} AS (
        UPDATE mailer.messages m
           SET status = 'sending', reason = '', detail = '', attempts = u.attempts, taken = u.taken,
               counted_at = u.counted_at, address = u.address, links = string_to_array(u.links, E'\\n')
          FROM unnest($1::text[], $2::smallint[], $3::text[], $4::timestamptz[], $5::text[], $6::text[])
               AS u (id, attempts, taken, counted_at, address, links)
         WHERE m.id = u.id)"""
_CHANGED = """
    changed_{channel} AS (
        UPDATE mailer.messages m
           SET status = u.status, due = u.due, reason = u.reason, detail = u.detail,
               held = CASE WHEN u.held IS NULL THEN m.held ELSE m.held || u.held END, attempts = u.attempts,
               taken = u.taken, counted_at = u.counted_at, ended_at = u.ended_at,
               request = coalesce(u.request, m.request)
          FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::smallint[],
                      $8::text[], $9::timestamptz[], $10::timestamptz[], $11::bytea[])
               AS u (id, status, due, reason, detail, held, attempts, taken, counted_at, ended_at, request)
         WHERE m.id = u.id)"""
