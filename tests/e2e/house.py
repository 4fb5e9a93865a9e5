"""Rapport as users start it: processes, HTTP in, real SMTP out; to be killed, stopped and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from patience import PATIENCE, until

from shared.language import SHIPPED

WRITE_KEY = "e2e-write-key"
HOUR_A_SECOND = 3600.0
MINUTE_A_SECOND = 60.0
READER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"}
"""A person's browser: what programs follow in a mail is no click."""
SERVICES = ("ingest", "segmenter", "journeys", "mailer")


class MailServer:
    """A real SMTP server that keeps what it accepts. It can be told to keep its answers back for a while."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.unanswered = 0
        """How many mails have been read to their final dot and have no answer yet."""
        self._answers = asyncio.Event()
        self._answers.set()
        self._controller = Controller(self, hostname="127.0.0.1", port=free_port())

    def hold_answers(self) -> None:
        self._controller.loop.call_soon_threadsafe(self._answers.clear)

    def answer(self) -> None:
        self._controller.loop.call_soon_threadsafe(self._answers.set)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        self.unanswered += 1
        await self._answers.wait()
        self.unanswered -= 1
        mail = message_from_bytes(envelope.content, policy=default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 2.0.0 taken"

    def to(self, address: str) -> list[EmailMessage]:
        return [mail for mail in self.mails if mail["To"].addresses[0].addr_spec == address]

    @property
    def url(self) -> str:
        assert self._controller.server is not None
        return f"smtp://127.0.0.1:{self._controller.server.sockets[0].getsockname()[1]}?tls=none"

    def __enter__(self) -> MailServer:
        self._controller.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._controller.stop()


class Said(NamedTuple):
    """What a command that has ended said."""

    code: int
    output: str


async def rapport(*arguments: str | Path, **environment: str) -> Said:
    """Run one of our commands to its end."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services", *map(str, arguments)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "COLUMNS": "200", **environment},
    )
    try:
        output, _ = await asyncio.wait_for(running.communicate(), 240)
    except BaseException:
        running.kill()
        await running.wait()
        raise
    assert running.returncode is not None
    return Said(running.returncode, output.decode())


@dataclass
class Process:
    """A command of ours that stays, with its output in a file."""

    arguments: Sequence[str]
    folder: Path
    name: str = "rapport"
    environment: Mapping[str, str] = field(default_factory=dict)
    running: asyncio.subprocess.Process | None = None

    @property
    def output(self) -> str:
        return (self.folder / f"{self.name}.log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self.running is not None
        return self.running.pid

    @property
    def alive(self) -> bool:
        return self.running is not None and self.running.returncode is None

    async def start(self, **environment: str) -> None:
        with open(self.folder / f"{self.name}.log", "ab") as log:
            self.running = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services", *self.arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "RAPPORT_LOG_FORMAT": "json", **self.environment, **environment},
            )

    async def ended(self, seconds: float = PATIENCE) -> int:
        """Its exit code once it has ended by itself."""
        assert self.running is not None
        return await asyncio.wait_for(self.running.wait(), seconds)

    async def kill(self) -> None:
        if self.alive:
            assert self.running is not None
            self.running.kill()
            await self.running.wait()

    async def stop(self) -> int:
        """In order."""
        assert self.running is not None
        if self.alive:
            self.running.terminate()
        return await self.ended()


