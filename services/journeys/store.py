"""The SQL of journeys."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from services.journeys import decisions
from services.journeys.coupons import Issued
from services.journeys.decisions import Decided
from services.journeys.enrollment import Enrollment, key_text
from services.journeys.tasks import TaskRow
from shared.database.clauses import Clause, columns
from shared.database.keys import ASKED, THEIRS, by_partition
from shared.processing.port import Connection

Place = tuple[int, int]
"""Where a row stands in its table (`ctid`) until somebody changes it, which only its partition's owner does."""


class StoredCustomer(NamedTuple):
    """A customer's row: see the migration. `story` is the packed `Involvement`; `snapshot` is empty where nothing
    is open. `place` is None where there is no row yet."""

    customer: str
    story: bytes
    snapshot: bytes
    place: Place | None = None

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


MAILED = "mailed"
"""The status of a tally that counts a journey's messages which went out, and no enrollments."""


class Attributed(NamedTuple):
    """What orders are worth to a journey, in one currency."""

    journey: str
    currency: str
    orders: int
    value: Decimal


class Changes(NamedTuple):
    """What a batch writes. `enrollments` come with the customer whose they are, `moved` are those that only stand
    elsewhere than before; `gone` are customers to forget; `switched` says that another playbook came into force."""

    customers: Sequence[StoredCustomer]
    gone: Sequence[str]
    enrollments: Sequence[tuple[str, Enrollment]]
    moved: Sequence[Enrollment]
    tallies: Mapping[Tally, int]
    attributed: Sequence[Attributed]
    decided: Sequence[decisions.Row]
    issued: Sequence[Issued]
    tasks: Sequence[TaskRow]
    switched: bool


class EnrollmentRow(NamedTuple):
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
    attributed: Decimal | None
    currency: str


class Standing(NamedTuple):
    """How many are inside a version of a journey at one step, and when time is the next to move one of them."""

    version: str
    step: str
    status: str
    customers: int
    next_due: datetime | None


async def customers(connection: Connection, keys: Collection[tuple[int, str]]) -> dict[int, dict[str, StoredCustomer]]:
    """Those of these customers, each named with its partition, who are in a journey or remembered by one; by
    partition."""
    rows = await connection.fetch(
        f"SELECT c.* FROM {ASKED}, LATERAL (SELECT partition, customer, story, snapshot, ctid FROM journeys.customers"
        f" WHERE partition = asked.partition AND customer = {THEIRS} OFFSET 0) AS c",
        *by_partition(keys),
    )
    found: dict[int, dict[str, StoredCustomer]] = {}
    for partition, *row in rows:
        found.setdefault(partition, {})[row[0]] = StoredCustomer(*row)
    return found


def changed(changes: Mapping[int, Changes]) -> list[Clause]:
    """What batches of several partitions write. Enrollments come in two ways, since most only move."""
    people = [(p, *row[:3]) for p, one in changes.items() for row in one.customers if row.place is None]
    known = [(p, *row) for p, one in changes.items() for row in one.customers if row.place is not None]
    gone = [(p, customer) for p, one in changes.items() for customer in one.gone]
    enrollments = [(p, *_columns(*enrollment)) for p, one in changes.items() for enrollment in one.enrollments]
    moved = [(p, e.id, e.status, e.step, e.due) for p, one in changes.items() for e in one.moved]
    tallies = [(p, *tally, change) for p, one in changes.items() for tally, change in one.tallies.items()]
    decided = [(p, *row) for p, one in changes.items() for row in one.decided]
    clauses = []
    if known:
        clauses.append(Clause(_WRITE_IN_PLACE, (*columns(known, 5), len(known))))
    if people or gone or enrollments or moved or tallies or decided:
        arguments = (
            *(*columns(people, 4), *columns(gone, 2), *columns(enrollments, 15)),
            *(*columns(moved, 5), *columns(tallies, 8), *columns(decided, 4)),
        )
        clauses.append(Clause(_CHANGED, arguments))
    if issued := [one for batch in changes.values() for one in batch.issued]:
        clauses.append(Clause(_ISSUE, columns(issued, 8)))
    if attributed := [(p, *worth) for p, one in changes.items() for worth in one.attributed]:
        clauses.append(Clause(_ADD_TO_ATTRIBUTED, columns(attributed, 5)))
    if tasks := [(partition, *task) for partition, one in changes.items() for task in one.tasks]:
        clauses.append(Clause(_OPEN_TASKS, columns(tasks, 11)))
    return clauses


