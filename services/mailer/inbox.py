"""The transport `inbox://`: sends nothing, and keeps the mails to be read on a page. For trials and the demo."""

from __future__ import annotations

import asyncio
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import NamedTuple

import asyncpg

from services.mailer import page_store
from services.mailer.transport import Accepted, Deferred, Mail, Receipt, Unknown
from shared.clock import Clock
from shared.database.engine import Database, is_transient
from shared.processing.faults import reached

_MOST_AT_ONCE = 200


class InboxTransport:
    """Keeps mails in the database, those that come together in one statement."""

    def __init__(self, database: Database, clock: Clock, *, connections: int = 64) -> None:
        self._database = database
        self._clock = clock
        self._connections = connections
        self._waiting: list[tuple[Mail, float, asyncio.Future[Receipt]]] = []
        self._keeping: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        return self._connections

    async def start(self) -> None:
        """Nothing has to be opened: the database's pool is there."""

    async def deliver(self, mail: Mail, data_by: float) -> Receipt:
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._waiting.append((mail, data_by, receipt))
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep_waiting())
        return await receipt

    async def close(self) -> None:
        if self._keeping is not None:
            await self._keeping

    async def _keep_waiting(self) -> None:
        try:
            # What arrives in this turn of the loop goes along.
            await asyncio.sleep(0)
            while self._waiting:
                batch, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
                await self._keep(batch)
        finally:
            self._keeping = None

    async def _keep(self, batch: list[tuple[Mail, float, asyncio.Future[Receipt]]]) -> None:
        begun = False
        in_time: list[tuple[Mail, float, asyncio.Future[Receipt]]] = []
        receipt: Receipt
        try:
            async with self._database.connect() as connection:
                time = asyncio.get_running_loop().time()
                for mail, data_by, waiting in batch:
                    if time < data_by:
                        in_time.append((mail, data_by, waiting))
                    else:
                        waiting.set_result(Deferred("", "abandoned"))
                if not in_time:
                    return
                begun = True
                now = self._clock.now()
                await page_store.keep_mails(
                    connection,
                    [
                        (mail.request.id, mail.recipient, mail.rendered.subject.replace("\0", ""), now, mail.data)
                        for mail, _, _ in in_time
                    ],
                )
            reached("mailer.data_sent")
            receipt = Accepted("kept in the inbox")
        except Exception as error:
            if not begun:
                receipt = Deferred(str(error), "connection")
            elif isinstance(error, asyncpg.PostgresError) and not is_transient(error):
                receipt = Deferred(str(error), "refused")
            else:
                receipt = Unknown("connection_lost")
        for _, _, waiting in in_time if begun else batch:
            if not waiting.done():
                waiting.set_result(receipt)


class Opened(NamedTuple):
    """A mail as a mail program reads it: headers decoded, in their order."""

    headers: list[tuple[str, str]]
    html: str
    text: str


def open_mail(data: bytes) -> Opened:
    mail = message_from_bytes(data, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    return Opened(
        [(name, str(value).strip()) for name, value in mail.items()], _body(mail, "html"), _body(mail, "plain")
    )


def _body(mail: EmailMessage, subtype: str) -> str:
    part = mail.get_body((subtype,))
    content = part.get_content() if isinstance(part, EmailMessage) else ""
    return content if isinstance(content, str) else ""
