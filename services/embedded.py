"""All services in one process, with a PostgreSQL of its own: `rapport up`. Nothing imports this but the command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from services import serving
from services.ingest import main as ingest
from services.ingest.settings import IngestSettings
from services.ingest.sources import GivenSources
from services.journeys import main as journeys
from services.journeys.settings import JourneysSettings
from services.journeys.store import playbooks_in_use
from services.mailer import main as mailer
from services.mailer.settings import INBOX, MailerSettings
from services.segmenter import main as segmenter
from services.segmenter.settings import SegmenterSettings
from services.terminal import READ_KEY
from shared.clock import Clock
from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database, is_transient
from shared.database.migrations import migrate
from shared.errors import RapportError
from shared.language import SHIPPED, PlaybookInvalid, load, playbook_hash, read_folder
from shared.log.port import Log
from shared.processing import playbooks, store
from shared.runtime import Runtime, Service
from shared.security import hash_key
from shared.settings import Settings

_WATCH_SECONDS = 0.5


@dataclass(frozen=True)
class Options:
    """What `rapport up` is told. Keys that are not given are made at the first start and kept in `data`."""

    data: Path
    playbook: Path | None = None
    """The folder to take the playbook from, and to watch. None: the one in force stays, at first the shipped one."""
    host: str = "127.0.0.1"
    port: int = 8080
    smtp: str = INBOX
    write_key: str | None = None
    read_key: str | None = None
    public_url: str | None = None
    clock_speed: float | None = None
    """None: what RAPPORT_CLOCK_SPEED says, else the machine's own."""


@dataclass(frozen=True)
class Embedded:
    """A running installation."""

    address: str
    write_key: str
    read_key: str
    runtime: Runtime
    database: Database
    clock: Clock
    server: serving.HttpServer
    services: Mapping[str, Service]


class Prefixes:
    """One ASGI application for all: each service under its prefix, ingest at the root, where shops expect it."""

    def __init__(self, root: Any, under: Mapping[str, Any]) -> None:
        self._root = root
        self._under = dict(under)

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        path: str = scope.get("path", "")
        name = path[1:].partition("/")[0]
        app = self._under.get(name)
        if app is None:
            await self._root(scope, receive, send)
        else:
            await app({**scope, "root_path": scope.get("root_path", "") + "/" + name}, receive, send)


@contextlib.asynccontextmanager
async def running(options: Options) -> AsyncIterator[Embedded]:
    """Everything that `options` ask for, started; stopped in order at the end."""
    common = serving.read_settings()
    MailerSettings.read(mailer_smtp_url=options.smtp)  # what is wrong with it is said before anything is made
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving.HttpServer(options.host, options.port))
        url = common.database_url
        alone = url is None
        if url is None:
            postgres = await stack.enter_async_context(EmbeddedPostgres(_postgres_folder(options.data)))
            url = postgres.near_url
        values: dict[str, Any] = {"database_url": url}
        if options.clock_speed is not None:
            values["clock_speed"] = options.clock_speed
        settings = Settings.read(**values, database_connections=max(24, common.database_connections))
        migrating = Database(url)
        try:
            await migrate(migrating, serving.MIGRATIONS)
            if alone:
                async with migrating.connect() as connection:
                    await store.forget_every_worker(connection)
        finally:
            await migrating.close()
        runtime = await stack.enter_async_context(serving.open_runtime(settings))
        assert runtime.database is not None
        keys = _Keys(options.data)
        write_key = options.write_key or keys.get("write-key")
        read_key = options.read_key or keys.get(READ_KEY)
        values["read_keys"] = hash_key(read_key)
        public = (options.public_url or server.address).rstrip("/") + "/mailer"
        taking = IngestSettings.read(**values)
        services: dict[str, Service] = {
            "ingest": ingest.build(runtime, taking, GivenSources({"shop": [write_key]}, taking.rate)),
            "segmenter": segmenter.build(runtime, SegmenterSettings.read(**values)),
            "journeys": journeys.build(
                runtime,
                JourneysSettings.read(
                    **values, segmenter_url=f"{server.address}/segmenter", mailer_url=f"{server.address}/mailer"
                ),
            ),
            "mailer": mailer.build(
                runtime, MailerSettings.read(**values, mailer_smtp_url=options.smtp, mailer_public_url=public)
            ),
        }
        watcher = PlaybookWatcher(options.playbook or SHIPPED, runtime.log, runtime.database, runtime.clock)
        await watcher.apply_first(only_where_there_is_none=options.playbook is None)
        for service in services.values():
            await stack.enter_async_context(serving.started(service))
        under = {name: service.app for name, service in services.items() if name != "ingest"}
        server.start(Prefixes(services["ingest"].app, under))
        stack.push_async_callback(server.stop)
        if options.playbook is not None:
            watching = asyncio.create_task(watcher.watch())
            stack.callback(watching.cancel)
        yield Embedded(server.address, write_key, read_key, runtime, runtime.database, runtime.clock, server, services)


