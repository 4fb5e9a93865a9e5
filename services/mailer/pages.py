"""The pages that people see: unsubscribing, links that lead nowhere, and the local inbox. Pure: data in, HTML out.

They are served under any prefix, so every link in them is relative. Nothing on them is fetched from elsewhere, and no
script runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from services.mailer.inbox import Opened
from services.mailer.page_store import Kept, Listed
from shared.language.locales import fallbacks

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src http: https: data:; "
    "style-src 'unsafe-inline' https:; font-src https: data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
"""What a mail may do in the frame in which it is shown: look as it does, and open links in new windows."""

_HEADERS = {
    "Content-Security-Policy": POLICY,
    # A token in the address of a page is nobody else's business.
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

HEADERS: Mapping[str, str] = _HEADERS
MAIL_HEADERS: Mapping[str, str] = {**_HEADERS, "Content-Security-Policy": MAIL_POLICY}


class Offer(NamedTuple):
    """What an unsubscribe link is about: the topic in the words of the playbook, and how things stand."""

    brand: str
    topic: str
    description: str
    subscribed: bool
    required: bool
    """Nobody can unsubscribe from it: the receipt for an order."""


def unsubscribe(offer: Offer, locale: str | None) -> str:
    """Asks; a GET changes nothing, since machines follow links, too."""
    return _person("ask.html", locale, offer=offer)


def unsubscribed(offer: Offer, everything: bool, locale: str | None) -> str:
    return _person("done.html", locale, offer=offer, everything=everything, undone=False)


def resubscribed(offer: Offer, everything: bool, locale: str | None) -> str:
    return _person("done.html", locale, offer=offer, everything=everything, undone=True)


def nowhere(locale: str | None = None) -> str:
    """A link that is not ours, or not any more."""
    return _person("notice.html", locale, heading="nowhere", text="nowhere_text")


def later(locale: str | None = None) -> str:
    """It did not work now."""
    return _person("notice.html", locale, heading="later", text="later_text")


def inbox(mails: Sequence[Kept], journeys: Sequence[str], recipient: str, journey: str, more: int | None) -> str:
    return _ENVIRONMENT.get_template("inbox.html").render(
        mails=mails,
        journeys=journeys,
        recipient=recipient,
        journey=journey,
        older=_query(recipient=recipient, journey=journey, before=more) if more is not None else None,
        here="mails",
        root="",
    )


def mail(kept: Kept, opened: Opened, view: str) -> str:
    return _ENVIRONMENT.get_template("mail.html").render(mail=kept, opened=opened, view=view, here="mails", root="../")


def decisions(rows: Sequence[Listed], customer: str, status: str, more: tuple[datetime, str] | None) -> str:
    return _ENVIRONMENT.get_template("decisions.html").render(
        rows=rows,
        customer=customer,
        status=status,
        statuses=("held", "skipped", "failed", "unknown", "sent"),
        older=_query(customer=customer, status=status, before=more[0].isoformat(), after=more[1]) if more else None,
        here="decisions",
        root="../",
    )


def framed(html: str) -> str:
    """A mail's HTML for the frame: its links open outside."""
    base = '<base target="_blank">'
    placed, count = re.subn(r"(<head\b[^>]*>)", lambda head: head[0] + base, html, count=1, flags=re.I)
    return placed if count else base + html


def _query(**values: object) -> str:
    return "?" + urlencode({name: value for name, value in values.items() if value not in (None, "")})


def _person(template: str, locale: str | None, **values: object) -> str:
    language = next((name for name in fallbacks(locale) if name in _PHRASES), "en")
    phrases = _PHRASES[language]

    def say(phrase: str, **words: object) -> Markup:
        shown = {name: Markup("<strong>{}</strong>").format(word) for name, word in words.items()}
        return Markup(escape(phrases[phrase])).format(**shown)

    return _ENVIRONMENT.get_template(template).render(language=language, say=say, **values)


def _when(moment: datetime | None) -> Markup:
    if moment is None:
        return Markup("")
    moment = moment.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        moment.isoformat(timespec="seconds"), f"{moment.day} {moment:%b %Y, %H:%M} UTC"
    )


_REASONS = {
    "abandoned": "the mail server took too long; tried again later",
    "cap": "enough mails for now (a cap)",
    "connection": "no connection to the mail server; tried again later",
    "deferred": "the mail server wants it later",
    "draft": "its journey is a draft",
    "expired": "its time was over before it could go",
    "greylisted": "the mail server wants to see it twice",
    "invalid_address": "the address is none",
    "interrupted": "the process ended in the middle of handing it over",
    "login": "the mail server does not let us in; tried again later",
    "no_address": "no address is known",
    "no_playbook": "no playbook is in force",
    "no_such_address": "the server says there is no such address",
    "not_subscribed": "never subscribed to this topic",
    "quiet_hours": "quiet hours where the customer is",
    "rejected": "the server refused it",
    "rendering": "the template failed",
    "retries_ran_out": "no attempt succeeded in time",
    "suppressed": "nothing goes to this address any more",
    "tls": "no encrypted connection to the mail server; tried again later",
    "topic_removed": "its topic is not in the playbook any more",
    "unsubscribed": "unsubscribed from this topic",
}


def _reason(code: str) -> str:
    return _REASONS.get(code, code.replace("_", " "))


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(when=_when, reason=_reason)

