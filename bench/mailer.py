"""How many mails a second go from a request on the road to a recorded outcome, into postfix's `smtp-sink`.

The whole: two worker processes (`rapport serve mailer`) that share the twelve partitions, PostgreSQL from the wheel
with the streams in it, one sink; a cap to look up and consent to read for each mail. It is done when the last outcome
stands on the stream of events. Beside it the limits: making the mails alone, and handing over mails that are made
already beside postfix's own `smtp-source`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import uvloop

from bench import letters
from bench.measure import Series
from services.mailer import mime
from services.mailer.relay import Relay
from services.mailer.smtp import SmtpTransport
from services.mailer.transport import DATA_WITHIN, Accepted, Mail
from services.serving import MIGRATIONS
from shared.contracts import streams
from shared.contracts.customers import Activation
from shared.contracts.streams import DEFAULT_PARTITIONS, partition_of
from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database
from shared.database.migrations import migrate
from shared.errors import RapportError
from shared.log import postgres
from shared.log.port import Entry
from shared.processing import playbooks
from shared.processing.installation import open_installation

CONNECTIONS = 16
"""Of each process to the sink, of `smtp-source`, and of the rival's pool."""

_MAILS = 15_000
_MADE = 10_000
_HANDED = 20_000
_WORKERS = 2
_LOOK_SECONDS = 0.05
"""A look at the log costs processor time that is the mailer's otherwise."""


@contextlib.contextmanager
def sink() -> Iterator[int]:
    """A server that takes every mail, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen([_of_postfix("smtp-sink"), *user, f"127.0.0.1:{port}", "128"])
    try:
        _wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def source(port: int, mails: int, size: int) -> float:
    """Mails a second that postfix's own generator brings to the sink, on connections that it keeps."""
    command = [_of_postfix("smtp-source"), "-d", "-s", str(CONNECTIONS), "-l", str(size), "-m", str(mails)]
    started = time.perf_counter()
    subprocess.run([*command, f"127.0.0.1:{port}"], check=True)
    return mails / (time.perf_counter() - started)


def _of_postfix(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise RapportError(
            f"{name} is not installed. It comes with postfix, which need not run: "
            f"apt-get install --no-install-recommends postfix"
        )
    return found


def _wait_for(port: int) -> None:
    until = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.recv(64)
            return
        if time.monotonic() > until:
            raise RapportError(f"nothing listens on port {port}. See what smtp-sink said.")
        time.sleep(0.02)


# The whole


def whole(folder: Path) -> float:
    with sink() as port:
        return asyncio.run(_whole(folder / "postgres", port, _MAILS))


async def _whole(folder: Path, port: int, mails: int) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    async with EmbeddedPostgres(folder) as server:
        database = Database(server.url)
        await migrate(database, MIGRATIONS)
        log = postgres.PostgresLog(database, DEFAULT_PARTITIONS)
        await log.start()
        book = letters.playbook()
        async with database.connect() as connection:
            installation = await open_installation(connection, DEFAULT_PARTITIONS, 1.0)
            await log.set_installation(str(installation.id))
            await playbooks.activate(log, connection, book, datetime.now(UTC))
        value = msgspec.json.encode(Activation(as_of=datetime.now(UTC), playbook=book.hash))
        for partition in range(DEFAULT_PARTITIONS):
            await log.append(streams.MESSAGES, partition, [Entry("", value)])
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(_workers(server.url, port))
            stack.push_async_callback(database.close)
            stack.push_async_callback(log.close)
            await _shared_out(database)
            found = await _rate(log, mails)
    return found


@contextlib.contextmanager
def _workers(database_url: str, port: int) -> Iterator[None]:
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "RAPPORT_MAILER_SMTP_URL": f"smtp://127.0.0.1:{port}?tls=none",
        "RAPPORT_MAILER_CONNECTIONS": str(CONNECTIONS),
        "RAPPORT_LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "services", "serve", "mailer", "--host", "127.0.0.1", "--port", "0"]
    workers = [subprocess.Popen(command, env=environment) for _ in range(_WORKERS)]
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()


async def _shared_out(database: Database) -> None:
    """Until each worker owns its share, and the playbook is in force everywhere."""
    async with asyncio.timeout(120), database.connect() as connection:
        while True:
            rows = await connection.fetch(
                "SELECT owner, count(*) AS lanes FROM processing.partitions"
                " WHERE service = 'mailer' AND next_offset > 0 AND owner IS NOT NULL GROUP BY owner"
            )
            if sorted(row["lanes"] for row in rows) == [DEFAULT_PARTITIONS // _WORKERS] * _WORKERS:
                return
            await asyncio.sleep(0.05)


async def _rate(log: postgres.PostgresLog, mails: int) -> float:
    now = datetime.now(UTC)
    entries: dict[int, list[Entry]] = {partition: [] for partition in range(DEFAULT_PARTITIONS)}
    for number in range(mails):
        asked = letters.request(number, now)
        entries[partition_of(asked.customer, DEFAULT_PARTITIONS)].append(
            Entry(asked.customer, msgspec.json.encode(asked))
        )
    before = sum((await log.ends(streams.EVENTS)).values())
    started = time.perf_counter()
    await asyncio.gather(*(log.append(streams.MESSAGES, partition, some) for partition, some in entries.items()))
    async with asyncio.timeout(120):
        while sum((await log.ends(streams.EVENTS)).values()) < before + mails:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
    return mails / (time.perf_counter() - started)


# Its parts


def making(folder: Path) -> float:
    """Mails a second that one process makes: templates, links, MIME."""
    renderer, now = letters.renderer(), datetime.now(UTC)
    requests = [letters.request(number, now) for number in range(_MADE)]
    mime.compose(renderer, requests[0], now)
    started = time.perf_counter()
    for request in requests:
        mime.compose(renderer, request, now)
    return _MADE / (time.perf_counter() - started)


def making_on_both_cores(folder: Path) -> float:
    with ProcessPoolExecutor(_WORKERS) as pool:
        return sum(pool.map(making, [folder] * _WORKERS))


def handing_over(folder: Path) -> float:
    with sink() as port, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(hand_over(port, made(1_000), _HANDED))


def made(count: int) -> list[Mail]:
    renderer, now = letters.renderer(), datetime.now(UTC)
    return [mime.compose(renderer, letters.request(number, now), now) for number in range(count)]


async def hand_over(port: int, mails: list[Mail], count: int) -> float:
    """Mails a second of the mailer's own client: `mails`, over and over."""
    transport = SmtpTransport(Relay.of(f"smtp://127.0.0.1:{port}?tls=none"), connections=CONNECTIONS)
    numbers = iter(range(count))
    loop = asyncio.get_running_loop()

    async def one_after_the_other() -> None:
        for number in numbers:
            receipt = await transport.deliver(mails[number % len(mails)], loop.time() + DATA_WITHIN)
            assert isinstance(receipt, Accepted), receipt

    started = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(CONNECTIONS)))
    took = time.perf_counter() - started
    await transport.close()
    return count / took


def sourced(folder: Path) -> float:
    with sink() as port:
        return source(port, _HANDED, len(made(1)[0].data))


SERIES = (
    Series(
        "mailer, whole, two processes",
        "mails/s",
        whole,
        making_on_both_cores,
        "making the mails alone, in two processes",
        goal=2_500,
    ),
    Series("mailer, making the mails, one process", "mails/s", making),
    Series("mailer, SMTP client, one process", "mails/s", handing_over, sourced, "smtp-source"),
)