def empty_tallies_dropped(partitions: Sequence[int]) -> Clause:
    """What was inside under an old playbook and counts nothing any more."""
    return Clause(
        "dropped AS (DELETE FROM journeys.tallies WHERE partition = ANY($1::smallint[]) AND count = 0)", [partitions]
    )


# An upsert looks for each row once more, and locks it before it writes. Should some not stand where they were read,
# since the table was written anew (VACUUM FULL) meanwhile, those are written by their keys.
_WRITE_IN_PLACE = """
    placed AS (
        UPDATE journeys.customers c SET story = n.story, snapshot = n.snapshot
          FROM (SELECT unnest($1::smallint[]) AS partition, unnest($2::text[]) AS customer,
                       unnest($3::bytea[]) AS story, unnest($4::bytea[]) AS snapshot, unnest($5::tid[]) AS place) AS n
         WHERE c.ctid = n.place AND c.partition = n.partition AND c.customer = n.customer
     RETURNING c.partition, c.customer
    ), misplaced AS (
        INSERT INTO journeys.customers (partition, customer, story, snapshot)
        SELECT n.* FROM unnest($1::smallint[], $2::text[], $3::bytea[], $4::bytea[])
               AS n (partition, customer, story, snapshot)
         WHERE (SELECT count(*) FROM placed) <> $6::bigint
           AND (n.partition, n.customer) NOT IN (SELECT partition, customer FROM placed)
        ON CONFLICT (partition, customer) DO UPDATE SET story = excluded.story, snapshot = excluded.snapshot
    )"""

_CHANGED = """
    people AS (
        INSERT INTO journeys.customers (partition, customer, story, snapshot)
        SELECT * FROM unnest($1::smallint[], $2::text[], $3::bytea[], $4::bytea[])
        ON CONFLICT (partition, customer) DO UPDATE SET story = excluded.story, snapshot = excluded.snapshot
    ), gone AS (
        DELETE FROM journeys.customers USING unnest($5::smallint[], $6::text[]) AS g (partition, customer)
         WHERE customers.partition = g.partition AND customers.customer = g.customer
    ), enrollments AS (
        INSERT INTO journeys.enrollments (partition, id, customer, journey, version, key, status, step, due,
                                          entered_at, ended_at, reason, goal_at, attributed, currency)
        SELECT partition, id::uuid, customer, journey, version, key, status, step, due, entered_at, ended_at, reason,
               goal_at, attributed, currency
          FROM unnest($7::smallint[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[],
                      $14::text[], $15::timestamptz[], $16::timestamptz[], $17::timestamptz[], $18::text[],
                      $19::timestamptz[], $20::numeric[], $21::text[])
               AS e (partition, id, customer, journey, version, key, status, step, due, entered_at, ended_at, reason,
                     goal_at, attributed, currency)
        ON CONFLICT (partition, id)
        DO UPDATE SET version = excluded.version, status = excluded.status, step = excluded.step,
                      due = excluded.due, entered_at = excluded.entered_at, ended_at = excluded.ended_at,
                      reason = excluded.reason, goal_at = excluded.goal_at, attributed = excluded.attributed,
                      currency = excluded.currency
    ), moved AS (
        UPDATE journeys.enrollments SET status = m.status, step = m.step, due = m.due
          FROM unnest($22::smallint[], $23::text[], $24::text[], $25::text[], $26::timestamptz[])
               AS m (partition, id, status, step, due)
         WHERE enrollments.partition = m.partition AND enrollments.id = m.id::uuid
    ), decided AS (
        INSERT INTO journeys.decisions (partition, customer, at, body)
        SELECT * FROM unnest($35::smallint[], $36::text[], $37::timestamptz[], $38::bytea[])
    ), tallies AS (
        INSERT INTO journeys.tallies (partition, journey, version, playbook, status, reason, goal, count)
        SELECT * FROM unnest($27::smallint[], $28::text[], $29::text[], $30::text[], $31::text[], $32::text[],
                             $33::boolean[], $34::bigint[])
        ON CONFLICT (partition, journey, version, playbook, status, reason, goal)
        DO UPDATE SET count = tallies.count + excluded.count
    )"""

_ISSUE = """
    issued AS (
    UPDATE journeys.coupons c
       SET issued_at = i.issued_at, expires_at = i.expires_at, customer = i.customer, journey = i.journey,
           enrollment = i.enrollment::uuid, step = i.step
      FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[],
                  $8::timestamptz[])
           AS i (pool, code, customer, journey, enrollment, step, issued_at, expires_at)
     WHERE c.pool = i.pool AND c.code = i.code)"""

