"""The other services' parts of a story, over HTTP, with the key that the reader has shown."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import ProxyHandler, Request, build_opener

import msgspec

from shared.contracts.story import Mailed, Remembered
from shared.errors import RapportError

T = TypeVar("T")

_PATIENCE_SECONDS = 10.0
# Inside a cluster nothing lies behind a proxy, whatever the environment says.
_opener = build_opener(ProxyHandler({}))


class Away(RapportError):
    """A service that has a part of the story gives no answer now."""


class Neighbours:
    """Segmenter and mailer at these addresses (`telling.Elsewhere`). `authorization` is the reader's own header."""

    def __init__(self, segmenter_url: str, mailer_url: str, authorization: str) -> None:
        self._segmenter_url, self._mailer_url, self._authorization = segmenter_url, mailer_url, authorization

    async def remembered(self, customer: str, since: datetime, names: Sequence[str]) -> Remembered:
        query = [("since", since.isoformat()), *(("name", name) for name in names)]
        return await self._ask("SEGMENTER", self._segmenter_url, customer, query, Remembered)

    async def mailed(self, customer: str, since: datetime) -> Mailed:
        return await self._ask("MAILER", self._mailer_url, customer, [("since", since.isoformat())], Mailed)

    async def _ask(self, service: str, url: str, customer: str, query: Sequence[tuple[str, str]], kind: type[T]) -> T:
        """Raises Away."""
        if not url:
            raise Away(f"RAPPORT_{service}_URL is not set, so a part of the story is missing. Set it for journeys.")
        address = f"{url.rstrip('/')}/v1/parts/{quote(customer, safe='')}?{urlencode(query)}"
        request = Request(address, headers={"Authorization": self._authorization})
        try:
            body = await asyncio.to_thread(_read, request)
            return msgspec.json.decode(body, type=kind)
        except HTTPError as refused:
            raise Away(f"{service.lower()} at {url} answered {refused.code}. Look at its log.") from refused
        except (OSError, msgspec.MsgspecError) as error:
            raise Away(f"{service.lower()} at {url} gives no answer: {error}. Try again.") from error


def _read(request: Request) -> bytes:
    with _opener.open(request, timeout=_PATIENCE_SECONDS) as answer:
        body: bytes = answer.read()
        return body
