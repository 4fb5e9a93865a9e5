"""From settings to a running service: its log, its database, its HTTP server, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.ingest import main as ingest
from services.ingest.settings import IngestSettings
from services.journeys import main as journeys
from services.journeys.settings import JourneysSettings
from services.mailer import main as mailer
from services.mailer.settings import MailerSettings
from services.segmenter import main as segmenter
from services.segmenter.settings import SegmenterSettings
from shared import processing
from shared.clock import SystemClock
from shared.database.embedded import url_of_running
from shared.database.engine import Database, is_transient
from shared.database.migrations import behind
from shared.database.revisions import Migrations
from shared.errors import RapportError, words_of
from shared.log import postgres
from shared.log.port import Log
from shared.processing.installation import open_installation
from shared.runtime import Runtime, Service
from shared.settings import Settings, refuse_unknown

MIGRATIONS: tuple[Migrations, ...] = (
    processing.MIGRATIONS,
    postgres.MIGRATIONS,
    segmenter.MIGRATIONS,
    journeys.MIGRATIONS,
    mailer.MIGRATIONS,
)

_LONG_BYTES = 16 << 10

NO_DATABASE = (
    "DATABASE_URL is not set. Give PostgreSQL's address, postgresql://user:password@host/name, or the --data of "
    "`rapport up`."
)

SERVICES: Mapping[str, tuple[ModuleType, type[Settings]]] = {
    "ingest": (ingest, IngestSettings),
    "segmenter": (segmenter, SegmenterSettings),
    "journeys": (journeys, JourneysSettings),
    "mailer": (mailer, MailerSettings),
}


def read_settings() -> Settings:
    """The common settings; raises RapportError where the environment has a name with our prefix that nobody knows."""
    refuse_unknown([Settings, *(settings for _, settings in SERVICES.values())])
    return Settings.read()


@contextlib.asynccontextmanager
async def open_runtime(
    settings: Settings, *, database_needed: bool = True, visiting: bool = False
) -> AsyncIterator[Runtime]:
    """The log, the database and the clock that the settings name. A visiting command leaves the clock's speed alone.

    Waits for a database that is away. Raises RapportError where the schemas are behind, or where the log and the
    database belong to different installations."""
    async with contextlib.AsyncExitStack() as stack:
        database = None
        installation = None
        # A clock of another speed has its anchor in the database, so ingest, too, reads it there once.
        scaled = settings.clock_speed != 1
        if settings.database_url and (database_needed or scaled or not settings.kafka_bootstrap_servers):
            database = Database(settings.database_url, size=settings.database_connections)
            stack.push_async_callback(database.close)
            await _wait_for(database)
            missing = await behind(database, MIGRATIONS)
            if missing:
                raise RapportError(f"the database lacks migrations of {', '.join(missing)}. Run `rapport migrate`.")
            async with database.connect() as connection:
                speed = None if visiting else settings.clock_speed
                installation = await open_installation(connection, settings.partitions, speed)
        elif database_needed:
            raise RapportError(NO_DATABASE)
        log = open_log(settings, database)
        stack.push_async_callback(log.close)
        await log.start()
        if installation is not None:
            await belong_together(log, str(installation.id))
        clock = installation.clock if installation else SystemClock()
        yield Runtime(log, clock, database, installation)


def visited(data: Path) -> Settings:
    """The settings of a command that visits a running installation: the environment's servers, else the PostgreSQL
    of the `rapport up` over `data`. Raises RapportError where there is neither."""
    settings = read_settings()
    if settings.database_url is not None:
        return settings
    url = url_of_running(data / "postgres")
    if url is None:
        raise RapportError(
            f"no `rapport up` runs over {data}. Start it, or give the --data of one that runs, or set DATABASE_URL to "
            "PostgreSQL's address: postgresql://user:password@host/name."
        )
    return Settings.read(database_url=url)


def open_log(settings: Settings, database: Database | None) -> Log:
    """The log that the settings name: Kafka, else the streams in PostgreSQL. Raises RapportError where there is
    neither."""
    if settings.kafka_bootstrap_servers:
        # Not at the top: a process without Kafka starts sooner and smaller.
        from shared.log.kafka import kafka_log

        return kafka_log(settings)
    if database is None:
        raise RapportError("neither KAFKA_BOOTSTRAP_SERVERS nor DATABASE_URL is set: there is nowhere to keep events.")
    return postgres.PostgresLog(database, settings.partitions)


async def belong_together(log: Log, installation: str) -> None:
    """Raises RapportError where the log was first used with another database; a fresh log is marked."""
    found = await log.installation()
    if found is None:
        await log.set_installation(installation)
    elif found != installation:
        raise RapportError(
            f"the log belongs to installation {found} and the database to {installation}. Their offsets do not fit "
            f"together: check KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL."
        )


async def serve(name: str, host: str, port: int) -> None:
    """Run one service until SIGTERM or SIGINT, then let go of everything in order."""
    read_settings()
    module, kind = SERVICES[name]
    settings = kind.read()
    async with open_runtime(settings, database_needed=name != "ingest") as runtime, HttpServer(host, port) as server:
        service: Service = module.build(runtime, settings)
        async with started(service):
            try:
                server.start(service.app)
                structlog.get_logger(service=name).info("started", address=server.address)
                await stop_requested(server)
            finally:
                await server.stop()


@contextlib.asynccontextmanager
async def started(service: Service) -> AsyncIterator[None]:
    """A service that runs. Where it cannot be started, what had begun of it is ended all the same."""
    try:
        await service.start()
        yield
    finally:
        await service.stop()


class HttpServer:
    """A socket that is bound at once, so that a taken port is told at once; uvicorn takes it once there is an app."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return f"http://{self._host if self._host not in ('0.0.0.0', '::') else '127.0.0.1'}:{self.port}"

    @property
    def port(self) -> int:
        assert self._socket is not None
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def failed(self) -> asyncio.Task[None] | None:
        """The server's task; it ends only by `stop`, or because something is wrong."""
        return self._task

    async def __aenter__(self) -> HttpServer:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        # Named as TCP, or asyncio leaves Nagle's algorithm on: answers in two writes would wait 40 ms for an ACK.
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((self._host, self._port))
        except OSError as error:
            bound.close()
            raise RapportError(
                f"cannot listen on {self._host}:{self._port}: {error.strerror}. Stop what uses it, or choose another "
                f"--port."
            ) from None
        self._socket = bound
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()
        if self._socket is not None:
            self._socket.close()

    def start(self, app: Any) -> None:
        assert self._socket is not None
        config = uvicorn.Config(
            app,
            http=_InOnePiece,
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=10,
            timeout_keep_alive=75,
        )
        self._server = _Uvicorn(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def stop(self) -> None:
        """Answer what is being asked, and close."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await asyncio.gather(self._task, return_exceptions=True)
            self._server = self._task = None


class _InOnePiece(HttpToolsProtocol):
    """Head and body of an answer go out with one call to the kernel: it costs as much as a good part of the answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, OnePiece(transport)))


class OnePiece:
    """A transport that writes at the end of the loop's turn what was written in it; what is long, at once."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._held: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._write)
        self._held.append(data)
        if len(data) > _LONG_BYTES:
            self._write()

    def close(self) -> None:
        self._write()
        self._transport.close()

    def _write(self) -> None:
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.write(b"".join(held))


class _Uvicorn(uvicorn.Server):
    """Signals are ours: services let go in order after the server has closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def stop_requested(server: HttpServer) -> None:
    """Returns at SIGTERM or SIGINT, or raises what the HTTP server died of."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    waiting = asyncio.create_task(stop.wait())
    watched = {waiting} | ({server.failed} if server.failed else set())
    done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)
    if waiting not in done:
        waiting.cancel()
        for task in done:
            task.result()
        raise RapportError("the HTTP server ended by itself.")


async def _wait_for(database: Database) -> None:
    said = False
    while True:
        try:
            async with database.connect():
                return
        except Exception as error:
            if not is_transient(error):
                raise
            if not said:
                remedy = "It goes on by itself once the server that DATABASE_URL names answers."
                problem = words_of(error)
                structlog.get_logger().warning("waiting for the database", error=problem, remedy=remedy)
                said = True
            await asyncio.sleep(1)