_OPEN_TASKS = """
    opened AS (
    INSERT INTO journeys.tasks (partition, id, customer, journey, enrollment, key, step, title, note, opened_at, due)
    SELECT partition, id::uuid, customer, journey, enrollment::uuid, key, step, title, note, opened_at, due
      FROM unnest($1::smallint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                  $9::text[], $10::timestamptz[], $11::timestamptz[])
           AS t (partition, id, customer, journey, enrollment, key, step, title, note, opened_at, due)
    ON CONFLICT (id) DO NOTHING)"""

_TASK = "id::text, customer, journey, enrollment::text, key, step, title, note, opened_at, due"


class Done(NamedTuple):
    """That a task was done: when, by whom, and what they said of it."""

    at: datetime
    by: str
    said: str


async def tasks(
    connection: Connection, *, done: bool, limit: int, customer: str | None = None
) -> list[tuple[TaskRow, Done | None]]:
    """Tasks that wait for somebody, the most pressing first; with `done` those that were done, the latest first."""
    order = "done_at DESC" if done else "due NULLS LAST, opened_at"
    # What is not asked for does not stand there: one plan for both would use no index for either.
    of_customer = "" if customer is None else " AND customer = $2"
    rows = await connection.fetch(
        f"SELECT done_at, done_by, said, {_TASK} FROM journeys.tasks WHERE done_at IS {'NOT ' if done else ''}NULL"
        f"{of_customer} ORDER BY {order}, id LIMIT $1",
        *([limit] if customer is None else [limit, customer]),
    )
    return [(TaskRow(*row[3:]), Done(*row[:3]) if row[0] is not None else None) for row in map(tuple, rows)]


async def tasks_named(connection: Connection, beginning: str) -> list[TaskRow]:
    """Up to two tasks whose id begins so."""
    rows = await connection.fetch(
        f"SELECT {_TASK} FROM journeys.tasks WHERE starts_with(id::text, $1) ORDER BY id LIMIT 2", beginning.lower()
    )
    return [TaskRow(*row) for row in rows]


async def close_task(connection: Connection, task: str, done: Done) -> bool:
    """False where somebody was before."""
    closed = await connection.execute(
        "UPDATE journeys.tasks SET done_at = $2, done_by = $3, said = $4 WHERE id = $1::uuid AND done_at IS NULL",
        task,
        *done,
    )
    return bool(closed.endswith(" 1"))


async def codes_to_issue(connection: Connection, partition: int) -> dict[str, list[str]]:
    """By pool, the codes that this partition has claimed and not issued, in the order in which they will be."""
    rows = await connection.fetch(
        "SELECT pool, code FROM journeys.coupons WHERE partition = $1 AND issued_at IS NULL ORDER BY number", partition
    )
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["pool"], []).append(row["code"])
    return found


async def begin_claim(connection: Connection, pool: str) -> int:
    """Hold the pool to the end of the transaction; how many of its codes have been claimed so far."""
    claimed: int = await connection.fetchval(
        "INSERT INTO journeys.coupon_pools AS p (pool) VALUES ($1)"
        " ON CONFLICT (pool) DO UPDATE SET claimed = p.claimed RETURNING claimed",
        pool,
    )
    return claimed


async def claim_codes(connection: Connection, partition: int, pool: str, codes: Sequence[str]) -> int:
    """Claim for a partition those of these codes that nobody has claimed; how many those are. The pool is held."""
    done: int = await connection.fetchval(
        "WITH claimed AS (INSERT INTO journeys.coupons (pool, code, partition) SELECT $2, code, $1"
        " FROM unnest($3::text[]) WITH ORDINALITY AS c (code, place) ORDER BY place ON CONFLICT DO NOTHING RETURNING 1)"
        " UPDATE journeys.coupon_pools p SET claimed = p.claimed + c.n FROM (SELECT count(*) AS n FROM claimed) c"
        " WHERE p.pool = $2 RETURNING c.n",
        partition,
        pool,
        list(codes),
    )
    return done


async def unclaimed(connection: Connection, pool: str, codes: Sequence[str], limit: int) -> list[str]:
    """The first of these codes that nobody has claimed."""
    rows = await connection.fetch(
        "SELECT code FROM unnest($2::text[]) WITH ORDINALITY AS c (code, place)"
        " WHERE NOT EXISTS (SELECT FROM journeys.coupons k WHERE k.pool = $1 AND k.code = c.code)"
        " ORDER BY place LIMIT $3",
        pool,
        list(codes),
        limit,
    )
    return [row["code"] for row in rows]


