"""The mailer's settings, from the environment."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from services.mailer.relay import Relay
from services.mailer.signing import secret_of
from shared.errors import RapportError
from shared.settings import Settings

INBOX = "inbox://"


class MailerSettings(Settings):
    """The mailer's own settings beside the common ones."""

    mailer_smtp_url: str = INBOX
    """`smtp://user:password@host:587?tls=starttls`, `smtps://user:password@host:465`, or `inbox://`, which sends
    nothing and keeps the mails to be read on a page."""
    mailer_public_url: str = "http://127.0.0.1:8080/mailer"
    """Where the links of mails lead: the mailer as the world reaches it, with its prefix."""
    mailer_connections: int = Field(16, ge=1, le=200)
    """How many mails are handed over at one time."""
    mailer_retry_seconds: float = Field(60, gt=0, le=3600)
    """The shortest time between two attempts at a mail that the server deferred; doubles with each, up to 64 fold."""

    mailer_webhook_secrets: str = ""
    """What webhooks are signed with: `whsec_…`, several with blanks between while one takes another's place. Unless
    given, one is derived from the installation (`rapport keys webhook`)."""
    mailer_webhook_connections: int = Field(16, ge=1, le=200)
    """How many webhooks are called at one time."""
    mailer_webhook_private: bool = False
    """Whether webhooks may go to addresses that are not public."""
    mailer_sms_url: str = ""
    """The gateway that text messages are handed to, with POST; unless given, they are skipped."""
    mailer_push_url: str = ""
    """The gateway that push notifications are handed to, with POST; unless given, they are skipped."""

    @field_validator("mailer_sms_url", "mailer_push_url")
    @classmethod
    def _names_a_gateway(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[^\s/?#]+[^\s#]*", url):
            raise ValueError("a gateway is named by its web address, such as https://gateway.example/sms")
        return url

    @field_validator("mailer_webhook_secrets")
    @classmethod
    def _are_secrets(cls, secrets: str) -> str:
        for secret in secrets.split():
            try:
                secret_of(secret)
            except RapportError as error:
                raise ValueError(str(error)) from None
        return secrets

    @field_validator("mailer_smtp_url")
    @classmethod
    def _names_a_server(cls, url: str) -> str:
        if url != INBOX:
            try:
                Relay.of(url)
            except RapportError as error:
                raise ValueError(str(error)) from None
        return url
