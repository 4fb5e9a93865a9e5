"""The SQL of journeys."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from services.journeys import decisions
from services.journeys.decisions import Decided
from services.journeys.enrollment import Enrollment, key_text
from shared.processing.port import Connection


class StoredCustomer(NamedTuple):
    """A customer's row: see the migration. `snapshot` is empty where nothing is open."""

    customer: str
    story: bytes
    snapshot: bytes

    @property
    def open(self) -> bool:
        """Whether a record may concern an enrollment."""
        return bool(self.snapshot)


class Tally(NamedTuple):
    """A kind of enrollment to be counted."""

    journey: str
    version: str
    playbook: str
    status: str
    reason: str
    goal: bool


class Changes(NamedTuple):
    """What a batch writes. `enrollments` come with the customer whose they are, `moved` are those that only stand
    elsewhere than before; `gone` are customers to forget; `switched` says that another playbook came into force; `memo`
    is what the partition remembers."""

    customers: Sequence[StoredCustomer]
    gone: Sequence[str]
    enrollments: Sequence[tuple[str, Enrollment]]
    moved: Sequence[Enrollment]
    tallies: Mapping[Tally, int]
    decided: Sequence[decisions.Row]
    switched: bool
    memo: bytes


class Told(NamedTuple):
    """An enrollment as it is shown."""

    id: UUID
    journey: str
    version: str
    key: str
    status: str
    step: str
    due: datetime | None
    entered_at: datetime
    ended_at: datetime | None
    reason: str
    goal_at: datetime | None


class Standing(NamedTuple):
    """How many are inside a version of a journey at one step, and when time is the next to move one of them."""

    version: str
    step: str
    status: str
    customers: int
    next_due: datetime | None


async def customers(connection: Connection, partition: int, keys: Collection[str]) -> dict[str, StoredCustomer]:
    """Those of these customers who are in a journey or remembered by one."""
    rows = await connection.fetch(
        "SELECT customer, story, snapshot FROM journeys.customers WHERE partition = $1 AND customer = ANY($2::text[])",
        partition,
        list(keys),
    )
    return {row["customer"]: StoredCustomer(*row) for row in rows}


async def write(connection: Connection, partition: int, changes: Changes) -> None:
    """One statement for each table that has something to be written; two for enrollments, of which most only move."""
    if changes.customers:
        await connection.execute(_WRITE_CUSTOMERS, partition, *zip(*changes.customers, strict=True))
    if changes.gone:
        await connection.execute(
            "DELETE FROM journeys.customers WHERE partition = $1 AND customer = ANY($2::text[])",
            partition,
            changes.gone,
        )
    if changes.enrollments:
        columns = zip(*(_columns(customer, enrollment) for customer, enrollment in changes.enrollments), strict=True)
        await connection.execute(_WRITE_ENROLLMENTS, partition, *columns)
    if changes.moved:
        columns = zip(*((e.id, e.status, e.step, e.due) for e in changes.moved), strict=True)
        await connection.execute(_MOVE_ENROLLMENTS, partition, *columns)
    if changes.tallies:
        columns = zip(*((*tally, change) for tally, change in changes.tallies.items()), strict=True)
        await connection.execute(_ADD_TO_TALLIES, partition, *columns)
    if changes.decided:
        await connection.execute(_APPEND_DECISIONS, partition, *zip(*changes.decided, strict=True))
    if changes.switched:
        # What was inside under an old playbook and counts nothing any more.
        await connection.execute("DELETE FROM journeys.tallies WHERE partition = $1 AND count = 0", partition)


_WRITE_CUSTOMERS = """
    INSERT INTO journeys.customers (partition, customer, story, snapshot)
    SELECT $1, c.* FROM unnest($2::text[], $3::bytea[], $4::bytea[]) AS c
    ON CONFLICT (partition, customer)
    DO UPDATE SET story = excluded.story, snapshot = excluded.snapshot"""

_WRITE_ENROLLMENTS = """
    INSERT INTO journeys.enrollments (partition, id, customer, journey, version, key, status, step, due,
                                      entered_at, ended_at, reason, goal_at)
    SELECT $1, id::uuid, customer, journey, version, key, status, step, due, entered_at, ended_at, reason, goal_at
      FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                  $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::text[], $13::timestamptz[])
           AS e (id, customer, journey, version, key, status, step, due, entered_at, ended_at, reason, goal_at)
    ON CONFLICT (partition, id)
    DO UPDATE SET status = excluded.status, step = excluded.step, due = excluded.due,
                  entered_at = excluded.entered_at, ended_at = excluded.ended_at, reason = excluded.reason,
                  goal_at = excluded.goal_at"""

_MOVE_ENROLLMENTS = """
    UPDATE journeys.enrollments SET status = m.status, step = m.step, due = m.due
      FROM unnest($2::text[], $3::text[], $4::text[], $5::timestamptz[]) AS m (id, status, step, due)
     WHERE enrollments.partition = $1 AND enrollments.id = m.id::uuid"""

