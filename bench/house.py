"""The whole of Rapport for measuring: in one process as `rapport up` runs it, or each service in one of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import psutil

from bench.traffic import WRITE_KEY, MailSink, connect
from deploy.dev.broker import KafkaBroker
from services import serving
from shared.database.embedded import EmbeddedPostgres, url_of_running
from shared.database.engine import Database
from shared.database.migrations import migrate
from shared.language import SHIPPED
from shared.security import hash_key

SERVICES = ("ingest", "segmenter", "journeys", "mailer")


class House:
    """`async with House(folder) as house:` everything is up, with the data of `folder`.

    `apart`: each service is a process, over a PostgreSQL that this process starts. `kafka` (then also apart): the
    streams are in a broker of our own, otherwise in PostgreSQL."""

    def __init__(
        self,
        folder: Path,
        *,
        apart: bool = False,
        kafka: bool = False,
        playbook: Path = SHIPPED,
        partitions: int = 12,
        services: Sequence[str] = SERVICES,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.apart = apart or kafka
        self.kafka = kafka
        self.playbook = playbook
        self.partitions = partitions
        self.mails: dict[str, float] = {}
        """When the last mail to each address arrived (seconds of the epoch)."""
        self.mailed = 0
        self._environment = dict(environment or {})
        self._stack = AsyncExitStack()
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._connection: asyncpg.Connection | None = None
        self._broker: KafkaBroker | None = None
        self._ports = dict(zip(services, free_ports(len(services)), strict=True))

    @property
    def port(self) -> int:
        """Ingest's."""
        return self._ports["ingest"]

    @property
    def url(self) -> str:
        url = url_of_running(self.folder / "postgres")
        assert url is not None
        return url

    @property
    def processes(self) -> dict[str, psutil.Process]:
        """By name: `rapport`, or each service; `kafka`; and `postgresql`, whose children belong to it."""
        pid = int((self.folder / "postgres" / "cluster" / "postmaster.pid").read_text().splitlines()[0])
        ours = {name: psutil.Process(process.pid) for name, process in self._processes.items()}
        if self._broker is not None:
            ours["kafka"] = psutil.Process(self._broker.pid)
        return {**ours, "postgresql": psutil.Process(pid)}

    def seconds_used(self) -> dict[str, float]:
        """Processor time of each process, those of PostgreSQL taken together."""
        used = {}
        for name, process in self.processes.items():
            family = [process, *(process.children() if name == "postgresql" else ())]
            # A backend that has ended since is counted with its parent.
            used[name] = process.cpu_times().children_user + process.cpu_times().children_system
            for one in family:
                try:
                    times = one.cpu_times()
                except psutil.NoSuchProcess:
                    continue
                used[name] += times.user + times.system
        return used

    async def __aenter__(self) -> House:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        sink = await loop.create_server(lambda: MailSink(self._arrived), "127.0.0.1", 0)
        self._stack.callback(sink.close)
        smtp = f"smtp://127.0.0.1:{sink.sockets[0].getsockname()[1]}?tls=none"
        environment = {**os.environ, "RAPPORT_PARTITIONS": str(self.partitions), **self._environment}
        if not self.apart:
            options = ("--data", str(self.folder), "--port", str(self.port), "--smtp", smtp)
            playbook = ("--playbook", str(self.playbook))
            await self._run("rapport", environment, "up", *options, *playbook, "--write-key", WRITE_KEY)
            await self._answers("ingest", "")
            for name in SERVICES[1:]:
                await self._answers("ingest", f"/{name}")
            return
        server = await self._stack.enter_async_context(EmbeddedPostgres(self.folder / "postgres"))
        database = Database(server.url)
        await migrate(database, serving.MIGRATIONS)
        await database.close()
        if self.kafka:
            self._broker = await self._stack.enter_async_context(KafkaBroker(self.folder / "kafka"))
            environment["KAFKA_BOOTSTRAP_SERVERS"] = self._broker.bootstrap
        sources = self.folder / "sources.yaml"
        sources.write_text(f"sources:\n  - name: shop\n    keys:\n      - {hash_key(WRITE_KEY)}\n")
        environment |= {
            "DATABASE_URL": server.url,
            "RAPPORT_INGEST_SOURCES": str(sources),
            "RAPPORT_MAILER_SMTP_URL": smtp,
            "RAPPORT_MAILER_PUBLIC_URL": "http://127.0.0.1:1/mailer",
        }
        await self._said(environment, "migrate")
        await self._said(environment, "playbook", "apply", str(self.playbook))
        for name, port in self._ports.items():
            await self._run(name, environment, "serve", name, "--host", "127.0.0.1", "--port", str(port))
        for name in self._ports:
            await self._answers(name, "")

    async def behind(self) -> dict[str, int]:
        """Records that each service has not committed yet; of streams in PostgreSQL."""
        rows = await (await self.database()).fetch(
            "SELECT h.stream, sum(h.next)::bigint AS end, sum(p.next_offset)::bigint AS taken FROM log.heads h"
            " JOIN processing.partitions p ON p.partition = h.partition AND p.service ="
            " CASE h.stream WHEN 'events' THEN 'segmenter' WHEN 'customers' THEN 'journeys' ELSE 'mailer' END"
            " GROUP BY h.stream"
        )
        return {row["stream"]: row["end"] - row["taken"] for row in rows}

    async def caught_up(self, seconds: float = 120.0) -> None:
        """Wait until every service has taken what there is, but for the ticks that never end."""
        async with asyncio.timeout(seconds):
            while any(count > self.partitions for count in (await self.behind()).values()):  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    async def database(self) -> asyncpg.Connection:
        """A connection of our own."""
        if self._connection is None:
            connection = self._connection = await asyncpg.connect(self.url)
            self._stack.push_async_callback(connection.close)
        return self._connection

    async def _run(self, name: str, environment: Mapping[str, str], *arguments: str) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:  # noqa: ASYNC230
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services", *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment, "RAPPORT_LOG_FORMAT": "json"},
            )
        self._processes[name] = process
        self._stack.push_async_callback(self._end, process)

    async def _said(self, environment: Mapping[str, str], *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(environment),
        )
        output, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"rapport {' '.join(arguments)}: {output.decode()[-1000:]}")

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 60)
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _answers(self, name: str, prefix: str) -> None:
        """Wait for its readiness."""
        deadline = time.monotonic() + 60
        while True:
            try:
                client = await connect(self._ports[name])
                status = await client.get(f"{prefix}/readyz")
                client.close()
                if status == 200:
                    return
            except OSError:
                pass
            if time.monotonic() > deadline or any(one.returncode is not None for one in self._processes.values()):
                logs = "\n".join((self.folder / f"{one}.log").read_text()[-1500:] for one in self._processes)
                raise RuntimeError(f"{name}{prefix} is not ready. {logs}")
            await asyncio.sleep(0.05)

    def _arrived(self, recipient: str) -> None:
        self.mailed += 1
        self.mails[recipient] = time.time()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
