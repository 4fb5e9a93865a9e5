"""From a request to its mail, for the playbook in force. Pure."""

from __future__ import annotations

from datetime import datetime

import msgspec

from services.mailer import mime
from services.mailer.consent import destination
from services.mailer.links import Links
from services.mailer.rendering import Rendered, Renderer
from services.mailer.transport import Mail
from shared.contracts.messages import PUSH, SMS, WEBHOOK, MessageRequested
from shared.language.playbook import Playbook

_NO_WORDS = Rendered("", "", "", (), "", "")
_encode = msgspec.json.Encoder().encode


class Composer:
    """Makes mails, with one renderer for the playbook in force: what it compiled is kept until the next one comes."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._renderers: dict[str, Renderer] = {}

    def __call__(self, playbook: Playbook, request: MessageRequested, now: datetime) -> Mail:
        if request.channel == WEBHOOK:
            return call(request)
        renderer = self._renderers.get(playbook.hash)
        if renderer is None:
            while len(self._renderers) > 1:  # partitions switch one after the other, so two are in use at a time
                del self._renderers[next(iter(self._renderers))]
            renderer = self._renderers[playbook.hash] = Renderer(playbook, self._links)
        if request.channel in (SMS, PUSH):
            return short(renderer, request)
        return mime.compose(renderer, request, now)


def short(renderer: Renderer, request: MessageRequested) -> Mail:
    """What the gateway of a text message or a notification is told. Raises RenderingFailed."""
    words = renderer.short(request)
    to, _ = destination(request, None)
    body = {
        "channel": request.channel,
        "to": to,
        **words.said,
        "message_id": request.id,
        "customer": request.customer,
    }
    text = "\n".join(part for part in words.said.values() if part)
    rendered = Rendered("", "", text, (), words.locale, "")
    return Mail(request, "", to or "", _encode(body), rendered, {"Content-Type": "application/json"})


def call(request: MessageRequested) -> Mail:
    """The call of a webhook: its body, addressed to its URL."""
    data = request.data
    body = {
        "type": data["type"],
        "timestamp": request.due,
        "customer": request.customer,
        "key": data["key"],
        "journey": request.journey,
        "step": request.step,
        "data": data["with"],
    }
    return Mail(request, "", data["url"], _encode(body), _NO_WORDS, {"Content-Type": "application/json"})