_ADD_TO_TALLIES = """
    INSERT INTO journeys.tallies (partition, journey, version, playbook, status, reason, goal, count)
    SELECT $1, t.* FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[],
                               $8::bigint[]) AS t
    ON CONFLICT (partition, journey, version, playbook, status, reason, goal)
    DO UPDATE SET count = tallies.count + excluded.count"""

_APPEND_DECISIONS = """
    INSERT INTO journeys.decisions (partition, customer, at, body)
    SELECT $1, d.* FROM unnest($2::text[], $3::timestamptz[], $4::bytea[]) AS d"""


def _columns(customer: str, e: Enrollment) -> tuple[object, ...]:
    key = key_text(e.entry.key)
    return (
        *(e.id, customer, e.journey, e.version, key, e.status, e.step),
        *(e.due, e.entry.at, e.ended_at, e.reason, e.goal_at),
    )


async def parked_customers(
    connection: Connection, partition: int, paused: Collection[str], after: str, limit: int
) -> list[str]:
    """Customers beyond `after` with an enrollment that a pause holds, in a journey that is not paused (any more)."""
    rows = await connection.fetch(
        "SELECT DISTINCT customer FROM journeys.enrollments WHERE partition = $1 AND parked"
        " AND customer > $2 AND NOT journey = ANY($3::text[]) ORDER BY customer LIMIT $4",
        partition,
        after,
        list(paused),
        limit,
    )
    return [row["customer"] for row in rows]


async def forget_ended(connection: Connection, partition: int, before: datetime, limit: int) -> int:
    """Delete up to `limit` enrollments that ended before then, the oldest first; says how many."""
    done = await connection.execute(
        "DELETE FROM journeys.enrollments WHERE partition = $1 AND id IN ("
        " SELECT id FROM journeys.enrollments WHERE partition = $1 AND ended_at < $2 AND status = 'ended'"
        "  ORDER BY ended_at LIMIT $3)",
        partition,
        before,
        limit,
    )
    return int(done.rpartition(" ")[2])


async def forget_decisions(connection: Connection, partition: int, before: datetime, limit: int) -> int:
    """Delete up to `limit` rows of what was decided before then, the oldest first; says how many."""
    done = await connection.execute(
        "DELETE FROM journeys.decisions WHERE ctid = ANY(ARRAY("
        " SELECT ctid FROM journeys.decisions WHERE partition = $1 AND at < $2 ORDER BY at LIMIT $3))",
        partition,
        before,
        limit,
    )
    return int(done.rpartition(" ")[2])


async def decisions_of(connection: Connection, partition: int, customer: str) -> list[Decided]:
    """Everything that was decided about a customer and is still kept, in order."""
    rows = await connection.fetch(
        "SELECT body FROM journeys.decisions WHERE partition = $1 AND customer = $2 ORDER BY number",
        partition,
        customer,
    )
    return [decided for row in rows for decided in decisions.unpack(row["body"])]


async def counts(connection: Connection) -> list[tuple[Tally, int]]:
    """How many enrollments there are of each kind, over all partitions and playbooks."""
    rows = await connection.fetch(
        "SELECT journey, version, '' AS playbook, status, reason, goal, sum(count)::bigint AS count"
        " FROM journeys.tallies GROUP BY 1, 2, 4, 5, 6 HAVING sum(count) <> 0 ORDER BY 1, 2, 4, 5, 6"
    )
    return [(Tally(*tuple(row)[:-1]), row["count"]) for row in rows]


async def enrollments_of(connection: Connection, partition: int, customer: str, limit: int) -> list[Told]:
    """A customer's enrollments, the latest first."""
    rows = await connection.fetch(
        "SELECT id, journey, version, key, status, step, due, entered_at, ended_at, reason, goal_at"
        " FROM journeys.enrollments WHERE partition = $1 AND customer = $2 ORDER BY entered_at DESC, id LIMIT $3",
        partition,
        customer,
        limit,
    )
    return [Told(*row) for row in rows]


async def playbooks_in_use(connection: Connection) -> set[str]:
    """The content hashes of the playbooks under which somebody is in a journey, or whose journey's goal is watched: one
    for each version of a journey, since an older one with the same version has the same steps."""
    rows = await connection.fetch(
        "SELECT DISTINCT ON (journey, version) playbook FROM journeys.tallies WHERE playbook <> '' AND count > 0"
        " ORDER BY journey, version, playbook"
    )
    return {row["playbook"] for row in rows}


async def inside_by_step(connection: Connection, journey: str) -> dict[str, int]:
    """How many are inside a journey at each of its steps, in whatever version."""
    rows = await connection.fetch(
        "SELECT step, count(*) FROM journeys.enrollments WHERE journey = $1 AND ended_at IS NULL GROUP BY step", journey
    )
    return {row["step"]: row["count"] for row in rows}


async def standing(connection: Connection, journey: str) -> list[Standing]:
    """Where those are who are inside a journey."""
    rows = await connection.fetch(
        "SELECT version, step, status, count(*), min(due) FROM journeys.enrollments"
        " WHERE journey = $1 AND ended_at IS NULL GROUP BY version, step, status ORDER BY version, step, status",
        journey,
    )
    return [Standing(*row) for row in rows]
