"""Where mail is handed to, as a URL says it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from shared.errors import RapportError

Security = Literal["starttls", "required", "none", "implicit"]


@dataclass(frozen=True, slots=True)
class Relay:
    """Where mail is handed to.

    `security`: `starttls` where the server offers it, `required` else nothing is sent, `none`, or `implicit` from the
    first byte (smtps). A certificate that cannot be verified is refused; `ca` is a file of further authorities.
    """

    host: str
    port: int
    security: Security
    user: str | None = None
    password: str = ""
    ca: str | None = None

    @classmethod
    def of(cls, url: str) -> Relay:
        """`smtp://user:password@host:587?tls=starttls|required|none&ca=FILE`, or `smtps://host:465`.

        With a password TLS is required unless `tls=none` is said in so many words. Raises RapportError."""
        parts = urlsplit(url)
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise RapportError(f"{_without_password(url)}: not the address of a mail server. Write smtp://host:587.")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        tls, ca = options.pop("tls", ""), options.pop("ca", None)
        if options:
            raise RapportError(f"{_without_password(url)}: {sorted(options)[0]!r} is not known. Use tls= and ca=.")
        security: Security
        if parts.scheme == "smtps":
            if tls:
                raise RapportError(f"{_without_password(url)}: smtps:// is always encrypted. Remove tls=.")
            security = "implicit"
        elif tls in ("", "starttls"):
            security = "required" if parts.username else "starttls"
        elif tls == "required":
            security = "required"
        elif tls == "none":
            security = "none"
        else:
            raise RapportError(f"{_without_password(url)}: tls is starttls, required or none, not {tls!r}.")
        return cls(
            host=parts.hostname,
            port=parts.port or (465 if security == "implicit" else 587 if parts.username else 25),
            security=security,
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password or ""),
            ca=ca,
        )


def _without_password(url: str) -> str:
    return re.sub(r"(//[^/@:]*):[^/@]*@", r"\1:***@", url)
