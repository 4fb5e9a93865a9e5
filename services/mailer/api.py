"""The mailer's HTTP face: the links of mails (clicks, unsubscribing, opens), and the local inbox where there is one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import parse_qs

import msgspec
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import AwareDatetime

from services.mailer import page_store, pages, past
from services.mailer.doors import Doors, page
from services.mailer.inbox import open_mail
from shared.contracts.streams import DEFAULT_PARTITIONS, partition_of
from shared.database.engine import Database
from shared.http import face, may_read
from shared.processing import playbooks
from shared.processing.playbooks import Shelf

PAGE = 50
"""Mails, or decisions, on one page of the inbox."""

_MOST_BODY = 64 * 1024
_PAGES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": "A page that says so; in JSON where a parameter cannot be read.",
        "content": {
            "text/html": {"schema": {"type": "string"}},
            "application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}},
        },
    }
    for status in ("4XX", "5XX")
}
"""People follow links: what they are refused, they are told on a page."""


class _Source(Response):
    media_type = "message/rfc822"


class _Image(Response):
    media_type = "image/gif"


def create(
    doors: Doors,
    database: Database,
    shelf: Shelf,
    ready: Callable[[], Awaitable[list[str]]],
    *,
    inbox: bool,
    partitions: int = DEFAULT_PARTITIONS,
    read_keys: str = "",
) -> FastAPI:
    """The application. `inbox`: the mails are kept here, and may be read by whoever reaches this address."""
    app = face(
        "Rapport mailer", "The links in mails: clicks and unsubscribing. The local inbox, where there is one.", ready
    )

    @app.head("/c/{token}", include_in_schema=False)
    @app.get("/c/{token}", tags=["links"], response_class=RedirectResponse, status_code=302, responses=_PAGES)
    async def clicked(token: str, request: Request) -> Response:
        """Follow a tracked link: 302 to its target, 404 for a link that is not ours."""
        return await doors.click(token, request.headers.get("user-agent", ""), counts=request.method == "GET")

    @app.head("/o/{token}", include_in_schema=False)
    @app.get("/o/{token}", tags=["links"], response_class=_Image, responses=_PAGES)
    async def opened(token: str, request: Request) -> Response:
        """The image of a mail: one pixel that nobody sees. Fetching it is reported as an open."""
        return await doors.open(token, request.headers.get("user-agent", ""), counts=request.method == "GET")

    @app.head("/u/{token}", include_in_schema=False)
    @app.get("/u/{token}", tags=["links"], response_class=HTMLResponse, responses=_PAGES)
    async def asked(token: str) -> Response:
        """The page that asks whether to unsubscribe. It changes nothing."""
        return await doors.ask(token)

    @app.post("/u/{token}", tags=["links"], response_class=HTMLResponse, responses=_PAGES)
    async def decided(token: str, request: Request) -> Response:
        """Unsubscribe at once: the one click of RFC 8058 (`List-Unsubscribe=One-Click`), or the page's form."""
        return await doors.decide(token, await _choice(request))

    @app.get("/v1/parts/{key:path}", include_in_schema=False, dependencies=[Depends(may_read(read_keys))])
    async def part(key: str, since: AwareDatetime) -> Response:
        """For journeys, which puts the story of a customer together (`shared.contracts.story.Mailed`)."""
        async with database.connect() as connection:
            mailed = await past.mailed(connection, partition_of(key, partitions), key, since)
        body = msgspec.json.encode(mailed)
        return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})

    if inbox:
        _add_inbox(app, database, shelf)
    return app


def _add_inbox(app: FastAPI, database: Database, shelf: Shelf) -> None:
    @app.get("/inbox", tags=["inbox"], response_class=HTMLResponse, responses=_PAGES)
    async def mails(
        recipient: str = "", journey: str = "", before: Annotated[int | None, Query(ge=0, lt=2**63)] = None
    ) -> Response:
        """The mails, the newest first."""
        async with database.connect() as connection:
            found = await page_store.inbox(
                connection,
                limit=PAGE + 1,
                before=before,
                recipient=_stored(recipient.strip()) or None,
                journey=_stored(journey) or None,
            )
            content_hash = await playbooks.in_force(connection)
            playbook = await shelf.get(connection, content_hash) if content_hash else None
        more = found[PAGE - 1].number if len(found) > PAGE else None
        journeys = sorted({*(playbook.journeys if playbook else ()), *({journey} - {""})})
        return page(pages.inbox(found[:PAGE], journeys, recipient, journey, more))

    @app.get("/inbox/decisions", tags=["inbox"], response_class=HTMLResponse, responses=_PAGES)
    async def decisions(
        customer: str = "", status: str = "", before: datetime | None = None, after: str = ""
    ) -> Response:
        """Every message that was asked for, the newest first: what became of it, and why."""
        async with database.connect() as connection:
            found = await page_store.listing(
                connection,
                limit=PAGE + 1,
                before=(before, _stored(after)) if before and before.tzinfo else None,
                customer=_stored(customer.strip()) or None,
                status=_stored(status) or None,
            )
        last = found[PAGE - 1] if len(found) > PAGE else None
        more = (last.requested_at, last.id) if last else None
        return page(pages.decisions(found[:PAGE], customer, status, more))

    @app.get("/inbox/{number}", tags=["inbox"], response_class=HTMLResponse, responses=_PAGES)
    async def mail(number: int, view: str = "html") -> Response:
        """One mail: as it looks, its text, its headers."""
        kept = await _kept(number)
        if kept is None:
            return page(pages.nowhere(), 404)
        return page(pages.mail(kept, open_mail(kept.data), view))

    @app.get("/inbox/{number}/html", tags=["inbox"], response_class=HTMLResponse, responses=_PAGES)
    async def html(number: int) -> Response:
        """The HTML of a mail alone, for the frame in which it is shown: it may run nothing."""
        kept = await _kept(number)
        if kept is None:
            return page(pages.nowhere(), 404)
        return HTMLResponse(pages.framed(open_mail(kept.data).html), headers=dict(pages.MAIL_HEADERS))

    @app.get("/inbox/{number}/source", tags=["inbox"], response_class=_Source, responses=_PAGES)
    async def source(number: int) -> Response:
        """The mail as it would go over the wire."""
        kept = await _kept(number)
        if kept is None:
            return page(pages.nowhere(), 404)
        headers = {**pages.HEADERS, "Content-Disposition": f'attachment; filename="mail-{kept.number}.eml"'}
        return _Source(kept.data, headers=headers)

    async def _kept(number: int) -> page_store.Kept | None:
        if not 0 <= number < 2**63:
            return None
        async with database.connect() as connection:
            return await page_store.inbox_mail(connection, number)


async def _choice(request: Request) -> str:
    """The field `choice` of a small form. Other bodies (RFC 8058 allows multipart, too) have none."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BODY:
            return ""
    try:
        return parse_qs(body.decode("ascii"), max_num_fields=20).get("choice", [""])[0]
    except ValueError:
        return ""


def _stored(text: str) -> str:
    """Text as PostgreSQL can hold it."""
    return text.replace("\0", "")