# What the pages say to a customer, in the languages of `shared.language.locales` that we can vouch for.
_PHRASES: dict[str, dict[str, str]] = {
    "en": {
        "ask": "Stop these mails?",
        "ask_text": "You get {topic} from {brand}.",
        "unsubscribe": "Unsubscribe",
        "unsubscribe_all": "Unsubscribe from all advertising",
        "required": "These mails are about your orders ({topic}), so they cannot be switched off.",
        "already": "You do not get {topic} from {brand}.",
        "resubscribe": "Subscribe again",
        "done": "Done",
        "done_text": "You will get no more mails about {topic} from {brand}.",
        "done_all_text": "You will get no more advertising from {brand}.",
        "undo": "That was a mistake, undo it",
        "undone": "Welcome back",
        "undone_text": "You will get {topic} from {brand} again.",
        "undone_all_text": "You will get mails from {brand} as before.",
        "nowhere": "This link leads nowhere",
        "nowhere_text": "It may have been cut short on its way, or be very old. Please look for it in the mail again.",
        "later": "This did not work just now",
        "later_text": "Nothing has been changed. Please try again in a minute.",
    },
    "nb": {
        "ask": "Vil du stoppe disse e-postene?",
        "ask_text": "Du får {topic} fra {brand}.",
        "unsubscribe": "Meld meg av",
        "unsubscribe_all": "Meld meg av all reklame",
        "required": "Disse e-postene gjelder bestillingene dine ({topic}), og kan derfor ikke slås av.",
        "already": "Du får ikke {topic} fra {brand}.",
        "resubscribe": "Meld meg på igjen",
        "done": "Det er gjort",
        "done_text": "Du får ikke flere e-poster om {topic} fra {brand}.",
        "done_all_text": "Du får ikke mer reklame fra {brand}.",
        "undo": "Det var en feil, angre",
        "undone": "Velkommen tilbake",
        "undone_text": "Du får {topic} fra {brand} igjen.",
        "undone_all_text": "Du får e-post fra {brand} som før.",
        "nowhere": "Denne lenken fører ingen steder",
        "nowhere_text": "Kanskje ble den kuttet på veien, eller den er svært gammel. Finn den gjerne i e-posten igjen.",
        "later": "Det virket ikke akkurat nå",
        "later_text": "Ingenting er endret. Prøv igjen om et minutt.",
    },
    "sv": {
        "ask": "Vill du sluta få de här mejlen?",
        "ask_text": "Du får {topic} från {brand}.",
        "unsubscribe": "Avregistrera mig",
        "unsubscribe_all": "Avregistrera mig från all reklam",
        "required": "De här mejlen gäller dina beställningar ({topic}) och kan därför inte stängas av.",
        "already": "Du får inte {topic} från {brand}.",
        "resubscribe": "Registrera mig igen",
        "done": "Klart",
        "done_text": "Du får inga fler mejl om {topic} från {brand}.",
        "done_all_text": "Du får ingen mer reklam från {brand}.",
        "undo": "Det var ett misstag, ångra",
        "undone": "Välkommen tillbaka",
        "undone_text": "Du får {topic} från {brand} igen.",
        "undone_all_text": "Du får mejl från {brand} som förut.",
        "nowhere": "Den här länken leder ingenstans",
        "nowhere_text": "Den kan ha kortats av på vägen, eller vara mycket gammal. Leta upp den i mejlet igen.",
        "later": "Det gick inte just nu",
        "later_text": "Inget har ändrats. Försök igen om en minut.",
    },
    "da": {
        "ask": "Vil du stoppe disse mails?",
        "ask_text": "Du får {topic} fra {brand}.",
        "unsubscribe": "Afmeld mig",
        "unsubscribe_all": "Afmeld mig al reklame",
        "required": "Disse mails handler om dine bestillinger ({topic}) og kan derfor ikke slås fra.",
        "already": "Du får ikke {topic} fra {brand}.",
        "resubscribe": "Tilmeld mig igen",
        "done": "Det er gjort",
        "done_text": "Du får ikke flere mails om {topic} fra {brand}.",
        "done_all_text": "Du får ikke mere reklame fra {brand}.",
        "undo": "Det var en fejl, fortryd",
        "undone": "Velkommen tilbage",
        "undone_text": "Du får {topic} fra {brand} igen.",
        "undone_all_text": "Du får mails fra {brand} som før.",
        "nowhere": "Dette link fører ingen steder hen",
        "nowhere_text": "Måske blev det afkortet undervejs, eller det er meget gammelt. Find det i mailen igen.",
        "later": "Det virkede ikke lige nu",
        "later_text": "Intet er ændret. Prøv igen om et minut.",
    },
    "de": {
        "ask": "Diese E-Mails abbestellen?",
        "ask_text": "Sie erhalten {topic} von {brand}.",
        "unsubscribe": "Abbestellen",
        "unsubscribe_all": "Alle Werbung abbestellen",
        "required": "Diese E-Mails betreffen Ihre Bestellungen ({topic}) und lassen sich nicht abbestellen.",
        "already": "Sie erhalten {topic} von {brand} nicht.",
        "resubscribe": "Wieder abonnieren",
        "done": "Erledigt",
        "done_text": "Sie erhalten keine E-Mails über {topic} von {brand} mehr.",
        "done_all_text": "Sie erhalten keine Werbung von {brand} mehr.",
        "undo": "Das war ein Versehen, rückgängig machen",
        "undone": "Willkommen zurück",
        "undone_text": "Sie erhalten {topic} von {brand} wieder.",
        "undone_all_text": "Sie erhalten wieder E-Mails von {brand} wie zuvor.",
        "nowhere": "Dieser Link führt nirgendwohin",
        "nowhere_text": "Vielleicht wurde er unterwegs gekürzt, oder er ist sehr alt. Bitte suchen Sie ihn noch einmal "
        "in der E-Mail.",
        "later": "Das hat gerade nicht geklappt",
        "later_text": "Es wurde nichts geändert. Bitte versuchen Sie es in einer Minute noch einmal.",
    },
}
_PHRASES["nn"] = _PHRASES["no"] = _PHRASES["nb"]