class House:
    """`rapport up` with a data folder of its own, a mail server, and a client that posts as a shop does."""

    def __init__(self, folder: Path, mails: MailServer, playbook: Path, *options: str, speed: float = 1.0) -> None:
        self.folder = folder
        self.mails = mails
        self.playbook = playbook
        self.data = folder / "data"
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        arguments = [
            *("up", "--data", str(self.data), "--port", str(self.port), "--playbook", str(playbook)),
            *("--write-key", WRITE_KEY, *(options or ("--smtp", mails.url))),
        ]
        environment = {"RAPPORT_CLOCK_SPEED": str(speed)}
        self.process = Process(arguments, folder, environment=environment)
        self.http = httpx.AsyncClient(base_url=self.address, timeout=PATIENCE)
        self._number = 0

    async def start(self, **environment: str) -> float:
        """Returns how many seconds it took until everything was ready."""
        began = time.monotonic()
        await self.process.start(**environment)
        await self.ready()
        return time.monotonic() - began

    async def ready(self) -> None:
        async def answers() -> bool:
            assert self.process.alive, f"it ended: {self.process.output[-3000:]}"
            with contextlib.suppress(httpx.TransportError):
                for prefix in ("", "/segmenter", "/journeys", "/mailer"):
                    if (await self.http.get(f"{prefix}/readyz")).status_code != 200:
                        return False
                return True
            return False

        await until(answers, what="readiness")

    async def close(self) -> None:
        """As a crash would, and PostgreSQL goes with it. What was said is shown where the test failed."""
        server = self.postgres if self.process.alive else None
        await self.process.kill()
        await self.http.aclose()
        while server is not None and server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)
        if self.process.running is not None:
            sys.stdout.write(f"\n--- {self.process.name} said\n{self.process.output[-20_000:]}\n")

    @property
    def postgres(self) -> psutil.Process | None:
        """The PostgreSQL server of the running process."""
        with contextlib.suppress(FileNotFoundError, IndexError, ValueError, psutil.NoSuchProcess):
            pid = (self.data / "postgres" / "cluster" / "postmaster.pid").read_text().splitlines()[0]
            return psutil.Process(int(pid))
        return None

    async def post(self, *events: dict[str, Any]) -> list[str]:
        """Post a batch as a client library does, trying again until it is answered 200; returns the ids."""
        for event in events:
            self._number += 1
            event.setdefault("messageId", f"e2e-{self._number}")
        while True:
            with contextlib.suppress(httpx.TransportError):
                response = await self.http.post("/v1/batch", json={"batch": list(events)}, auth=(WRITE_KEY, ""))
                if response.status_code == 200:
                    assert response.json()["rejected"] == []
                    return [event["messageId"] for event in events]
                assert response.status_code == 503, response.text
            await asyncio.sleep(0.1)

    async def read(self, path: str) -> Any:
        """What a service tells about a customer; None where there is none."""
        headers = {"Authorization": f"Bearer {(self.data / 'read-key').read_text().strip()}"}

        async def answered() -> httpx.Response | None:
            response = await self.http.get(path, headers=headers)
            return response if response.status_code != 503 else None  # its database died under it, say

        response = await until(answered, what=f"an answer to {path}")
        assert response.status_code in (200, 404), response.text
        return response.json() if response.status_code == 200 else None

    async def customer(self, user: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = await self.read(f"/segmenter/v1/customers/{user}?limit=200")
        return found

    async def timeline(self, user: str, name: str | None = None, kind: str = "event") -> list[dict[str, Any]]:
        """What has happened with a customer, the newest first."""
        customer = await self.customer(user)
        rows: list[dict[str, Any]] = customer["timeline"]["rows"] if customer else []
        return [row for row in rows if row["kind"] == kind and (name is None or row.get("name") == name)]

    async def enrollments(self, user: str, journey: str) -> list[dict[str, Any]]:
        told = await self.read(f"/journeys/v1/customers/{user}/enrollments")
        return [one for one in told["enrollments"] if one["journey"] == journey]

    def mails_of(self, user: str) -> list[str]:
        """The names of the messages that have arrived at a customer, in order."""
        return [message_of(mail) for mail in self.mails.to(f"{user}@example.com")]

    async def mailed(self, user: str, count: int = 1) -> list[EmailMessage]:
        """The mails of a customer once there are so many."""

        async def arrived() -> bool:
            return len(self.mails_of(user)) >= count

        await until(arrived, what=f"{count} mails to {user}")
        return self.mails.to(f"{user}@example.com")

    async def happened(self, user: str, name: str) -> dict[str, Any]:
        """The last event of this name in the customer's timeline, once there is one."""

        async def told() -> list[dict[str, Any]]:
            return await self.timeline(user, name)

        return (await until(told, what=f"{name!r} of {user}"))[0]  # type: ignore[no-any-return]


@contextlib.asynccontextmanager
async def a_house(*options: str, speed: float = 1.0, quiet_hours: bool = False) -> AsyncIterator[House]:
    """A house that is not started yet, with the shipped playbook. `options` take the place of `--smtp`."""
    with a_folder() as folder, MailServer() as mails:
        playbook = shipped_playbook(folder, quiet_hours=quiet_hours)
        house = House(folder, mails, playbook, *options, speed=speed)
        try:
            yield house
        finally:
            await house.close()


@contextlib.contextmanager
def a_folder() -> Iterator[Path]:
    """Where the account that PostgreSQL runs as under root may enter."""
    with tempfile.TemporaryDirectory(prefix="rapport-e2e-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


_HOUSE_RULES = re.compile(r"^(?:quiet_hours|caps):.*\n(?:[ ].*\n)*", re.MULTILINE)


def shipped_playbook(folder: Path, *, quiet_hours: bool = False) -> Path:
    """A copy of the shipped playbook; without quiet hours and caps unless they are asked for."""
    copy = folder / "playbook"
    shutil.copytree(SHIPPED, copy)
    if not quiet_hours:
        rules, count = _HOUSE_RULES.subn("", (copy / "rapport.yaml").read_text())
        assert count == 2
        (copy / "rapport.yaml").write_text(rules)
    return copy


def identify(user: str, **traits: Any) -> dict[str, Any]:
    """A customer who says yes to everything."""
    consent = {"cart-reminders": True, "birthday": True, "thank-you": True}
    given = {"email": f"{user}@example.com", "first_name": user.title(), "consent": consent, "timezone": "UTC"}
    return {"type": "identify", "userId": user, "traits": {**given, **traits}}


def track(user: str, event: str, **properties: Any) -> dict[str, Any]:
    return {"type": "track", "userId": user, "event": event, "properties": properties}


def added(user: str, cart: str, name: str = "Lamp", price: float = 50.0) -> dict[str, Any]:
    product = {"product_id": name.lower(), "name": name, "price": price, "quantity": 1, "currency": "EUR"}
    return track(user, "Product Added", cart_id=cart, **product)


def ordered(user: str, order: str, cart: str | None = None) -> dict[str, Any]:
    properties = {"order_id": order, "total": 50.0, "currency": "EUR", "products": [{"name": "Lamp", "price": 50.0}]}
    return track(user, "Order Completed", **properties, **({"cart_id": cart} if cart else {}))


def first_order(user: str) -> list[dict[str, Any]]:
    """A customer and an order: one mail is due two hours later, and no other."""
    return [identify(user), ordered(user, f"order-{user}")]


def message_of(mail: EmailMessage) -> str:
    """Which message of the playbook a mail is."""
    return str(mail["Feedback-ID"]).split(":")[0]


def text_of(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def links(mail: EmailMessage) -> list[str]:
    return re.findall(r"https?://\S+", text_of(mail))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
