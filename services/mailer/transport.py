"""What the mailer asks of a way to hand messages over. `smtp.py` speaks to a mail server, `webhooks.py` calls addresses
and gateways, `inbox.py` keeps what it gets.

The four receipts are all that can become of a hand-over, and the mailer acts on nothing else. A transport may answer
Deferred only where no server can have accepted the mail; where that is in doubt, the answer is Unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from shared.contracts.messages import WEBHOOK, MessageRequested

if TYPE_CHECKING:
    from services.mailer.rendering import Rendered

DATA_WITHIN = 5.0
"""Seconds of the machine's time from the start of a hand-over within which DATA must have begun."""


class Mail(msgspec.Struct, frozen=True):
    """A mail, or a call, as it goes over the wire, made for one message (`composing.Composer`).

    `sender` and `recipient` are the envelope's bare addresses, `data` the whole mail (RFC 5322, CRLF line ends). Of a
    call `recipient` is its address, `data` its body, and `sender` is empty.
    `links` are the targets of its tracked links: the token of a link carries the message's id and a number, which is
    the place of its target here. They are kept with the message before the hand-over begins (`store.Change`).
    """

    request: MessageRequested
    sender: str
    recipient: str
    data: bytes
    rendered: Rendered
    headers: Mapping[str, str]
    links: tuple[str, ...] = ()


class Accepted(NamedTuple):
    """The server has answered the final dot of DATA with 2xx: `reply` is its line."""

    reply: str


class Deferred(NamedTuple):
    """Nothing can have been accepted, and a later attempt may succeed.

    An explicit 4xx at any stage, a connection that failed before the final dot of DATA, or `abandoned`: DATA was not
    reached in time. `reason` is a short code (`greylisted`, `connection`, `abandoned`); `reply` is what the server
    said, or else what became of the connection.
    """

    reply: str
    reason: str


class Rejected(NamedTuple):
    """The server has answered 5xx. `suppress`: it said that there is no such address (5.1.1 and its kin). `reason` is a
    stable word for why it failed otherwise."""

    reply: str
    suppress: bool
    reason: str = "rejected"


class Unknown(NamedTuple):
    """The connection was lost after the final dot of DATA and before its answer."""

    reason: str


Receipt = Accepted | Deferred | Rejected | Unknown


class Transport(Protocol):
    """Hands mails over. What is held or skipped never comes here: pages read that from the store."""

    @property
    def connections(self) -> int:
        """How many mails it takes at one time; it is never given more."""
        ...

    async def deliver(self, mail: Mail, data_by: float) -> Receipt:
        """Hand one mail over. Never raises for what a server or network does: that is a receipt.

        `data_by` is in the running loop's time (`loop.time()`): where DATA cannot be sent before it, `abandoned`. It
        is looked at directly before DATA is written, since the process may have been stopped in between. Waiting for
        a connection counts. The call is cancelled only where the process stops and has given the mail up.
        """
        ...

    async def start(self) -> None: ...

    async def close(self) -> None:
        """Ends idle connections with QUIT; called when nothing is in hand any more."""
        ...


def printable(text: str) -> str:
    """What a server said, as one line that is shown and logged: nothing in it moves a terminal."""
    return text if text.isprintable() else "".join(character if character.isprintable() else "?" for character in text)


THE_SERVER = ""
"""The one receiver of a channel that has no others."""


def receiver_of(request: MessageRequested) -> str:
    """The host, and the port if it is said, that a webhook goes to; `THE_SERVER` for all else."""
    if request.channel != WEBHOOK:
        return THE_SERVER
    url: str = request.data["url"]
    return url.partition("://")[2].partition("/")[0].partition("?")[0].rpartition("@")[2].lower()
