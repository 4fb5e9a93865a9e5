"""Connections to PostgreSQL. SQLAlchemy's pool keeps them; hot statements use asyncpg's own API on them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg
from asyncpg.protocol import protocol as driver_protocol
from sqlalchemy import PoolProxiedConnection, event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from shared.errors import RapportError, Unavailable

# Of each array, and of each element of one, asyncpg asks three abstract base classes whether it is an array: a third of
# what it takes to send one of our statements, and for large batches more. Concrete classes answer at once. What is none
# of these is refused as an array with TypeError.
ARRAYS: tuple[type, ...] = (list, tuple, set, frozenset, deque, range, type({}.keys()), type({}.values()))
vars(driver_protocol).update(IterableABC=ARRAYS, SizedABC=object, MappingABC=dict)

# What is raised when the server is away, is stopping, changes under us or cut us off: the same call may succeed later.
TRANSIENT: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InternalClientError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
    PoolExhausted,
)


def is_transient(error: BaseException) -> bool:
    """Whether `error` says that the database is away for now, and not that the statement is wrong."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.connection_invalidated or is_transient(error.orig.__cause__ or error.orig)
    return isinstance(error, (Unavailable, *TRANSIENT))


class _CheckedOut(NamedTuple):
    """A connection out of SQLAlchemy's pool, and how it goes back there."""

    driver: asyncpg.Connection
    raw: PoolProxiedConnection
    back: contextlib.AsyncExitStack
    closings: int
    """How often the database had been closed when it was taken."""

    def break_off(self) -> None:
        """Close it at once, and keep it out of the pool."""
        self.driver.terminate()
        self.raw.invalidate()


class Database:
    """A pool of connections to one PostgreSQL database.

    `url` is `postgresql://user:password@host:port/name`. `size` bounds the connections of this process.

    SQLAlchemy's pool takes a third of a millisecond to give a connection and take it back, several hundred times a
    second where events come one by one. So half of them stay out at most, in hand for whoever asks next; where somebody
    waits for the pool, they go back there.
    """

    def __init__(self, url: str, *, size: int = 8, lock_timeout: float = 10.0, idle_timeout: float = 15.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("postgresql", "postgres", "postgresql+asyncpg"):
            raise RapportError(f"DATABASE_URL: {parts.scheme!r} is no scheme of PostgreSQL. Write postgresql://…")
        try:
            _ = parts.port
        except ValueError as error:
            raise RapportError(f"DATABASE_URL: {error}. Write postgresql://user:password@host:5432/name.") from None
        self.url = "postgresql+asyncpg" + url[url.index(":") :]
        engine = create_async_engine(
            self.url,
            pool_size=size,
            # A few connections are in use again and again, and the others rest: their servers have warm caches.
            pool_use_lifo=True,
            max_overflow=0,
            pool_timeout=30,
            pool_pre_ping=False,
            connect_args={
                "timeout": 5,
                "command_timeout": 60,
                "statement_cache_size": 256,
                # For good: planning one of ours takes milliseconds, and the driver would do it anew each five minutes.
                "max_cached_statement_lifetime": 0,
                "server_settings": {
                    "application_name": f"rapport-{os.getpid()}",
                    "timezone": "UTC",
                    "lock_timeout": f"{int(lock_timeout * 1000)}",
                    # A stopped owner must not hold a fence's row for ever.
                    "idle_in_transaction_session_timeout": f"{int(idle_timeout * 1000)}",
                    "jit": "off",
                    # Every statement goes by keys. A plan that was cached over a table just emptied would otherwise
                    # read all of it for as long as the connection lives, however much it has grown.
                    "enable_seqscan": "off",
                    # With sequential scans off, some plans by keys look so dear that the planner starts processes for
                    # them, which costs more than the few thousand rows that a batch asks for.
                    "max_parallel_workers_per_gather": "0",
                    # For a few keys at a time it takes a plan of their own for cheaper each time, though planning takes
                    # longer than what is planned; for many, it would copy all of them into the plan.
                    "plan_cache_mode": "force_generic_plan",
                },
            },
        )

        event.listen(engine.sync_engine, "checkout", _refuse_closed)
        self._use(engine, size // 2)

    def _use(self, engine: AsyncEngine, most_in_hand: int) -> None:
        self.engine = engine
        self._most_in_hand = most_in_hand
        self._in_hand: list[_CheckedOut] = []
        self._asking = 0
        """How many wait for SQLAlchemy's pool."""
        self._closings = 0

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection in autocommit, as asyncpg has it. One that broke, or may have, is thrown away, not put back."""
        connection = await self._take_in_hand() or await self._check_out()
        driver = connection.driver
        try:
            yield driver
        except BaseException as error:
            # Cut off while it waited for an answer, the driver does not know yet what that will be: a BEGIN may
            # still come to pass, and everything later would run, and be lost, inside that transaction.
            if _is_cut_off(error) or driver.is_closed() or driver.is_in_transaction():
                connection.break_off()
            raise
        finally:
            if connection.closings != self._closings:
                # Nobody would ever close it: its pool is gone.
                connection.break_off()
            if driver.is_closed() or self._asking or len(self._in_hand) >= self._most_in_hand:
                await connection.back.aclose()
            else:
                self._in_hand.append(connection)

    async def _take_in_hand(self) -> _CheckedOut | None:
        while self._in_hand:
            connection = self._in_hand.pop()
            if not connection.driver.is_closed():
                return connection
            connection.raw.invalidate()
            await connection.back.aclose()
        return None

    async def _check_out(self) -> _CheckedOut:
        async with contextlib.AsyncExitStack() as stack:
            self._asking += 1
            try:
                connection = await stack.enter_async_context(self.engine.connect())
            finally:
                self._asking -= 1
            raw = await connection.get_raw_connection()
            driver = raw.driver_connection
            assert driver is not None
            return _CheckedOut(driver, raw, stack.pop_all(), self._closings)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection inside one transaction: see `inside`."""
        async with self.connect() as connection, inside(connection):
            yield connection

    async def close(self) -> None:
        """Close every connection, those in use when they come back. Whoever asks for one again gets a new one."""
        self._closings += 1
        while self._in_hand:
            await self._in_hand.pop().back.aclose()
        await self.engine.dispose()


@contextlib.asynccontextmanager
async def inside(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """One transaction on this connection: committed at the end, rolled back on an exception.

    Raises RapportError where it cannot have been committed though nothing was raised inside: a statement's error was
    swallowed there, or the transaction was ended."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    except BaseException as error:
        if _is_cut_off(error):
            # A server that is silent would not answer a ROLLBACK either, for as long as a statement may take. It rolls
            # back by itself when it sees that the connection is gone.
            connection.terminate()
        else:
            await transaction.rollback()
        raise
    await _commit(connection)


def _is_cut_off(error: BaseException) -> bool:
    """Whether it came in the middle of a wait, whose answer is still to come."""
    return isinstance(error, (asyncio.CancelledError, TimeoutError))


async def _commit(connection: asyncpg.Connection) -> None:
    # The driver's own commit does not tell that PostgreSQL answers COMMIT with ROLLBACK after a statement that failed.
    connection._top_xact = None  # type: ignore[attr-defined]
    if not connection.is_in_transaction():
        raise RapportError("a transaction was ended from within, and what followed was not part of it. Mend that.")
    answer = await connection.execute("COMMIT")
    if answer != "COMMIT":
        raise RapportError("a transaction was rolled back: a statement in it failed, and its error was swallowed.")


def _refuse_closed(connection: Any, record: object, proxy: object) -> None:
    """A connection that the server ended while it lay in the pool (a restart) is replaced before anybody gets it."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError
