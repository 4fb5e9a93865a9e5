"""The SQL of what pages, links and reports ask about messages, and of the mails of the inbox.

Nobody here owns a partition: it only reads, but for what is over (`resolve`) and for the inbox.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from services.mailer.store import unpack_request
from shared.contracts.messages import MessageRequested
from shared.processing.port import Connection


class Sent(NamedTuple):
    """A message, for whoever holds a link of its mail. `address` is where its last hand-over went to."""

    id: str
    address: str | None
    status: str
    due: datetime
    ended_at: datetime | None
    links: tuple[str, ...]
    request: MessageRequested


class Listed(NamedTuple):
    """A message as the pages show it. `reason` says why it is held, or how it ended; `held` tells of each hold."""

    id: str
    customer: str
    address: str | None
    journey: str
    message: str
    topic: str
    status: str
    reason: str
    detail: str
    held: list[str]
    due: datetime
    expires: datetime
    attempts: int
    requested_at: datetime
    ended_at: datetime | None


class Kept(NamedTuple):
    """A mail that the inbox has accepted. `data` is the whole mail; `name` names the message in the playbook."""

    number: int
    message: str
    recipient: str
    subject: str
    accepted_at: datetime
    data: bytes
    customer: str
    journey: str
    name: str


_LISTED = ", ".join(Listed._fields)
_AFTER_ALL = (datetime.max.replace(tzinfo=UTC), "")


def _and(asked: Iterable[tuple[str, object]], first: int) -> str:
    """Conditions on arguments from `$first` on. What is not asked for (None) does not stand there: one plan for both
    would use no index for either."""
    given = [condition for condition, value in asked if value is not None]
    return "".join(" AND " + condition.format(f"${place}") for place, condition in enumerate(given, first))


async def sent_message(connection: Connection, id: str) -> Sent | None:
    row = await connection.fetchrow(
        "SELECT id, address, status, due, ended_at, links, request FROM mailer.messages WHERE id = $1", id
    )
    if row is None:
        return None
    links, request = tuple(row["links"]), unpack_request(row["request"])
    return Sent(row["id"], row["address"], row["status"], row["due"], row["ended_at"], links, request)


async def resolve(connection: Connection, id: str, reason: str) -> None:
    """A message of which it was not known is now known to have arrived. Its owner never touches it again, so anybody
    who learns of it may say so."""
    await connection.execute(
        "UPDATE mailer.messages SET status = 'sent', reason = $2 WHERE id = $1 AND status = 'unknown'", id, reason
    )


async def listing(
    connection: Connection,
    *,
    limit: int,
    before: tuple[datetime, str] | None = None,
    customer: str | None = None,
    status: str | None = None,
) -> list[Listed]:
    """Messages, the newest request first. `before` is (requested_at, id) of the last one on the page before."""
    asked = [("customer = {}", customer), ("status = {}", status)]
    rows = await connection.fetch(
        f"SELECT {_LISTED} FROM mailer.messages WHERE (requested_at, id) < ($2, $3){_and(asked, 4)}"
        " ORDER BY requested_at DESC, id DESC LIMIT $1",
        *(limit, *(before or _AFTER_ALL), *(value for _, value in asked if value is not None)),
    )
    return [Listed(*row) for row in rows]


class Recounted(NamedTuple):
    """A message for the story of its customer. `held` are its lines (`lines.Line`)."""

    id: str
    message: str
    journey: str
    topic: str
    status: str
    reason: str
    detail: str
    held: list[str]
    due: datetime
    expires: datetime
    requested_at: datetime
    ended_at: datetime | None
    address: str | None
    request: MessageRequested


async def messages_of(connection: Connection, customer: str, since: datetime, limit: int) -> list[Recounted]:
    """A customer's newest messages that were asked for since then, in the order in which they were."""
    rows = await connection.fetch(
        f"SELECT {', '.join(Recounted._fields)} FROM mailer.messages WHERE customer = $1 AND requested_at >= $2"
        " ORDER BY requested_at DESC, id DESC LIMIT $3",
        customer,
        since,
        limit,
    )
    return [Recounted(**{**row, "request": unpack_request(row["request"])}) for row in reversed(rows)]


class Suppressed(NamedTuple):
    """Why nothing goes to an address any more, and since when."""

    reason: str
    since: datetime | None


async def suppression_of(connection: Connection, address: str) -> Suppressed | None:
    row = await connection.fetchrow(
        "SELECT suppressed, suppressed_at FROM mailer.addresses WHERE address = $1 AND suppressed <> ''", address
    )
    return None if row is None else Suppressed(*row)


async def listed(connection: Connection, id: str) -> Listed | None:
    row = await connection.fetchrow(f"SELECT {_LISTED} FROM mailer.messages WHERE id = $1", id)
    return None if row is None else Listed(*row)


async def counts(connection: Connection) -> dict[str, dict[str, int]]:
    """How many messages each journey has in each status."""
    rows = await connection.fetch(
        "SELECT journey, status, count(*) AS n FROM mailer.messages GROUP BY journey, status ORDER BY journey, status"
    )
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row["journey"], {})[row["status"]] = row["n"]
    return found


async def keep_mails(connection: Connection, mails: Sequence[tuple[str, str, str, datetime, bytes]]) -> None:
    """Put mails into the inbox: message id, recipient, subject, when, and the whole mail."""
    await connection.execute(
        "INSERT INTO mailer.inbox (message, recipient, subject, accepted_at, data)"
        " SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bytea[])",
        *(list(column) for column in zip(*mails, strict=True)),
    )


_KEPT = "i.number, i.message, i.recipient, i.subject, i.accepted_at"
_ASKED_FOR = (
    "coalesce(m.customer, ''), coalesce(m.journey, ''), coalesce(m.message, '')"
    " FROM mailer.inbox i LEFT JOIN mailer.messages m ON m.id = i.message"
)


async def inbox(
    connection: Connection,
    *,
    limit: int,
    before: int | None = None,
    recipient: str | None = None,
    journey: str | None = None,
) -> list[Kept]:
    """The mails of the inbox without their bytes, the newest first, from below number `before` on."""
    asked = [
        ("i.number < {}", before),
        ("strpos(lower(i.recipient), lower({})) > 0", recipient),
        ("m.journey = {}", journey),
    ]
    rows = await connection.fetch(
        f"SELECT {_KEPT}, ''::bytea, {_ASKED_FOR} WHERE true{_and(asked, 2)} ORDER BY i.number DESC LIMIT $1",
        *(limit, *(value for _, value in asked if value is not None)),
    )
    return [Kept(*row) for row in rows]


async def inbox_mail(connection: Connection, number: int) -> Kept | None:
    row = await connection.fetchrow(f"SELECT {_KEPT}, i.data, {_ASKED_FOR} WHERE i.number = $1", number)
    return None if row is None else Kept(*row)
