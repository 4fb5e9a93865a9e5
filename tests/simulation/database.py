"""The way to PostgreSQL in a simulation: the real statements on a real server, one at a time, with faults on the way.

A statement is sent, waits for its locks, is carried out and answered in the machine's time. Between these moments its
process can die or be stopped, the connection can be cut, and the answer to COMMIT can be lost or come too late. The
server itself is asked in no time at all, so nothing but the seed decides who comes first.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
from asyncio import events
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

import asyncpg

from services.segmenter import spans
from services.segmenter.store import make_room
from shared.database.engine import Database
from tests.simulation.machine import START, Process, VirtualLoop
from tests.simulation.mailing import TRAIL
from tests.simulation.weather import Weather

T = TypeVar("T")

_urandom = os.urandom
_FRESH_EVERY = 25
_LOCK_SECONDS = 10.0
_IDLE_SECONDS = 15.0
_LOOK_SECONDS = 0.02
_MOST_CONNECTIONS = 8
_OTHERS_LOCK = re.compile(r"processing\.partitions|mailer\.(addresses|consent)|log\.heads|advisory|FOR UPDATE")
_SPANS = [spans.day("seen", START + timedelta(days=day)) for day in range(-3, 60)]
_SPANS += dict.fromkeys(spans.month("history", START + timedelta(days=day)) for day in range(-60, 90, 10))
_FILLED = """
    SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname IN ('processing', 'segmenter', 'journeys', 'mailer', 'log') AND c.relkind = 'r'
       AND NOT c.relispartition AND c.relname <> 'alembic_version'
     UNION SELECT tableoid::regclass::text FROM segmenter.seen
     UNION SELECT tableoid::regclass::text FROM segmenter.history"""
_FENCE = "fenced AS ("
_HANDS_OVER = "SET status = 'sending'"
_GOING = "SELECT address, topic FROM mailer.messages WHERE status = 'sending' AND channel = 'email' ORDER BY id"
_NOW = re.compile(r"\bnow\(\)")


def _answer(said: bytes) -> bytes:
    """What the server answers to a command that it cannot refuse: that it is done, and that a transaction is open."""
    return b"C" + (5 + len(said)).to_bytes(4, "big") + said + b"\0" + _IN_TRANSACTION


_IN_TRANSACTION, _OUTSIDE = b"Z\0\0\0\5T", b"Z\0\0\0\5I"
_FORESEEN = re.compile(rb"Q....(BEGIN|SAVEPOINT|RELEASE)(?: [A-Za-z_0-9 ]+)?\0", re.DOTALL)
"""Commands that nobody else can tell the moment of: they go with what comes next."""


class _Wire(asyncio.Transport):
    """Carries bytes to the server and back, and waits for them in person."""

    def __init__(self, server: Server, path: str, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self._server = server
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._written = bytearray()
        self._ahead = self._owed = self._state = b""
        """Commands that go with the next one, what they are answered, and how the last answer ended."""
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        self._server.spoken_on(self)
        self._written += data

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def exchange(self) -> None:
        """Send what was written, and take what comes."""
        if self._written:
            said = bytes(self._written)
            self._written.clear()
            known = _FORESEEN.fullmatch(said)
            if known is not None and self._state == (_OUTSIDE if known[1] == b"BEGIN" else _IN_TRANSACTION):
                self._ahead += said
                self._owed += _answer(known[1])
                self._state = _IN_TRANSACTION
                self.protocol.data_received(_answer(known[1]))
                return
            self._socket.sendall(self._ahead + said)
            self._ahead = b""
        data = self._socket.recv(1 << 18)
        while self._owed and len(data) <= len(self._owed):
            data += self._socket.recv(1 << 18)
        assert data.startswith(self._owed), data
        data, self._owed = data[len(self._owed) :], b""
        self._state = data[-6:]
        self.protocol.data_received(data)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self._socket.close()

    def pause_reading(self) -> None:
        """Nothing is read before it is asked for."""

    def resume_reading(self) -> None:
        """Nothing is read before it is asked for."""


class Server:
    """A real server, asked from within the simulation: `ask` returns when it has answered, and no time has passed.

    One question is under way at a time, so there is no loop to wait in: a call of the driver's is taken to its end
    here, and whatever it waits for is read from the one wire that was spoken on."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._loop.create_unix_connection = self._connection  # type: ignore[attr-defined]
        self._wire: _Wire | None = None
        self._logging_in = False
        self._idle: list[asyncpg.Connection] = []
        self._keeper: asyncpg.Connection | None = None
        self._emptied = 0

    def ask(self, work: Coroutine[Any, Any, T]) -> T:
        while True:
            try:
                waiting = work.send(None)
            except StopIteration as answer:
                found: T = answer.value
                return found
            while waiting is not None and not waiting.done():
                assert self._wire is not None
                self._wire.exchange()

    def spoken_on(self, wire: _Wire) -> None:
        self._wire = wire
        if self._logging_in:
            self._loop.call_soon(wire.exchange)

    async def _connection(self, protocol: Any, path: str) -> Any:
        wire = _Wire(self, path, protocol())
        return wire, wire.protocol

    def take(self) -> asyncpg.Connection:
        return self._idle.pop() if self._idle else self._connect()

    def give_back(self, connection: asyncpg.Connection, *, locks: bool = False) -> None:
        """A session at its end: what it had not committed is undone, and what locks it held are free."""
        if connection.is_in_transaction():
            self.ask(connection.execute("ROLLBACK"))
        if locks:
            self.ask(connection.execute("SELECT pg_advisory_unlock_all()"))
        self._idle.append(connection)

    def empty(self) -> None:
        """Forget every history there was. Days and months stay, and a lock on them keeps them from being dropped."""
        if self._keeper is None:
            self._keeper = self._connect()
            self.ask(make_room(self._keeper, _SPANS))
            self.ask(self._keeper.execute(TRAIL))
        self.ask(self._empty(self._keeper))

    async def _empty(self, keeper: asyncpg.Connection) -> None:
        if keeper.is_in_transaction():
            await keeper.execute("ROLLBACK")
        tables = [row[0] for row in await keeper.fetch(_FILLED)]
        if self._emptied % _FRESH_EVERY == 0:
            await keeper.execute(f"TRUNCATE {', '.join(tables)}")
        else:
            # All sessions keep what they have worked out about tables that are the same as before.
            await keeper.execute("; ".join(f"DELETE FROM {table}" for table in tables))
        self._emptied += 1
        kept = ", ".join(f"segmenter.{span.name}" for span in _SPANS)
        await keeper.execute(f"BEGIN; LOCK TABLE {kept} IN ACCESS SHARE MODE")

    def close(self) -> None:
        for connection in [*self._idle, *filter(None, [self._keeper])]:
            connection.terminate()
        self._loop.close()

    def _connect(self) -> asyncpg.Connection:
        """Not with the simulated machine's dice: how often it has to be done depends on what was played before."""
        outer, simulated = events._get_running_loop(), os.urandom
        events._set_running_loop(None)
        os.urandom = random._urandom = _urandom  # type: ignore[attr-defined]
        self._logging_in = True
        try:
            return self._loop.run_until_complete(self._log_in())
        finally:
            os.urandom = random._urandom = simulated  # type: ignore[attr-defined]
            self._logging_in = False
            events._set_running_loop(outer)

    async def _log_in(self) -> asyncpg.Connection:
        return await asyncpg.connect(
            self._url,
            ssl=False,
            statement_cache_size=1000,
            server_settings={
                "timezone": "UTC",
                "jit": "off",
                "enable_seqscan": "off",
                "plan_cache_mode": "force_generic_plan",
                # One session works at a time: whoever finds a lock taken would wait for ever.
                "lock_timeout": "1",
                "application_name": "simulation",
            },
        )


