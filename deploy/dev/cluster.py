"""The developer's cluster: a real Kafka broker, PostgreSQL, and every service as processes of its own. No Docker.

`make cluster` runs it; Ctrl-C stops everything in order. Tests use `Cluster` over servers that they have already.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from deploy.dev.broker import VERSION, KafkaBroker, free_ports
from deploy.dev.preloaded import Launcher, Running, Spawning
from shared.database.embedded import EmbeddedPostgres
from shared.errors import RapportError
from shared.security import hash_key

# The order of the road, which is also the order to stop in: who writes ends before who reads.
SERVICES = ("ingest", "segmenter", "journeys", "mailer")
WORKERS = 2
ROOT = Path(__file__).parents[2]
PLAYBOOK = ROOT / "playbook"

WRITE_KEY = "cluster-write-key"
READ_KEY = "cluster-read-key"

_out = Console(highlight=False, markup=False)

_START_SECONDS = 180
_STOP_SECONDS = 60


@dataclass
class Worker:
    """One process of one service. Its output goes to `log`."""

    service: str
    number: int
    port: int
    log: Path
    process: Running | None = None

    @property
    def name(self) -> str:
        return f"{self.service}-{self.number}"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """SIGKILL ends it at once, SIGSTOP and SIGCONT make it stand still and go on, SIGTERM asks it to end."""
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait)

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-1000:].strip()


class Cluster:
    """The four services over servers that are given, as processes that a user would start.

    `async with Cluster(folder, environment) as cluster:` migrates, applies the playbook, starts `workers` of each
    service and waits until all are ready. `environment` names the servers (DATABASE_URL, KAFKA_BOOTSTRAP_SERVERS) and
    more settings.
    `launcher` starts the processes; as a user would, unless given.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *,
        playbook: Path = PLAYBOOK,
        workers: int = WORKERS,
        first_port: int | None = None,
        launcher: Launcher | None = None,
    ) -> None:
        self.folder = folder
        self._launcher = launcher or Spawning()
        self._playbook = playbook
        sources = folder / "sources.yaml"
        sources.write_text(f"sources:\n  - name: shop\n    keys: [{hash_key(WRITE_KEY)}]\n")
        (folder / "logs").mkdir(exist_ok=True)
        names = [(service, number) for service in SERVICES for number in range(1, workers + 1)]
        if first_port is None:
            ports = free_ports(len(names))
        else:
            ports = [first_port + 10 * SERVICES.index(service) + number - 1 for service, number in names]
        self.workers = {
            f"{service}-{number}": Worker(service, number, port, folder / "logs" / f"{service}-{number}.log")
            for (service, number), port in zip(names, ports, strict=True)
        }
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAPPORT_")},
            "RAPPORT_INGEST_SOURCES": str(sources),
            "RAPPORT_READ_KEYS": hash_key(READ_KEY),
            "RAPPORT_SEGMENTER_URL": self.workers["segmenter-1"].address,
            "RAPPORT_MAILER_URL": self.workers["mailer-1"].address,
            "RAPPORT_MAILER_PUBLIC_URL": self.workers["mailer-1"].address,
            "RAPPORT_LOG_FORMAT": "json",
            **environment,
        }

    def of(self, service: str) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.service == service]

    async def __aenter__(self) -> Cluster:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        await self.command("migrate")
        await self.command("playbook", "apply", str(self._playbook))
        try:
            for worker in self.workers.values():
                self.launch(worker)
            await asyncio.gather(*map(self.ready, self.workers.values()))
        except BaseException:
            await self.stop()
            raise

    async def command(self, *arguments: str) -> str:
        """Run `rapport ...` to its end; returns what it printed. Raises RapportError where it fails."""
        with tempfile.NamedTemporaryFile() as output:
            running = self._launcher.launch(arguments, self.environment, Path(output.name))
            code = await asyncio.to_thread(running.wait)
            said = output.read().decode()
        if code:
            raise RapportError(f"`rapport {' '.join(arguments)}` failed: {said.strip()}")
        return said

    def launch(self, worker: Worker, **environment: str) -> None:
        """Start a worker, or start it again after its end; `environment` is for this process alone."""
        assert not worker.alive, f"{worker.name} runs already"
        worker.process = self._launcher.launch(
            ["serve", worker.service, "--host", "127.0.0.1", "--port", str(worker.port)],
            {**self.environment, **environment},
            worker.log,
        )

    async def ready(self, worker: Worker) -> None:
        """Returns when the worker says so. Raises RapportError where it ends instead, or takes too long."""
        said: object = "nothing"
        try:
            async with asyncio.timeout(_START_SECONDS):
                while True:
                    if not worker.alive:
                        raise RapportError(f"{worker.name} ended at its start: {worker.log_tail()}")
                    try:
                        await asyncio.to_thread(urllib.request.urlopen, f"{worker.address}/readyz", timeout=5)
                        return
                    except urllib.error.HTTPError as answer:
                        said = answer.read().decode(errors="replace")
                    except OSError as error:
                        said = error
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise RapportError(f"{worker.name} is not ready after {_START_SECONDS} s; it says: {said}") from None

    async def stop(self) -> None:
        """Ask the workers to end, service by service along the road; one that does not is killed."""
        for service in SERVICES:
            await asyncio.gather(*map(self._stop, self.of(service)))

    async def _stop(self, worker: Worker) -> None:
        if worker.process is None or not worker.alive:
            return
        worker.send(signal.SIGTERM)
        worker.send(signal.SIGCONT)  # one that stands still would not hear
        try:
            await asyncio.to_thread(worker.process.wait, _STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _out.print(f"{worker.name} does not end and is killed; see {worker.log}")
            worker.send(signal.SIGKILL)
            await worker.ended()

    async def watch(self) -> None:
        """Raises RapportError when a worker ends by itself; never returns."""
        while True:
            for worker in self.workers.values():
                if not worker.alive:
                    raise RapportError(f"{worker.name} ended by itself: {worker.log_tail()}")
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def servers(folder: Path) -> AsyncIterator[dict[str, str]]:
    """A broker and PostgreSQL of our own; yields the environment that names them."""
    async with contextlib.AsyncExitStack() as stack:
        broker, postgres = KafkaBroker(folder / "kafka"), EmbeddedPostgres(folder / "postgres")
        for server in (postgres, broker):
            stack.push_async_callback(server.stop)
        await asyncio.gather(broker.start(), postgres.start())
        yield {"DATABASE_URL": postgres.url, "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap}


async def run(folder: Path, *, smtp: str, workers: int, first_port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    _out.print(f"starting Kafka {VERSION} and PostgreSQL in {folder} …")
    async with servers(folder) as environment:
        environment["RAPPORT_MAILER_SMTP_URL"] = smtp
        _out.print(f"starting {workers} workers of each service …")
        async with Cluster(folder, environment, workers=workers, first_port=first_port) as cluster:
            _out.print(_where_to_look(cluster, environment, smtp), soft_wrap=True)
            ways = [asyncio.create_task(stop.wait()), asyncio.create_task(cluster.watch())]
            done, left = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in left:
                way.cancel()
            for way in done:
                way.result()
            _out.print("stopping in order …")
    _out.print("stopped")


def _where_to_look(cluster: Cluster, environment: Mapping[str, str], smtp: str) -> str:
    shop, memory, journeys, mailer = (cluster.of(service) for service in SERVICES)
    lines = [
        "",
        "The cluster is up. Ctrl-C stops it.",
        f"  post events to    {' or '.join(worker.address for worker in shop)}   write key {WRITE_KEY}",
        f"  customers         {memory[0].address}/v1/customers/KEY   read key {READ_KEY}",
        f"  mails             {mailer[0].address}/inbox" if smtp == "inbox://" else f"  mails             {smtp}",
        f"  API reference     {shop[0].address}/docs  {memory[0].address}/docs  {mailer[0].address}/docs",
        f"  metrics           {memory[0].address}/metrics  {journeys[0].address}/metrics, and so on",
        f"  logs              {cluster.folder / 'logs'}",
        "",
        "  One event:",
        f"    curl -u {WRITE_KEY}: {shop[0].address}/v1/track -H 'content-type: application/json' \\",
        """         -d '{"userId": "ann", "event": "Product Viewed", "properties": {"product_id": "1"}}'""",
        "  The `rapport` command on this cluster:",
        *(f"    export {name}={environment[name]}" for name in ("DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS")),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__)
    parser.add_argument("--data", type=Path, help="where everything is kept; a temporary folder if not given")
    parser.add_argument("--smtp", default="inbox://", help="smtp://…, or inbox:// to keep the mails here")
    parser.add_argument("--workers", type=int, default=WORKERS, help="processes of each service")
    parser.add_argument("--port", type=int, default=8000, help="of the first one; the others follow by tens")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.data
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rapport-cluster-")))
            folder.chmod(0o755)  # PostgreSQL, where we are root, runs as another account
        folder.mkdir(parents=True, exist_ok=True)
        try:
            asyncio.run(run(folder.resolve(), smtp=options.smtp, workers=options.workers, first_port=options.port))
        except RapportError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
