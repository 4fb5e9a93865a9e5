"""From a request to its mail, for the playbook in force. Pure."""

from __future__ import annotations

from datetime import datetime

from services.mailer import mime
from services.mailer.links import Links
from services.mailer.rendering import Renderer
from services.mailer.transport import Mail
from shared.contracts.messages import MessageRequested
from shared.language.playbook import Playbook


class Composer:
    """Makes mails, with one renderer for the playbook in force: what it compiled is kept until the next one comes."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._renderers: dict[str, Renderer] = {}

    def __call__(self, playbook: Playbook, request: MessageRequested, now: datetime) -> Mail:
        renderer = self._renderers.get(playbook.hash)
        if renderer is None:
            while len(self._renderers) > 1:  # partitions switch one after the other, so two are in use at a time
                del self._renderers[next(iter(self._renderers))]
            renderer = self._renderers[playbook.hash] = Renderer(playbook, self._links)
        return mime.compose(renderer, request, now)
