"""Rapport as users start it: processes, HTTP in, real SMTP out; to be killed, stopped and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import httpx
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

WRITE_KEY = "e2e-write-key"
HOUR_A_SECOND = 3600.0


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 60.0, what: str = "the condition") -> Any:
    """Wait for a condition, not for time."""
    deadline = time.monotonic() + seconds
    while True:
        found = await condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        await asyncio.sleep(0.05)


class MailServer:
    """A real SMTP server that keeps what it accepts, and tells apart what it was asked to deliver."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self._controller = Controller(self, hostname="127.0.0.1", port=free_port())

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
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


@dataclass
class Process:
    """A command of ours, with its output in a file."""

    arguments: list[str]
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

    async def start(self, **environment: str) -> None:
        with open(self.folder / f"{self.name}.log", "ab") as log:
            self.running = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services",
                *self.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "RAPPORT_LOG_FORMAT": "json", **self.environment, **environment},
            )

    def signal(self, number: signal.Signals) -> None:
        assert self.running is not None
        self.running.send_signal(number)

    async def ended(self, seconds: float = 60.0) -> int:
        """Its exit code once it has ended by itself."""
        assert self.running is not None
        return await asyncio.wait_for(self.running.wait(), seconds)

    async def kill(self) -> None:
        if self.running is not None and self.running.returncode is None:
            self.running.kill()
            await self.running.wait()

    async def stop(self) -> int:
        """In order."""
        assert self.running is not None
        if self.running.returncode is None:
            self.running.terminate()
        return await self.ended(40)


class House:
    """`rapport up` with a data folder of its own, a mail server, and a client that posts as a shop does."""

    def __init__(self, folder: Path, mails: MailServer, playbook: Path, *, speed: float = 1.0) -> None:
        self.folder = folder
        self.mails = mails
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.proof = folder / "reached"
        arguments = [
            *("up", "--data", str(folder / "data"), "--port", str(self.port), "--playbook", str(playbook)),
            *("--smtp", mails.url, "--write-key", WRITE_KEY),
        ]
        environment = {"RAPPORT_CLOCK_SPEED": str(speed), "RAPPORT_FAULT_PROOF": str(self.proof)}
        self.process = Process(arguments, folder, environment=environment)
        self.http = httpx.AsyncClient(base_url=self.address, timeout=15)
        self._number = 0

    async def start(self, **environment: str) -> None:
        await self.process.start(**environment)
        await self.ready()

    async def ready(self) -> None:
        async def answers() -> bool:
            assert self.process.running is not None
            if self.process.running.returncode is not None:
                raise AssertionError(f"it ended: {self.process.output[-3000:]}")
            with contextlib.suppress(httpx.TransportError):
                for prefix in ("", "/segmenter", "/journeys", "/mailer"):
                    if (await self.http.get(f"{prefix}/readyz")).status_code != 200:
                        return False
                return True
            return False

        await until(answers, what="readiness")

    async def close(self) -> None:
        await self.process.kill()
        await self.http.aclose()

    @property
    def read_key(self) -> str:
        return (self.folder / "data" / "read-key").read_text().strip()

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

    async def customer(self, key: str) -> dict[str, Any] | None:
        response = await self.http.get(
            f"/segmenter/v1/customers/{key}", headers={"Authorization": f"Bearer {self.read_key}"}
        )
        return response.json() if response.status_code == 200 else None  # type: ignore[no-any-return]


def identify(user: str, **traits: Any) -> dict[str, Any]:
    """A customer who says yes to everything."""
    consent = {"cart-reminders": True, "birthday": True, "thank-you": True}
    given = {"email": f"{user}@example.com", "first_name": user.title(), "consent": consent, "timezone": "UTC"}
    return {"type": "identify", "userId": user, "traits": {**given, **traits}}


def track(user: str, event: str, **properties: Any) -> dict[str, Any]:
    return {"type": "track", "userId": user, "event": event, "properties": properties}


def added(user: str, cart: str, price: float = 50.0) -> dict[str, Any]:
    return track(user, "Product Added", cart_id=cart, product_id="lamp", name="Lamp", price=price, quantity=1)


def ordered(user: str, order: str, cart: str | None = None) -> dict[str, Any]:
    properties = {"order_id": order, "total": 50.0, "currency": "EUR", "products": [{"name": "Lamp", "price": 50.0}]}
    return track(user, "Order Completed", **properties, **({"cart_id": cart} if cart else {}))


def links(mail: EmailMessage) -> list[str]:
    body = mail.get_body(("plain",))
    assert body is not None
    return re.findall(r"https?://\S+", body.get_content())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


NewHouse = Callable[..., Awaitable[House]]
