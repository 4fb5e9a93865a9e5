"""What the services' tables say at the end, only read: whether all is over, and what is held against the ledger.

It knows the tables, and nothing else of the services.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any

import asyncpg
import msgspec

from tests.chaos.calls import Cause
from tests.chaos.ledger import Ledger
from tests.chaos.visits import Use

CHANNELS = {"email": "Email", "webhook": "Webhook", "sms": "SMS", "push": "Push Notification"}
"""Each with what the events that tell of it begin with."""
ENDS = ("sent", "skipped", "failed", "unknown")
"""Of a message."""
PARTING_LINKS = ("https://chaos.example/back", "https://chaos.example/why")
"""Of the mail that says goodbye; whoever follows one comes back."""

_EVENT = 3  # segmenter.history.kind of what was posted
_SOURCE = "shop"  # as the cluster's file of keys calls it
_LISTENING = ("watching", "ended")
_OUTCOMES = [f"{channel} {end.title()}" for channel in CHANNELS.values() for end in ENDS]
_USES = ("Email Link Clicked", "Email Opened")
_STOPPED = "Topic Unsubscribed"


@dataclass
class Facts:
    """What the tables say at the end."""

    history: dict[str, list[str]]
    """By event id (of the shop's): whose history it is in, as often as it is."""
    outcomes: Counter[tuple[str, str]]
    """By message id and name of the outcome's event: how often it is in the history."""
    profiles: dict[str, tuple[str, frozenset[str]]]
    """By customer: stage and segments."""
    enrollments: dict[str, list[tuple[str, str, str]]]
    """By customer: journey, key, status."""
    messages: list[asyncpg.Record]
    causes: dict[str, Cause]
    """By message id."""
    dead: list[tuple[str, str, bytes]]
    """Code, message and body of each dead letter."""
    left_over: list[str]
    """What was not over when nobody waited any longer, a line each."""
    tasks: Counter[str] = field(default_factory=Counter)
    """By what their enrollment is about: how many there are."""
    codes: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Pool and enrollment of each code that was issued."""
    last_held: int = 0
    """Codes of the pool that runs out which partitions have claimed and not issued."""
    uses: Counter[Use] = field(default_factory=Counter)
    """What was told of links that were followed, and images that were fetched."""
    stopped: set[tuple[str, str]] = field(default_factory=set)
    """Customer and topic of each unsubscribe that was told of."""
    left_at: dict[str, datetime] = field(default_factory=dict)
    """By the event's id: where the road was when somebody left."""
    back_at: dict[str, datetime] = field(default_factory=dict)
    """By message: where it was when somebody first came back by a link of the parting word."""


async def unfinished(connection: asyncpg.Connection, ledger: Ledger) -> list[str]:
    """What is still under way, a line each."""
    left = []
    accepted = [one.id for one in ledger.posted.values() if one.answered is not None and one.id not in ledger.deleted]
    missing = await connection.fetchval(
        "SELECT count(*) FROM unnest($1::text[]) AS a (id) WHERE NOT EXISTS"
        " (SELECT FROM segmenter.history h WHERE h.id = a.id) AND NOT EXISTS"
        " (SELECT FROM processing.dead_letters d WHERE position(convert_to(a.id, 'UTF8') IN d.body) > 0)",
        accepted,
    )
    if missing:
        left.append(f"{missing} accepted events are neither in the history nor in dead letters")
    for what, count in await connection.fetch(
        "SELECT 'messages ' || status, count(*) FROM mailer.messages"
        " WHERE status IN ('requested', 'held', 'sending') GROUP BY 1"
        " UNION ALL SELECT 'enrollments ' || status, count(*) FROM journeys.enrollments"
        " WHERE status <> ALL($1) GROUP BY 1"
        " UNION ALL SELECT 'outbox rows of ' || service, count(*) FROM processing.outbox GROUP BY 1",
        list(_LISTENING),
    ):
        left.append(f"{count} {what}")
    warm = await connection.fetch("SELECT state FROM segmenter.profiles")
    if count := sum("warm" in _segments(row["state"]) for row in warm):
        left.append(f"{count} customers are warm")
    if not left:
        asked = {row["id"] for row in await connection.fetch("SELECT id FROM mailer.messages")}
        told = await connection.fetch("SELECT body FROM segmenter.history WHERE name = ANY($1)", _OUTCOMES)
        if untold := asked - {_properties(row["body"])["message_id"] for row in told}:
            left.append(f"the outcomes of {len(untold)} messages are not in the history")
    return left


async def reached(connection: asyncpg.Connection) -> dict[int, datetime]:
    """By partition, the time that the road has come to where it begins."""
    rows = await connection.fetch("SELECT partition, as_of FROM processing.partitions WHERE service = 'segmenter'")
    return {row["partition"]: row["as_of"] for row in rows if row["as_of"] is not None}


async def behind(connection: asyncpg.Connection, reached: Mapping[int, datetime]) -> list[str]:
    """Which partitions have not heard of a later time than that: until then, what was said before it may be on the
    way to them, where no table shows it."""
    return [
        f"{row['service']}[{row['partition']}] is behind"
        for row in await connection.fetch("SELECT service, partition, as_of FROM processing.partitions")
        if row["partition"] in reached and (row["as_of"] is None or row["as_of"] <= reached[row["partition"]])
    ]


async def read(connection: asyncpg.Connection, left_over: list[str]) -> Facts:
    """All of it, once all is over, but for `left_over`; ticks go on, and are never over."""
    history: defaultdict[str, list[str]] = defaultdict(list)
    outcomes: Counter[tuple[str, str]] = Counter()
    uses: Counter[Use] = Counter()
    stopped: set[tuple[str, str]] = set()
    left_at: dict[str, datetime] = {}
    back_at: dict[str, datetime] = {}
    taken_at = dict(await connection.fetch("SELECT id, seen_at FROM segmenter.seen ORDER BY seen_at DESC"))
    for row in await connection.fetch(
        "SELECT id, source, customer, name, body FROM segmenter.history WHERE kind = $1", _EVENT
    ):
        at = taken_at.get(_named(row["source"], row["id"]))
        if row["name"] in _OUTCOMES:
            outcomes[_properties(row["body"])["message_id"], row["name"]] += 1
        elif row["name"] in _USES:
            said = _properties(row["body"])
            message, link = said["message_id"], said.get("link", "")
            uses[message, link, said["machine"]] += 1
            if at is not None and link in PARTING_LINKS and not said["machine"]:
                back_at[message] = min(at, back_at.get(message, at))
        elif row["source"] == _SOURCE:
            history[row["id"]].append(row["customer"])
            if at is not None and row["name"] == "Account Closed":
                left_at[row["id"]] = at
        elif row["name"] == _STOPPED:
            stopped.add((row["customer"], _properties(row["body"])["topic"]))
    profiles = {
        row["key"]: (row["stage"], frozenset(_segments(row["state"])))
        for row in await connection.fetch("SELECT key, stage, state FROM segmenter.profiles")
    }
    keys: dict[str, str] = {}
    enrollments: defaultdict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for row in await connection.fetch("SELECT id, customer, journey, key, status FROM journeys.enrollments"):
        keys[str(row["id"])] = row["key"]
        enrollments[row["customer"]].append((row["journey"], row["key"], row["status"]))
    messages = await connection.fetch("SELECT * FROM mailer.messages")
    causes = {
        row["id"]: (
            row["message"] if row["channel"] == "email" else f"{row['channel']}:{row['message']}",
            keys.get(msgspec.json.decode(row["request"])["enrollment"]) or row["customer"],
        )
        for row in messages
    }
    dead = await connection.fetch("SELECT code, message, body FROM processing.dead_letters")
    return Facts(
        history=history,
        outcomes=outcomes,
        profiles=profiles,
        enrollments=enrollments,
        messages=messages,
        causes=causes,
        dead=[(row["code"], row["message"], row["body"]) for row in dead],
        left_over=left_over,
        tasks=Counter(row["key"] for row in await connection.fetch("SELECT key FROM journeys.tasks")),
        codes={
            row["code"]: (row["pool"], str(row["enrollment"]))
            for row in await connection.fetch("SELECT * FROM journeys.coupons WHERE issued_at IS NOT NULL")
        },
        last_held=await connection.fetchval(
            "SELECT count(*) FROM journeys.coupons WHERE pool = 'last' AND issued_at IS NULL"
        ),
        uses=uses,
        stopped=stopped,
        left_at=left_at,
        back_at=back_at,
    )


def _named(source: str, id: str) -> bytes:
    """An event as the table of those that were taken has it."""
    return blake2b(f"{source}\0{id}".encode(), digest_size=16).digest()


def _properties(body: bytes) -> Mapping[str, Any]:
    """Of an event as the history keeps it."""
    properties: Mapping[str, Any] = msgspec.json.decode(msgspec.msgpack.decode(body)[6])
    return properties


def _segments(state: bytes) -> Sequence[str]:
    segments: Sequence[str] = msgspec.msgpack.decode(state)[6]
    return segments
