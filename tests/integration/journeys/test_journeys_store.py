"""What journeys keeps in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable

from services.journeys import store
from services.journeys.store import Changes, StoredCustomer
from shared.database.clauses import execute
from shared.database.engine import Database

KEYS = [(3, f"c{number}") for number in range(40)]


async def test_customers_that_do_not_stand_where_they_were_read_are_written_by_their_keys(database: Database) -> None:
    async with database.connect() as connection:
        await execute(connection, store.changed({3: _written(StoredCustomer(key, b"one", b"{}") for _, key in KEYS)}))
        read = (await store.customers(connection, KEYS))[3]
        # One is where it was, one is gone, and all others stand elsewhere.
        await connection.execute("DELETE FROM journeys.customers WHERE customer = 'c7'")
        await connection.execute("VACUUM FULL journeys.customers")
        again = [row._replace(story=b"two") for row in read.values()]
        await execute(connection, store.changed({3: _written([*again, StoredCustomer("new", b"two", b"{}")])}))
        found = (await store.customers(connection, [*KEYS, (3, "new")]))[3]
        assert {key: row.story for key, row in found.items()} == dict.fromkeys([*read, "new"], b"two")
        # Nobody is written as somebody else, who stands there now.
        assert await connection.fetchval("SELECT count(*) FROM journeys.customers") == len(KEYS) + 1


def _written(customers: Iterable[StoredCustomer]) -> Changes:
    return Changes(list(customers), (), (), (), {}, (), (), (), (), switched=False)