class PoolCount(NamedTuple):
    """How many codes of a pool were issued, and how many partitions hold to be issued next."""

    pool: str
    issued: int
    held: int
    last: datetime | None


async def pool_counts(connection: Connection) -> list[PoolCount]:
    rows = await connection.fetch(
        "SELECT pool, count(issued_at) AS issued, count(*) - count(issued_at) AS held, max(issued_at) AS last"
        " FROM journeys.coupons GROUP BY pool ORDER BY pool"
    )
    return [PoolCount(*row) for row in rows]


class GivenOut(NamedTuple):
    """A code as the shop is told of it."""

    code: str
    customer: str
    journey: str
    issued_at: datetime
    expires_at: datetime | None


async def issued_codes(connection: Connection, pool: str, after: tuple[datetime, str], limit: int) -> list[GivenOut]:
    """Codes of a pool that were issued, the oldest first, beyond `after` (when, code)."""
    rows = await connection.fetch(
        "SELECT code, customer, journey, issued_at, expires_at FROM journeys.coupons WHERE pool = $1"
        " AND (issued_at, code) > ($2, $3) ORDER BY issued_at, code LIMIT $4",
        pool,
        *after,
        limit,
    )
    return [GivenOut(*row) for row in rows]


_ADD_TO_ATTRIBUTED = """
    attributed AS (
    INSERT INTO journeys.attributed (partition, journey, currency, orders, value)
    SELECT * FROM unnest($1::smallint[], $2::text[], $3::text[], $4::bigint[], $5::numeric[])
    ON CONFLICT (partition, journey, currency)
    DO UPDATE SET orders = attributed.orders + excluded.orders, value = attributed.value + excluded.value)"""


def _columns(customer: str, e: Enrollment) -> tuple[object, ...]:
    key = key_text(e.entry.key)
    return (
        *(e.id, customer, e.journey, e.version, key, e.status, e.step),
        *(e.due, e.entry.at, e.ended_at, e.reason, e.goal_at, e.attributed, e.currency),
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


async def customers_elsewhere(
    connection: Connection, partition: int, versions: Mapping[str, str], after: str, limit: int
) -> list[str]:
    """Customers beyond `after` who are inside one of these journeys in another version than this."""
    rows = await connection.fetch(
        "SELECT DISTINCT e.customer FROM journeys.enrollments e"
        " JOIN unnest($2::text[], $3::text[]) AS v (journey, version)"
        "   ON v.journey = e.journey AND v.version <> e.version"
        " WHERE e.partition = $1 AND e.ended_at IS NULL AND e.customer > $4 ORDER BY e.customer LIMIT $5",
        partition,
        list(versions),
        list(versions.values()),
        after,
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
        " FROM journeys.tallies WHERE status <> $1"
        " GROUP BY 1, 2, 4, 5, 6 HAVING sum(count) <> 0 ORDER BY 1, 2, 4, 5, 6",
        MAILED,
    )
    return [(Tally(*tuple(row)[:-1]), row["count"]) for row in rows]


async def mailed(connection: Connection) -> dict[str, int]:
    """How many messages of each journey have gone out."""
    rows = await connection.fetch(
        "SELECT journey, sum(count)::bigint AS count FROM journeys.tallies WHERE status = $1 GROUP BY journey", MAILED
    )
    return {row["journey"]: row["count"] for row in rows}


async def attributed(connection: Connection) -> list[Attributed]:
    """What orders have been worth to each journey, over all partitions."""
    rows = await connection.fetch(
        "SELECT journey, currency, sum(orders)::bigint, sum(value) FROM journeys.attributed GROUP BY 1, 2 ORDER BY 1, 2"
    )
    return [Attributed(*row) for row in rows]


async def enrollments_of(connection: Connection, partition: int, customer: str, limit: int) -> list[EnrollmentRow]:
    """A customer's enrollments, the latest first."""
    rows = await connection.fetch(
        "SELECT id, journey, version, key, status, step, due, entered_at, ended_at, reason, goal_at, attributed,"
        " coalesce(currency, '') FROM journeys.enrollments WHERE partition = $1 AND customer = $2"
        " ORDER BY entered_at DESC, id LIMIT $3",
        partition,
        customer,
        limit,
    )
    return [EnrollmentRow(*row) for row in rows]


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
