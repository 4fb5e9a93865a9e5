"""How the mailer is put together: the same alone and embedded."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI

from services.mailer.api import create
from services.mailer.composing import Composer
from services.mailer.doors import Doors
from services.mailer.inbox import InboxTransport
from services.mailer.links import Links
from services.mailer.relay import Relay
from services.mailer.sending import Sending
from services.mailer.settings import INBOX, MailerSettings
from services.mailer.signing import derived, secret_of
from services.mailer.smtp import SmtpTransport
from services.mailer.store import Channel
from services.mailer.transport import Transport
from services.mailer.webhooks import GatewayTransport, WebhookTransport
from services.mailer.worker import MailerProcessor
from shared.database.revisions import Migrations
from shared.errors import RapportError
from shared.processing.playbooks import PlaybookShelf
from shared.processing.worker import Worker
from shared.runtime import Runtime

MIGRATIONS = Migrations("mailer", Path(__file__).parent / "migrations")


class Mailer:
    """The built service."""

    name = "mailer"

    def __init__(self, runtime: Runtime, settings: MailerSettings, transport: Transport | None) -> None:
        if runtime.database is None or runtime.installation is None:
            raise RapportError("mailer needs a database. Set DATABASE_URL.")
        links = Links(runtime.installation.secret, settings.mailer_public_url)
        shelf = PlaybookShelf()
        self._transport = transport or _transport(runtime, settings)
        retry_base = timedelta(seconds=settings.mailer_retry_seconds)
        keys = webhook_keys(settings, runtime.installation.secret)
        self._webhooks = WebhookTransport(
            keys,
            settings.mailer_webhook_connections,
            to_private=settings.mailer_webhook_private,
        )
        compose = Composer(links)
        self._sending = Sending(self._transport, compose, shelf, runtime.clock, retry_base)
        self._calling = Sending(self._webhooks, compose, shelf, runtime.clock, retry_base, "webhook")
        gateways: dict[Channel, str] = {"sms": settings.mailer_sms_url, "push": settings.mailer_push_url}
        self._gateways: list[GatewayTransport] = []
        self._handing_over: list[Sending] = []
        for channel, url in gateways.items():
            gateway = GatewayTransport(url, keys, settings.mailer_webhook_connections)
            sending = Sending(gateway, compose, shelf, runtime.clock, retry_base, channel, there=bool(url))
            self._gateways.append(gateway)
            self._handing_over.append(sending)
        processor = MailerProcessor(self._sending, shelf, self._calling, *self._handing_over)
        self._worker = Worker(runtime, processor, settings)
        self._doors = Doors(runtime.log, runtime.database, runtime.clock, links, shelf)
        inbox = settings.mailer_smtp_url == INBOX
        self.app: FastAPI = create(
            self._doors,
            runtime.database,
            shelf,
            self.ready,
            inbox=inbox,
            partitions=runtime.log.partitions,
            read_keys=settings.read_keys,
        )

    async def start(self) -> None:
        await self._transport.start()
        await self._webhooks.start()
        for gateway in self._gateways:
            await gateway.start()
        await self._worker.start()

    async def stop(self) -> None:
        await self._worker.stop()
        for sending in (self._sending, self._calling, *self._handing_over):
            await sending.finish()
        await self._doors.stop()
        await self._transport.close()
        await self._webhooks.close()
        for gateway in self._gateways:
            await gateway.close()

    async def ready(self) -> list[str]:
        """A mail server or a log that is away is not among it, nor is a partition that stands still: mails wait, and
        links are answered all the same."""
        return self._worker.away()


def build(runtime: Runtime, settings: MailerSettings, transport: Transport | None = None) -> Mailer:
    """`transport` is where mail goes; without it, what the settings' URL says."""
    return Mailer(runtime, settings, transport)


def webhook_keys(settings: MailerSettings, installation: bytes) -> list[bytes]:
    """What webhooks are signed with."""
    given = [secret_of(secret) for secret in settings.mailer_webhook_secrets.split()]
    return given or [derived(installation)]


def _transport(runtime: Runtime, settings: MailerSettings) -> Transport:
    if settings.mailer_smtp_url == INBOX:
        assert runtime.database is not None
        return InboxTransport(runtime.database, runtime.clock)
    return SmtpTransport(Relay.of(settings.mailer_smtp_url), connections=settings.mailer_connections)
