"""The mailer's settings, from the environment."""

from __future__ import annotations

from pydantic import Field, field_validator

from services.mailer.relay import Relay
from shared.errors import RapportError
from shared.settings import Settings

INBOX = "inbox://"


class MailerSettings(Settings):
    mailer_smtp_url: str = INBOX
    """`smtp://user:password@host:587?tls=starttls`, `smtps://user:password@host:465`, or `inbox://`, which sends
    nothing and keeps the mails to be read on a page."""
    mailer_public_url: str = "http://127.0.0.1:8080/mailer"
    """Where the links of mails lead: the mailer as the world reaches it, with its prefix."""
    mailer_connections: int = Field(16, ge=1, le=200)
    """How many mails are handed over at one time."""
    mailer_retry_seconds: float = Field(60, gt=0, le=3600)
    """The shortest time between two attempts at a mail that the server deferred; doubles with each, up to 64 fold."""

    @field_validator("mailer_smtp_url")
    @classmethod
    def _names_a_server(cls, url: str) -> str:
        if url != INBOX:
            try:
                Relay.of(url)
            except RapportError as error:
                raise ValueError(str(error)) from None
        return url