class PlaybookWatcher:
    """Applies the playbook in a folder when it is saved. A bad one never replaces a good one."""

    def __init__(self, folder: Path, log: Log, database: Database, clock: Clock) -> None:
        self._folder = folder
        self._log = log
        self._database = database
        self._clock = clock
        self._logger = structlog.get_logger()
        self._seen: object = None

    async def apply_first(self, *, only_where_there_is_none: bool = False) -> None:
        """At the start. Where the folder's playbook is bad, the one in force stays; raises where there is none."""
        self._seen = await asyncio.to_thread(self._stamp)
        async with self._database.connect() as connection:
            before = await playbooks.in_force(connection)
        if only_where_there_is_none and before is not None:
            return
        try:
            await self._apply()
        except (PlaybookInvalid, RapportError) as error:
            if before is None:
                raise
            self._logger.error("the playbook is not applied; the last good one stays in force", problems=str(error))

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            stamp = await asyncio.to_thread(self._stamp)
            if stamp == self._seen:
                continue
            # An editor saves several files one after the other: wait until they rest.
            await asyncio.sleep(_WATCH_SECONDS / 2)
            if await asyncio.to_thread(self._stamp) != stamp:
                continue
            try:
                if await self._apply():
                    self._logger.info("playbook applied", folder=str(self._folder))
            except Exception as error:
                if is_transient(error):
                    continue
                told = {"problems": str(error)} if isinstance(error, RapportError) else {"exc_info": error}
                self._logger.error("the playbook is not applied; the last good one stays in force", **told)
            self._seen = stamp

    async def _apply(self) -> bool:
        files = await asyncio.to_thread(read_folder, self._folder)
        content_hash = playbook_hash(files)
        async with self._database.connect() as connection:
            if await playbooks.in_force(connection) == content_hash:
                return False
            playbook = await asyncio.to_thread(load, files)
            in_use = await playbooks_in_use(connection)
            by = f"rapport up, from {self._folder}"
            await playbooks.activate(self._log, connection, playbook, self._clock.now(), in_use, by=by)
        return True

    def _stamp(self) -> object:
        stamps = []
        for folder, _, names in sorted(os.walk(self._folder)):
            for name in sorted(names):
                with contextlib.suppress(FileNotFoundError):
                    stat = os.stat(os.path.join(folder, name))
                    stamps.append((folder, name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return stamps


class _Keys:
    """Keys of this installation, made once and kept beside its data, readable by its owner alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str) -> str:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / name
        if not path.exists():
            whole = self._folder / f"{name}.new"
            whole.touch(mode=0o600)
            whole.write_text(secrets.token_urlsafe(24) + "\n")
            whole.replace(path)
        return path.read_text().strip()


def _postgres_folder(data: Path) -> Path:
    return data.absolute() / "postgres"
