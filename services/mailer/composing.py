"""From a request to its mail, for the playbook in force. Pure."""

from __future__ import annotations

from datetime import datetime

import msgspec

from services.mailer import mime
from services.mailer.links import Links
from services.mailer.rendering import Rendered, Renderer
from services.mailer.transport import Mail
from shared.contracts.messages import WEBHOOK, MessageRequested
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
        return mime.compose(renderer, request, now)


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
