"""The developer's Kafka broker: the real one, from its jars on Maven Central, without Docker.

`pom.xml` beside this file names the version. The jars are fetched once, into `.cache/kafka` of the project. The broker
listens on free loopback ports, keeps them over restarts, and dies with the process that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import re
import shutil
import signal
import socket
import subprocess
import sys
import xml.etree.ElementTree
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from shared.errors import RapportError

POM = Path(__file__).parent / "pom.xml"
CACHE = Path(__file__).parents[2] / ".cache" / "kafka"

_NAMESPACE = {"m": "http://maven.apache.org/POM/4.0.0"}
VERSION = xml.etree.ElementTree.parse(POM).findtext("m:properties/m:kafka.version", namespaces=_NAMESPACE)

_START_SECONDS = 60
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

# A broker that starts and stops often, and holds little.
_JAVA_OPTIONS = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{advertised},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={logs}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.index.size.max.bytes=1048576
# The controller forgets a broker that was killed sooner than in earnest, so that it can come back at once.
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
num.io.threads=4
num.network.threads=2
"""

_LOG4J = """\
<Configuration status="warn">
  <Appenders><Console name="out"><PatternLayout pattern="%d %p %c{1}: %m%n"/></Console></Appenders>
  <Loggers><Root level="INFO"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""


def lacking() -> str | None:
    """What keeps a real broker from running here, in a few words; None where nothing does."""
    if shutil.which("java") is None:
        return "no Java"
    if shutil.which("mvn") is None and not _jars().exists():
        return "no Maven"
    return None


def fetch_jars() -> Path:
    """The folder with the broker's jars; asks Maven for them once. Raises RapportError where it cannot."""
    folder = _jars()
    with _only_one(CACHE):
        if not folder.exists():
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            command = ["mvn", "-q", "-B", f"--file={POM}", "dependency:copy-dependencies"]
            done = subprocess.run(
                [*command, "-DincludeScope=runtime", f"-DoutputDirectory={partial}"], capture_output=True, text=True
            )
            if done.returncode:
                raise RapportError(f"Maven cannot fetch the Kafka broker: {(done.stdout + done.stderr)[-500:].strip()}")
            partial.rename(folder)
    return folder


class KafkaBroker:
    """One node that is broker and controller, with its data in `folder`.

    `async with KafkaBroker(folder) as broker:` starts it; `broker.bootstrap` is its address. `advertised` is the port
    that clients are sent to, where something stands between them and the broker.
    """

    def __init__(self, folder: Path, *, advertised: int | None = None) -> None:
        self.folder = folder
        self._advertised = advertised
        # Ports are part of what a formatted folder remembers.
        kept = re.search(r"^listeners=.*:(\d+),.*:(\d+)$", _text(self._properties), re.MULTILINE)
        self.port, self._controller = map(int, kept.groups()) if kept else free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._advertised or self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def __aenter__(self) -> KafkaBroker:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Returns when the broker takes requests. Its data, where there is any, is kept."""
        jars = await asyncio.to_thread(fetch_jars)
        if not self._properties.exists():
            await asyncio.to_thread(self._format, jars)
        begin = self._log.stat().st_size if self._log.exists() else 0
        self._process = self._launch(jars)
        try:
            async with asyncio.timeout(_START_SECONDS):
                while b"Kafka Server started" not in self._log.read_bytes()[begin:]:
                    if self._process.poll() is not None:
                        raise RapportError(f"the Kafka broker ended at its start: {self._log_tail()}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            await self.kill()
            raise RapportError(f"the Kafka broker does not start: {self._log_tail()}") from None
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """End it in order."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it as a power cut would (though what the kernel holds is not lost)."""
        await self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Make it silent: connections stay open and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)  # one that is paused would not hear
        try:
            await asyncio.to_thread(process.wait, 20)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _log(self) -> Path:
        return self.folder / "broker.log"

    def _java(self, jars: Path) -> list[str]:
        return ["java", *_JAVA_OPTIONS, f"-Dlog4j2.configurationFile={self.folder / 'log4j2.xml'}", "-cp", f"{jars}/*"]

    def _launch(self, jars: Path) -> subprocess.Popen[bytes]:
        with open(self._log, "ab") as log:
            return subprocess.Popen(
                [*self._java(jars), "kafka.Kafka", str(self._properties)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A process group of its own: Ctrl-C on a terminal stops the services first, then the broker.
                process_group=0,
                preexec_fn=die_with_parent,
            )

    def _format(self, jars: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "log4j2.xml").write_text(_LOG4J)
        draft = self.folder / "server.properties.draft"
        ports = {"port": self.port, "advertised": self._advertised or self.port, "controller": self._controller}
        draft.write_text(_PROPERTIES.format(**ports, logs=self.folder / "logs"))
        cluster = urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
        tool = [*self._java(jars), "kafka.tools.StorageTool", "format", "--standalone"]
        done = subprocess.run([*tool, f"--cluster-id={cluster}", f"--config={draft}"], capture_output=True, text=True)
        if done.returncode:
            raise RapportError(f"the Kafka broker's storage cannot be formatted: {(done.stdout + done.stderr)[-500:]}")
        draft.rename(self._properties)

    def _log_tail(self) -> str:
        return _text(self._log)[-800:].strip()


def _jars() -> Path:
    return CACHE / f"jars-{VERSION}"


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """One process at a time fetches; the others wait for what it fetched."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def die_with_parent() -> None:
    """For a child between fork and exec: the kernel is to end it when we end, however that happens."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
