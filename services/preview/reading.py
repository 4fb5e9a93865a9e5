"""A mail for whoever looks at it: with its links leading where they say. Pure."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from services.mailer.transport import Mail

PUBLIC_URL = "https://links.invalid"
"""Where tracked links of a preview would lead."""


class Legible(NamedTuple):
    subject: str
    html: str
    text: str


def legible(mail: Mail) -> Legible:
    """Tracked links are their targets again, since nothing would answer at theirs."""
    from services.mailer.links import Links

    links = Links(b"preview", PUBLIC_URL)
    html, text = mail.rendered.html, mail.rendered.text
    for number, target in enumerate(mail.links):
        tracked = links.click(mail.request.id, number)
        html, text = html.replace(tracked, escape(target)), text.replace(tracked, target)
    return Legible(mail.rendered.subject, html, text)
