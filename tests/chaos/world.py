"""All that is hurt: the servers with proxies before them, two workers of each service, a shop, a mail server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx

from deploy.dev.broker import KafkaBroker
from deploy.dev.cluster import SERVICES, WRITE_KEY, Cluster, Worker
from deploy.dev.preloaded import Launcher, Preloaded, Running
from shared.database.embedded import EmbeddedPostgres
from shared.errors import RapportError
from tests.chaos import tables
from tests.chaos.between import BeforeKafka, BeforePostgres
from tests.chaos.ledger import Ledger
from tests.chaos.mails import MailServer
from tests.chaos.people import People
from tests.chaos.receiver import SECRET, Receiver
from tests.chaos.shop import Shop
from tests.simulation.replay import Gone

PARTITIONS = 4
WORKERS = 2
EXPIRY_SECONDS = 3.0
DISK_BYTES = 1200 << 20
SETTLED_WITHIN = 180.0
"""Seconds from the last fault to the end of everything."""
PLAYBOOK = Path(__file__).parent / "playbook"
_RECEIVER = "http://receiver.example"
"""Whom the playbook calls: in a run, the receiver of that run."""
ENDED_WITHIN = 120.0
"""Seconds by which a process has ended that was asked to, however busy the machine."""
_SUCCESSORS = 5
"""How many may try to publish what another left, while a server that has much else to do does not answer."""
_RECOVERED_WITHIN = 15.0
"""Seconds after a fault, at which the log is reached again: what was asked of a silent server is given up after 4,
those who try wait longer each time, up to 5, and to connect takes up to 5."""

POINTS = {
    "ingest": ("appended",),
    "segmenter": ("before_commit", "after_commit", "published", "emptied"),
    "journeys": ("before_commit", "after_commit", "published", "emptied"),
    "mailer": ("fenced", "before_commit", "after_commit", "published", "emptied"),
}
HAND_OVER_POINTS = ("mailer.sending", "mailer.data", "mailer.data_sent", "mailer.answered")
KAFKA_POINTS = ("published", "emptied")
"""Points of the outbox, which the log in PostgreSQL does without."""


@dataclass
class Life:
    """One process of a worker, from its start to its end."""

    worker: Worker
    pid: int
    begun: float
    seen_at: float
    """When it was last seen to go on; it stood still or ended after that."""
    log_from: int
    armed: str = ""
    told: list[str] = field(default_factory=list)
    """What was done to it."""
    counted: bool = False
    """A stop at its point was seen."""


class World:
    """`async with a_world(...) as world:` starts everything. Faults act on it; a supervisor starts what has ended."""

    def __init__(self, folder: Path, log: str, seed: int) -> None:
        self.folder = folder
        self.log = log
        self.dice = random.Random(seed)
        self.ledger = Ledger()
        self.faults: Counter[str] = Counter()
        self.wrong: list[str] = []
        """What the processes did that they must not, whatever was done to them."""
        self.noise: Counter[str] = Counter()
        """What the workers have logged as errors."""
        self.gone: dict[tuple[str, int], Gone] = {}
        """What was deleted of a partition of a stream."""
        self.lives: dict[str, Life] = {}
        self.held: set[str] = set()
        """Workers that a fault has in its hands, or keeps away."""
        self.arming = 0.4
        """How likely a worker that is started is to be killed or stopped at a named point."""
        self._stood_since: dict[int, float] = {}
        self._back: dict[str, float] = {}
        """When those who have ended are to be started again."""
        self.disk: Path | None = None
        self.clock: Path | None = None
        """Says how far the clock of the second host is off; None where clocks cannot be set apart here."""
        self.broker: KafkaBroker | None = None
        self.before_kafka: BeforeKafka | None = None

    @property
    def kafka(self) -> bool:
        return self.log == "kafka"

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        self.folder.chmod(0o755)
        room = self.folder
        if (disk := a_small_disk(self.folder / "disk", DISK_BYTES)) is not None:
            stack.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=False)
            room = self.disk = disk
        settings = {"max_wal_size": "160MB", "shared_buffers": "64MB", "log_min_messages": "fatal"}
        self.postgres = EmbeddedPostgres(room / "postgres", settings=settings)
        self.before_postgres = await stack.enter_async_context(BeforePostgres(lambda: self.postgres.port))
        servers = [self.postgres.start()]
        if self.kafka:
            broker_port = 0
            self.before_kafka = BeforeKafka(lambda: broker_port)
            await stack.enter_async_context(self.before_kafka)
            self.broker = KafkaBroker(self.folder / "kafka", advertised=self.before_kafka.port)
            broker_port = self.broker.port
            stack.push_async_callback(self.broker.kill)
            servers.append(start_broker(self.broker))
        stack.push_async_callback(self.postgres.stop, immediate=True)
        await asyncio.gather(*servers)
        self.mails = await stack.enter_async_context(MailServer(self.ledger, self.dice.randint(0, 1 << 30)))
        self.receiver = await stack.enter_async_context(Receiver(self.ledger, self.dice.randint(0, 1 << 30)))
        launcher: Launcher = stack.enter_context(Preloaded())
        if (library := faketime()) is not None:
            self.clock = self.folder / "clock"
            self.set_clock(0.0)
            there = {**os.environ, "LD_PRELOAD": str(library), **self._elsewhere()}
            launcher = TwoHosts(launcher, stack.enter_context(Preloaded(there)))
        parts = urlsplit(self.postgres.url)
        through = parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{self.before_postgres.port}"))
        environment = {
            "DATABASE_URL": urlunsplit(through),
            "RAPPORT_PARTITIONS": str(PARTITIONS),
            "RAPPORT_HEARTBEAT_SECONDS": "0.5",
            "RAPPORT_EXPIRY_SECONDS": str(EXPIRY_SECONDS),
            "RAPPORT_CLOCK_SPEED": "60",
            "RAPPORT_MAILER_SMTP_URL": self.mails.url,
            "RAPPORT_MAILER_RETRY_SECONDS": "30",
            "RAPPORT_MAILER_WEBHOOK_SECRETS": SECRET,
            "RAPPORT_MAILER_WEBHOOK_PRIVATE": "true",
            "RAPPORT_MAILER_SMS_URL": f"{self.receiver.url}/sms",
            "RAPPORT_MAILER_PUSH_URL": f"{self.receiver.url}/push",
            "RAPPORT_FAULT_PROOF": str(self.folder / "reached"),
        }
        if self.broker is not None:
            environment["KAFKA_BOOTSTRAP_SERVERS"] = self.broker.bootstrap
        # One more of each than runs: it joins now and then.
        playbook = self._playbook()
        self.cluster = Cluster(self.folder, environment, playbook=playbook, workers=WORKERS + 1, launcher=launcher)
        await self.cluster.command("migrate")
        await self.cluster.command("playbook", "apply", str(playbook))
        for worker in self.cluster.workers.values():
            if worker.number <= WORKERS:
                self.launch(worker)
        await asyncio.gather(
            *(self._up(worker) for worker in self.cluster.workers.values() if worker.number <= WORKERS)
        )
        supervisor = asyncio.create_task(self._supervise())
        stack.push_async_callback(_ended, supervisor)
        self.shop = await stack.enter_async_context(
            Shop(
                self.ledger,
                lambda: [worker.address for worker in self.cluster.of("ingest")[:WORKERS]],
                WRITE_KEY,
                self.dice.randint(0, 1 << 30),
            )
        )
        self.people = await stack.enter_async_context(
            People(self.ledger, self.mails, self._doors, self.connect, self.dice.randint(0, 1 << 30))
        )

    def open(self) -> None:
        """From now on there are customers."""
        self.shop.open()
        self.people.open()

    def check(self) -> None:
        """Raises what somebody of the world outside has died of."""
        self.shop.check()
        self.people.check()

    def _playbook(self) -> Path:
        """The playbook, with the receiver of this run."""
        ours = shutil.copytree(PLAYBOOK, self.folder / "playbook")
        for journey in (ours / "journeys").iterdir():
            journey.write_text(journey.read_text().replace(_RECEIVER, self.receiver.url))
        return ours

    def _doors(self) -> list[tuple[str, int]]:
        """The mailers that may be asked, and the numbers of their processes."""
        living = (self.lives.get(worker.name) for worker in self.cluster.of("mailer")[:WORKERS])
        return [(life.worker.address, life.pid) for life in living if life is not None and life.worker.alive]

    # The processes

    async def _up(self, worker: Worker) -> None:
        """One that ends at its start, since a busy machine's broker answers late, is started again."""
        for _ in range(5):
            try:
                return await self.cluster.ready(worker)
            except RapportError:
                if worker.alive:
                    raise
                self.launch(worker)
        await self.cluster.ready(worker)

    def launch(self, worker: Worker, *, armed: str = "") -> None:
        log_from = worker.log.stat().st_size if worker.log.exists() else 0
        self._back.pop(worker.name, None)
        where = self._elsewhere() if worker.number == WORKERS else {}
        self.cluster.launch(worker, **where, **({"RAPPORT_FAULT": armed} if armed else {}))
        assert worker.process is not None
        now = time.time()
        self.lives[worker.name] = Life(worker, worker.process.pid, now, now, log_from, armed)

    def _elsewhere(self) -> dict[str, str]:
        """The environment of a process on the second host."""
        if self.clock is None:
            return {}
        return {
            "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set_clock(self, seconds: float) -> None:
        """How far the second host's clock is ahead from now on; the processes there know within a second."""
        assert self.clock is not None
        fresh = self.clock.with_suffix(".new")
        fresh.write_text(f"{seconds:+.3f}")
        fresh.replace(self.clock)

    def tell(self, worker: Worker, what: str, number: signal.Signals) -> None:
        """Send a signal to a worker, and write down that it was sent."""
        life = self.lives[worker.name]
        if worker.alive:
            life.told.append(what)
            if number in (signal.SIGKILL, signal.SIGSTOP):
                self.hurt(worker, what)
            if number == signal.SIGKILL:
                self.ledger.losses.ended.setdefault(life.pid, time.time())
            if number == signal.SIGSTOP:
                self._stood_since[life.pid] = time.time()
            elif number == signal.SIGCONT and (since := self._stood_since.pop(life.pid, None)) is not None:
                self.ledger.losses.stops.append((life.pid, since, time.time()))
            worker.send(number)

    def hurt(self, worker: Worker, why: str) -> None:
        """From now on it may leave mails unknown."""
        self.ledger.hurt.setdefault(self.lives[worker.name].pid, why)

    def free_workers(self, *services: str) -> list[Worker]:
        """Those that live, and that no fault has in its hands."""
        return [
            worker
            for worker in self.cluster.workers.values()
            if worker.alive and worker.name not in self.held and (not services or worker.service in services)
        ]

    @contextlib.contextmanager
    def in_hands(self, worker: Worker) -> Iterator[None]:
        self.held.add(worker.name)
        try:
            yield
        finally:
            self.held.discard(worker.name)

    @contextlib.contextmanager
    def on_servers(self, why: str) -> Iterator[None]:
        """Whoever lives now may lose partitions for it, and with them mails that are in hand."""
        for life in self.lives.values():
            if life.worker.alive:
                life.told.append(why)
                self.ledger.hurt.setdefault(life.pid, why)
        yield

    @contextlib.contextmanager
    def hindered(self) -> Iterator[None]:
        """Meanwhile, and a little longer, clicks may wait to be told of."""
        begun = time.time()
        try:
            yield
        finally:
            self.ledger.losses.troubles.append((begun, time.time() + _RECOVERED_WITHIN))

    async def _supervise(self) -> None:
        """What Kubernetes does: whoever has ended is started again, after a moment."""
        back = self._back
        while True:
            for name, life in list(self.lives.items()):
                now = time.time()
                if life.worker.alive:
                    back.pop(name, None)
                    self._look_at(life)
                    life.seen_at = now
                    continue
                if name not in back:
                    self._read(life)
                    back[name] = time.time() + self.dice.uniform(0.0, 1.5)
                if name not in self.held and time.time() >= back[name]:
                    del back[name]
                    if life.worker.number > WORKERS:
                        del self.lives[name]  # a guest
                    else:
                        self.launch(life.worker, armed=self._point(life.worker.service))
            await asyncio.sleep(0.05)

    def points(self, service: str) -> list[str]:
        """The named points that a worker of this service comes by here."""
        points = [f"{service}.{one}" for one in POINTS[service] if self.kafka or one not in KAFKA_POINTS]
        return [*points, *HAND_OVER_POINTS] if service == "mailer" else points

    def _point(self, service: str) -> str:
        if self.dice.random() >= self.arming:
            return ""
        points = self.points(service)
        how = "stop@" if self.dice.random() < 0.25 else ""
        return f"{how}{self.dice.choice(points)}:{self.dice.choice([1, 2, 3, 5, 8, 20, 50])}"

    def _look_at(self, life: Life) -> None:
        """A process that stands still at its point goes on after a while; also one that was asked to end, and came by
        its point on the way out."""
        stopped_by_a_fault = life.told.count("stopped") > life.told.count("continued")
        if not life.armed.startswith("stop@") or life.counted or stopped_by_a_fault:
            return
        with contextlib.suppress(OSError):
            if Path(f"/proc/{life.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                life.counted = True
                self.faults[f"stopped at {_name(life.armed)}"] += 1
                life.told.append("stopped at its point")
                self.hurt(life.worker, "stopped at its point")
                self._stood_since.setdefault(life.pid, life.seen_at)
                asyncio.get_running_loop().call_later(
                    self.dice.choice([0.5, EXPIRY_SECONDS + 2]), self.tell, life.worker, "continued", signal.SIGCONT
                )

    def _read(self, life: Life) -> None:
        """How a process ended, and what it said."""
        assert life.worker.process is not None
        code = life.worker.process.poll()
        said = life.worker.log.read_bytes()[life.log_from :].decode(errors="replace")
        self._listen(life, said)
        if code == -signal.SIGKILL and "killed" not in life.told and life.armed and not life.armed.startswith("stop@"):
            self.faults[f"killed at {_name(life.armed)}"] += 1
            self.hurt(life.worker, "killed at its point")
            self.ledger.losses.ended.setdefault(life.pid, life.seen_at)
            return
        young = time.time() - life.begun < 60
        expected = (
            (code == -signal.SIGKILL and "killed" in life.told)
            or (code == 0 and "asked to end" in life.told)
            or (code == -signal.SIGTERM and "asked to end" in life.told and '"started"' not in said)
            # At its start a process may find a server away, and says so.
            or (code == 1 and young and '"started"' not in said and "Traceback" not in said)
        )
        if code == 1 and expected:
            self.noise[f"{life.worker.service} ended at its start: {said.strip().splitlines()[-1][:100]}"] += 1
        if not expected:
            self.wrong.append(f"{life.worker.name} ended with {code} after {life.told}: {said[-1500:]}")

    def _listen(self, life: Life, said: str) -> None:
        for line in said.splitlines():
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if told.get("event") in ("partition lost", "heartbeat waits"):
                    self.ledger.hurt.setdefault(life.pid, told["event"])
                if told.get("event") in ("click or open lost", "clicks or opens lost"):
                    self.ledger.losses.said.add(life.pid)
                if told.get("level") == "error" and "outside the log's range" not in told.get("reason", ""):
                    what = str(told.get("reason") or told.get("exception") or told.get("error") or "")[-300:]
                    self.noise[f"{told.get('service')}: {told['event']}: {what}"] += 1

    async def dies_at(self, worker: Worker, point: str) -> None:
        """A worker is started anew, to be killed at a named point, and is."""
        with self.in_hands(worker):
            self.tell(worker, "killed", signal.SIGKILL)
            await self._seen(worker)
            self.launch(worker, armed=point)
            await asyncio.wait_for(worker.ended(), ENDED_WITHIN)
            await self._seen(worker)

    async def comes_true(self, question: Callable[[], Awaitable[bool]], seconds: float = 180.0) -> bool:
        deadline = time.monotonic() + seconds
        while not await question():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.2)
        return True

    async def stands_still(self, service: str, partition: int) -> bool:
        """Whether a worker says so where an operator looks."""
        return any(f"{service}[{partition}] stands still" in told for told in await self._readiness(service))

    async def goes_on(self, service: str) -> bool:
        told = await self._readiness(service)
        return bool(told) and not any("stands still" in one for one in told)

    async def _readiness(self, service: str) -> list[str]:
        """What the workers of a service answer to /readyz."""
        found = []
        async with httpx.AsyncClient(timeout=2) as client:
            for worker in self.cluster.of(service):
                if worker.alive and worker.name not in self.held:
                    with contextlib.suppress(httpx.TransportError):
                        found.append((await client.get(f"{worker.address}/readyz")).text)
        return found

    async def _seen(self, worker: Worker) -> None:
        """Until its end has been looked at."""
        while worker.name not in self._back:
            await asyncio.sleep(0.02)

    # The end of it

    async def connect(self) -> asyncpg.Connection:
        """Past the proxy."""
        return await asyncpg.connect(self.postgres.url)

    async def settle(self, say: Callable[[str], None]) -> list[str]:
        """No more faults, nobody in the shop: returns what is still under way when the time is over, if anything."""
        arming, self.arming = self.arming, 0.0
        self.mails.rude = self.receiver.rude = ()
        await self.shop.close()
        deadline = time.monotonic() + SETTLED_WITHIN
        said = time.monotonic()
        left = ["nothing was looked at"]
        reached: Mapping[int, datetime] | None = None
        connection = await self.connect()
        try:
            while left and time.monotonic() < deadline:
                await asyncio.sleep(1)
                # What is between two services shows in no table. So when all seems over, what was said until then has
                # to arrive, and all must be over still.
                if reached is not None:
                    left = await tables.behind(connection, reached)
                if reached is None or not left:
                    left = await tables.unfinished(connection, self.ledger)
                    over, reached = reached is not None, None
                    if not left and not over:
                        await self.people.close()
                        reached = await tables.reached(connection)
                        left = ["what may be on the way"]
                if time.monotonic() - said > 15:
                    said = time.monotonic()
                    say(f"still under way: {'; '.join(left)}")
        finally:
            await connection.close()
        for life in self.lives.values():
            if life.worker.alive:
                self._listen(life, life.worker.log.read_bytes()[life.log_from :].decode(errors="replace"))
        self.arming = arming
        return left

    async def stop_workers(self, connection: asyncpg.Connection) -> None:
        """In order, along the road. Each must end well, and leave nothing unpublished and no partition held; where a
        server did not answer it meanwhile, a successor must."""
        for service in SERVICES:
            going = [life.worker for life in self.lives.values() if life.worker.service == service]
            left, hindered = await self._asked_to_end(connection, going)
            for _ in range(_SUCCESSORS):
                if not left or not hindered:
                    break
                self.launch(going[0])
                await self._up(going[0])
                left, hindered = await self._asked_to_end(connection, going[:1])
            if left:
                self.wrong.append(f"{service} ended in order and left {left}")

    async def _asked_to_end(self, connection: asyncpg.Connection, going: Sequence[Worker]) -> tuple[str, bool]:
        """What the workers of a service have left, if anything; and whether one said that it waited for a server."""
        said_before = {worker.name: worker.log.stat().st_size for worker in going}
        for worker in going:
            self.held.add(worker.name)
            self.tell(worker, "asked to end", signal.SIGTERM)
        await asyncio.gather(*(asyncio.wait_for(self._seen(worker), ENDED_WITHIN) for worker in going))
        service = going[0].service
        unpublished = await connection.fetchval("SELECT count(*) FROM processing.outbox WHERE service = $1", service)
        held = await connection.fetchval(
            "SELECT count(*) FROM processing.partitions WHERE service = $1 AND owner IS NOT NULL", service
        )
        last_words = b"".join(worker.log.read_bytes()[said_before[worker.name] :] for worker in going)
        # It says so when it begins to wait, and when that is over, be it by its own end.
        waited = any(f'"{service} {how}"'.encode() in last_words for how in ("waits", "still waits", "goes on"))
        return f"{unpublished} unpublished, {held} held" if unpublished or held else "", waited


@contextlib.asynccontextmanager
async def a_world(folder: Path, log: str, seed: int) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        world = World(folder, log, seed)
        await world.start(stack)
        yield world


def a_small_disk(folder: Path, size: int) -> Path | None:
    """A file system of its own, in memory; None where this machine lets nobody mount one."""
    if os.geteuid() != 0:
        return None
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(folder)]
    return folder if subprocess.run(command, capture_output=True).returncode == 0 else None


class TwoHosts:
    """Starts a process where its environment says that it belongs."""

    def __init__(self, one: Launcher, other: Launcher) -> None:
        self._one, self._other = one, other

    def launch(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Running:
        host = self._other if "FAKETIME_TIMESTAMP_FILE" in environment else self._one
        return host.launch(arguments, environment, log)


def faketime() -> Path | None:
    """Debian's libfaketime, where it is installed."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


def _name(armed: str) -> str:
    return armed.rpartition("@")[2].partition(":")[0]


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def start_broker(broker: KafkaBroker) -> None:
    """A broker that a busy machine has kept from registering in time is killed, and started once more."""
    for _ in range(4):
        try:
            return await broker.start()
        except RapportError:
            continue
    await broker.start()
