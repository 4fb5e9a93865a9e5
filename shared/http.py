"""What every HTTP face has in common: errors as JSON, and the three pages that operators' tools read."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

from asyncpg import DataError
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException

from shared.database.engine import TRANSIENT, is_transient
from shared.reference import POLICY, reference_page
from shared.security import hash_key, same


class Refusal(BaseModel, use_attribute_docstrings=True):
    """Why a request was not answered."""

    code: str
    """Stable, for programs."""
    message: str
    """For people: what was wrong, where, and what to do."""


_REFUSALS: dict[int | str, dict[str, object]] = {
    "4XX": {"model": Refusal, "description": "Refused: the request, or whoever made it."},
    "5XX": {"model": Refusal, "description": "Not now. `Retry-After` says when to try again."},
}


def error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A refusal: `code` is stable and for programs, `message` says what was wrong, where, and what to do."""
    return JSONResponse({"code": code, "message": message}, status, dict(headers or {}))


def face(title: str, description: str, ready: Callable[[], Awaitable[list[str]]]) -> FastAPI:
    """An application with `/healthz`, `/readyz` and `/metrics`, whose errors all have a code and a message.

    `ready` names what keeps the service from working, a line each. `/healthz` says only that the process answers: a
    database that is away is no reason to restart it.
    """
    app = FastAPI(
        title=title,
        description=description,
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # it would lead to whatever host the request names
        responses=_REFUSALS,
    )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(reference_page(app.openapi()), headers=POLICY)

    @app.get("/healthz", tags=["operating"])
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["operating"])
    async def readyz() -> Response:
        """200 where everything that is needed answers, else 503 with what is missing."""
        problems = await ready()
        if problems:
            body = {"code": "not_ready", "message": "; ".join(problems), "problems": problems}
            return JSONResponse(body, 503, {"Retry-After": "1"})
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", tags=["operating"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, raised: HTTPException) -> Response:
        codes = {401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed"}
        return error(raised.status_code, codes.get(raised.status_code, "refused"), str(raised.detail), raised.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, raised: RequestValidationError) -> Response:
        first = raised.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return error(400, "invalid", f"{place}: {first['msg']}.")

    async def away(request: Request, raised: Exception) -> Response:
        if not is_transient(raised):
            raise raised
        return error(503, "unavailable", "The database is away for now. Try again.", {"Retry-After": "1"})

    for kind in (*TRANSIENT, DBAPIError):
        app.add_exception_handler(kind, away)

    @app.exception_handler(DataError)
    async def no_value(request: Request, raised: Exception) -> Response:
        # U+0000, which PostgreSQL's text does not have; a time beyond all calendars.
        return error(400, "invalid", "The request holds a value that nothing can be found by. Correct it.")

    @app.exception_handler(Exception)
    async def failed(request: Request, raised: Exception) -> Response:
        # Raised again when this is sent, so the log has all of it, and the client nothing.
        return error(500, "internal_error", "Rapport failed; its log says why.")

    return app


_READ_KEY = HTTPBearer(
    auto_error=False,
    scheme_name="readKey",
    description="A key whose hash is in RAPPORT_READ_KEYS; as the user of Basic authentication, too.",
)
"""For OpenAPI alone: keys are looked at by `may_read`."""


def may_read(read_keys: str) -> Callable[..., None]:
    """A dependency that lets in who shows a read key, as a bearer token or as the user of Basic authentication.

    `read_keys` are their SHA-256 hashes, separated by commas. 401 without a key, 403 with another one: a write key,
    which lies in every shop's configuration, reads nothing.
    """
    hashes = [one.strip().lower() for one in read_keys.split(",") if one.strip()]

    def check(request: Request, documented: Annotated[object, Depends(_READ_KEY)]) -> None:
        key = _shown_key(request.headers.get("authorization", ""))
        if not key:
            raise HTTPException(401, "Show a read key: Authorization: Bearer KEY.", {"WWW-Authenticate": "Bearer"})
        shown = hash_key(key)
        if not sum(same(shown, one) for one in hashes):
            raise HTTPException(403, "This key may not read. Use one whose hash is in RAPPORT_READ_KEYS.")

    return check


def _shown_key(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return b64decode(value, validate=True).decode().partition(":")[0]
        except (Base64Error, UnicodeDecodeError):
            return ""
    return ""