class Sessions:
    """All sessions that simulated processes have with the server."""

    def __init__(self, server: Server, loop: VirtualLoop, weather: Weather) -> None:
        self.server, self.loop, self.weather = server, loop, weather
        self.open: dict[int, Session] = {}
        self.statements = 0
        self.let_through: list[str] = []
        """Whose fenced transactions were let through once more."""
        self.decided: Callable[[list[tuple[str, str]]], None] = lambda going: None
        """Told while a slow transaction brings mails to where their hand-over begins: the address and topic of each."""
        self._number = 1000

    def begin(self, process: Process) -> Session:
        self._number += 1
        session = self.open[self._number] = Session(self, process, self._number)
        return session

    def end_stopped(self) -> list[int]:
        """What an administrator does about sessions that hold locks and are silent."""
        silent = [s for s in self.open.values() if s.process.stopped and s.is_in_transaction()]
        for session in silent:
            session.terminate()
        return [session.pid for session in silent]


class Session:
    """A connection, as far as the services use asyncpg's."""

    def __init__(self, sessions: Sessions, process: Process, pid: int) -> None:
        self.process, self.pid = process, pid
        self._sessions = sessions
        self._raw: asyncpg.Connection | None = sessions.server.take()
        self._depth = 0
        self._fresh = False
        self._locks = False
        self._hands_over = False
        """Its transaction brings messages to where their hand-over begins."""
        self._idle: asyncio.TimerHandle | None = None

    # What asyncpg has.

    async def fetch(self, query: str, *args: object, timeout: float | None = None) -> Any:
        return await self._statement("fetch", query, args)

    async def fetchrow(self, query: str, *args: object, timeout: float | None = None) -> Any:
        return await self._statement("fetchrow", query, args)

    async def fetchval(self, query: str, *args: object, timeout: float | None = None) -> Any:
        return await self._statement("fetchval", query, args)

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> Any:
        return await self.commit() if query == "COMMIT" else await self._statement("execute", query, args)

    async def copy_records_to_table(self, table: str, **what: Any) -> Any:
        return await self._statement("copy_records_to_table", table, (), **what)

    def transaction(self) -> Any:
        return _Transaction(self)

    def is_in_transaction(self) -> bool:
        # As the driver has it: who lost the connection is not told that the transaction is over.
        return self._depth > 0 if self._raw is None else self._raw.is_in_transaction()

    def is_closed(self) -> bool:
        return self._raw is None

    def get_server_pid(self) -> int:
        return self.pid

    def terminate(self) -> None:
        """The connection is gone; the server undoes what was not committed."""
        raw, self._raw = self._raw, None
        if raw is not None:
            self._sessions.server.give_back(raw, locks=self._locks)
            self._sessions.open.pop(self.pid, None)
        self._quiet()

    # How it comes about.

    async def begin(self) -> None:
        await self._command(f"SAVEPOINT nested_{self._depth}" if self._depth else "BEGIN")
        self._fresh = not self._depth
        self._depth += 1

    async def commit(self) -> str:
        self._depth -= 1
        if not self._depth:
            return await self._commit()
        await self._command(f"RELEASE SAVEPOINT nested_{self._depth}")
        return "RELEASE"

    async def rollback(self) -> None:
        self._depth -= 1
        await self._command(f"ROLLBACK TO nested_{self._depth}" if self._depth else "ROLLBACK")

    async def _statement(self, method: str, query: str, args: tuple[object, ...], **named: Any) -> Any:
        sessions = self._sessions
        # What is fenced by its own statement is committed with it.
        commits = _FENCE in query and not self.is_in_transaction()
        await self._travel("commit" if commits else "statement", query)
        if commits and sessions.weather.strikes(self.process, "database: cut before COMMIT"):
            self._cut()
        late = commits and sessions.weather.strikes(self.process, "database: COMMIT comes late")
        if late:
            self._ask(self._session().execute("BEGIN"))
            self._fresh = True
        if query.startswith("SET LOCAL lock_timeout"):
            return "SET"  # whoever waits here waits in the machine's time
        if "pg_blocking_pids" in query:
            return [{"pid": pid} for pid in sessions.end_stopped()]
        if "now()" in query:
            # The server's time is the machine's.
            query = _NOW.sub(f"${len(args) + 1}::timestamptz", query)
            args = (*args, START + timedelta(seconds=sessions.loop.time()))
        self._locks = self._locks or "pg_advisory_lock" in query
        self._hands_over = self._hands_over or _HANDS_OVER in query
        fresh, self._fresh = self._fresh, False
        waits = _OTHERS_LOCK.search(query) is not None
        until = sessions.loop.time() + _LOCK_SECONDS
        while True:
            raw = self._session()
            nested = waits and self.is_in_transaction() and not fresh
            try:
                if nested:
                    self._ask(raw.execute("SAVEPOINT waiting"))
                result = self._ask(getattr(raw, method)(query, *args, **named))
                if nested:
                    self._ask(raw.execute("RELEASE SAVEPOINT waiting"))
                break
            except asyncpg.LockNotAvailableError:
                if not waits or sessions.loop.time() > until:
                    raise
                if nested:
                    self._ask(raw.execute("ROLLBACK TO SAVEPOINT waiting"))
                elif fresh:
                    self._ask(raw.execute("ROLLBACK"))
                    self._ask(raw.execute("BEGIN"))
            await self.process.step("lock", _LOOK_SECONDS)
        if late:
            self._come_late()
        if commits and sessions.weather.strikes(self.process, "database: heard twice"):
            self._hear_again(getattr(raw, method)(query, *args, **named))
        if commits and sessions.weather.strikes(self.process, "database: cut after COMMIT"):
            self._cut()
        if sessions.weather.strikes(self.process, "database: answer lost"):
            self._cut()
        await self._answered()
        return result

    async def _command(self, command: str) -> None:
        if command.startswith("ROLLBACK"):
            # Nothing of it depends on when, and a lost connection has undone everything already.
            if self._raw is None:
                raise asyncpg.InterfaceError("connection is closed")
            self._ask(self._raw.execute(command))
            self._hands_over = False
            self._quiet()
            return
        await self._travel("statement", command)
        self._ask(self._session().execute(command))

    async def _commit(self) -> str:
        weather = self._sessions.weather
        hands_over, self._hands_over = self._hands_over, False
        if hands_over and weather.strikes(self.process, "database: COMMIT of hand-overs is slow"):
            self._sessions.decided(self._ask(self._session().fetch(_GOING)))
            await self.process.step("commit", weather.dice.uniform(0.05, 0.4))
        await self._travel("commit", "COMMIT")
        if weather.strikes(self.process, "database: cut before COMMIT"):
            self._cut()
        if hands_over and weather.strikes(self.process, "database: cut before COMMIT of hand-overs"):
            self._cut()
        if weather.strikes(self.process, "database: COMMIT comes late"):
            self._come_late()
        answer = self._ask(self._session().execute("COMMIT"))
        if weather.strikes(self.process, "database: cut after COMMIT"):
            self._cut()
        await self._answered()
        return answer

    def _hear_again(self, said: Coroutine[Any, Any, Any]) -> None:
        """What stands between a process and its server may send again what was not answered soon. What is fenced goes
        through once."""
        try:
            self._ask(said)
        except asyncpg.DivisionByZeroError:
            return
        except asyncpg.PostgresError as error:
            self._sessions.let_through.append(f"{self.process.name} wrote, which was heard twice: {error}")
        else:
            self._sessions.let_through.append(f"{self.process.name} wrote, which was carried out twice")

    def _come_late(self) -> None:
        raw, self._raw = self._session(), None
        self._quiet()
        self._sessions.loop.call_later(self._sessions.weather.dice.uniform(0.01, 1.5), self._commit_late, raw)
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    def _commit_late(self, raw: asyncpg.Connection) -> None:
        self._sessions.server.ask(raw.execute("COMMIT"))
        self._sessions.open.pop(self.pid, None)
        self._sessions.server.give_back(raw)

    async def _travel(self, what: str, query: str) -> None:
        self._session()
        self._quiet()
        weather = self._sessions.weather
        # What commits nothing may as well be carried out at once: its answer takes a while, and others get in between.
        await self.process.step(what, weather.delay(self.process, "database") if what == "commit" else 0.0)
        self._session()
        if weather.strikes(self.process, "database: connection cut"):
            self._cut()
        if weather.away("database"):
            self._cut()

    async def _answered(self) -> None:
        if self.is_in_transaction():
            self._idle = self._sessions.loop.call_later(_IDLE_SECONDS, self.terminate)
        await self.process.step("answer", self._sessions.weather.delay(self.process, "database"))

    def _ask(self, work: Coroutine[Any, Any, T]) -> T:
        self._sessions.statements += 1
        return self._sessions.server.ask(work)

    def _session(self) -> asyncpg.Connection:
        if self._raw is None:
            raise asyncpg.InterfaceError("connection is closed")
        return self._raw

    def _cut(self) -> None:
        self.terminate()
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    def _quiet(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None


class _Transaction:
    """As asyncpg's."""

    def __init__(self, session: Session) -> None:
        self.start, self.commit, self.rollback = session.begin, session.commit, session.rollback

    async def __aenter__(self) -> None:
        await self.start()

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        await (self.commit() if kind is None else self.rollback())


class SimulatedDatabase(Database):
    """The pool of one process."""

    def __init__(self, sessions: Sessions, process: Process) -> None:
        self.url = ""
        self._use(_Engine(sessions, process), 0)  # type: ignore[arg-type]


class _Engine:
    """As much of SQLAlchemy's engine as `Database` uses."""

    def __init__(self, sessions: Sessions, process: Process) -> None:
        self._sessions, self._process = sessions, process
        self._places = asyncio.Semaphore(_MOST_CONNECTIONS)
        self._kept: list[Session] = []
        process.at_death.append(self._end_all)
        self._all: dict[int, Session] = {}

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[_Checked]:
        async with self._places:
            session = await self._open()
            checked = _Checked(session)
            try:
                yield checked
            finally:
                if session.is_closed() or checked.invalidated:
                    session.terminate()
                    self._all.pop(session.pid, None)
                else:
                    self._kept.append(session)

    async def _open(self) -> Session:
        while self._kept:
            session = self._kept.pop()
            if not session.is_closed():
                return session
        weather = self._sessions.weather
        await self._process.step("connect", weather.delay(self._process, "database"))
        if weather.away("database") or weather.strikes(self._process, "database: no connection"):
            raise ConnectionRefusedError("the database is away")
        session = self._sessions.begin(self._process)
        self._all[session.pid] = session
        return session

    def _end_all(self) -> None:
        for session in list(self._all.values()):
            session.terminate()


class _Checked:
    """A connection out of the pool, and what asks for the driver's own."""

    def __init__(self, session: Session) -> None:
        self.driver_connection = session
        self.invalidated = False

    async def get_raw_connection(self) -> _Checked:
        return self

    def invalidate(self) -> None:
        self.invalidated = True
