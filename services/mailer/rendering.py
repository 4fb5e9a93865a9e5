"""From a request and a playbook to what a person reads: subject, HTML and text. Pure.

Everything that takes time (MJML, CSS, compiling) happens once for each message and language of a playbook.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from html import escape, unescape
from typing import Any

import msgspec
from jinja2 import Template

from services.mailer.links import MAX_LINKS, Links
from shared.contracts.messages import SMS, MessageRequested
from shared.errors import RapportError
from shared.language.bodies import BodyKind, Source, compile_body
from shared.language.locales import fallbacks, tidy
from shared.language.playbook import Message, Playbook
from shared.language.template_values import Rendition
from shared.language.templating import TemplateInvalid, compile_template, render
from shared.language.variables import BrandFields, MessageFields, TemplateVariables
from shared.walltime import zone_of

_MAX_SUBJECT = 500
_MAX_TARGET = 4_000
_THAT_RUN = ("javascript:", "data:", "vbscript:", "file:")
"""Addresses that would run something: events bring addresses, too."""


class RenderingFailed(RapportError):
    """A mail that cannot be made of this request and this playbook, now or later."""


class Rendered(msgspec.Struct, frozen=True):
    """What a person reads. `links` are the targets of the tracked links in `html` and `text`, by number."""

    subject: str
    html: str
    text: str
    links: tuple[str, ...]
    locale: str
    """The language it is written in, as BCP 47 has it."""
    unsubscribe_url: str


class Short(msgspec.Struct, frozen=True):
    """The words of a text message (`text`) or of a notification (`title`, `body`, `url`)."""

    said: Mapping[str, str]
    locale: str


class _Part(msgspec.Struct, frozen=True):
    """One template of a message, with the file that errors name. `lines` lead from its lines to the file's."""

    path: str
    template: Template
    lines: Source | None = None

    def failed(self, error: TemplateInvalid) -> RenderingFailed:
        line = self.lines.line(error.line) if self.lines else error.line
        return RenderingFailed(f"{self.path}:{line}: {error.message}")


class _Compiled(msgspec.Struct, frozen=True):
    """A message in one language: `language` is the folder that its body comes from, "" for the message's own."""

    subject: _Part
    html: _Part
    text: _Part
    language: str


class Renderer:
    """Renders the messages of one playbook. Make one for each playbook, since it keeps what it compiled."""

    def __init__(self, playbook: Playbook, links: Links) -> None:
        self.playbook = playbook
        self.links = links
        brand = playbook.brand
        self._brand = BrandFields(
            name=brand.name,
            sender=brand.sender,
            reply_to=brand.reply_to,
            postal_address=brand.postal_address,
            timezone=brand.timezone,
            locale=brand.locale,
            currency=brand.currency,
            urls=dict(brand.urls),
        )
        self._home = fallbacks(brand.locale)
        self._shorts: dict[tuple[str, str, str], _Part] = {}
        self._compiled: dict[tuple[str, tuple[str, ...]], _Compiled | RenderingFailed] = {}

    def render(self, request: MessageRequested) -> Rendered:
        """Raises RenderingFailed with file and line."""
        compiled = self._get(request.message, request.locale)
        variables, unsubscribe_url = self._variables(request)
        locale = self._voice(compiled.language, request.locale)
        targets = _Targets(lambda number: self.links.click(request.id, number), unsubscribe_url)
        rendition = self._rendition(request, locale, targets.in_html)
        subject = _WHITESPACE.sub(" ", _rendered(compiled.subject, variables, rendition)).strip()[:_MAX_SUBJECT]
        if not subject:
            raise RenderingFailed(f"{compiled.subject.path}:1: the subject is empty for this customer. Give it words.")
        html = _rendered(compiled.html, variables, rendition)
        if self.playbook.brand.opens == "tracked":
            html = _with_image(html, self.links.open(request.id))
        text = _rendered(compiled.text, variables, rendition)
        if "\n\n\n" in text or " \n" in text or "\t\n" in text:
            text = _BLANK_LINES.sub("\n\n", text)
        text = targets.in_text(text.strip("\n") + "\n")
        return Rendered(subject, html, text, tuple(targets.found), locale, unsubscribe_url)

    def short(self, request: MessageRequested) -> Short:
        """The words of a text message or a notification. Their links lead where they say: nobody counts clicks in them.
        Raises RenderingFailed with file and line."""
        message = self._message(request.message)
        levels = self._levels(message, request.locale)
        wanted = {"text": "sms.txt"} if request.channel == SMS else {n: f"push.{n}" for n in ("title", "body", "url")}
        first = next(iter(wanted.values()))
        level = next((level for level in levels if first in message.files.get(level, {})), None)
        if level is None:
            file = "sms.txt" if request.channel == SMS else "push.yaml"
            raise RenderingFailed(f"messages/{message.name}: there is no {file}. Write one.")
        variables, _ = self._variables(request)
        locale = self._voice(level, request.locale)
        rendition = self._rendition(request, locale, str)
        said: dict[str, str] = {}
        for name, file in wanted.items():
            source = message.files[level].get(file)
            part = self._short_part(message.name, level, file, source) if source is not None else None
            said[name] = _BLANK_LINES.sub("\n\n", _rendered(part, variables, rendition)).strip() if part else ""
            if part and not said[name] and name != "url":
                raise RenderingFailed(f"{part.path}:1: its {name} is empty for this customer. Give it words.")
        # Who follows it takes no notice of blanks and control characters (https://url.spec.whatwg.org/#url-parsing).
        if _UNPRINTABLE.sub("", said.get("url", "")).lower().startswith(_THAT_RUN):
            said["url"] = ""
        return Short(said, locale)

    def _short_part(self, message: str, level: str, file: str, source: str) -> _Part:
        kept = self._shorts.get((message, level, file))
        if kept is None:
            shown = "push.yaml" if file.startswith("push.") else file
            path = "/".join(part for part in ("messages", message, level, shown) if part)
            kept = self._shorts[message, level, file] = _plain(path, source)
        return kept

    def _rendition(self, request: MessageRequested, locale: str, href: Callable[[str], str]) -> Rendition:
        return Rendition(
            locale,
            zone_of(request.timezone, self.playbook.brand.timezone),
            self.playbook.brand.currency,
            href,
        )

    def _variables(self, request: MessageRequested) -> tuple[dict[str, Any], str]:
        """What templates see, and the link by which one unsubscribes."""
        data = request.data
        topic = self.playbook.topics.get(request.topic)
        unsubscribe_url = self.links.unsubscribe(request.id)
        standard = TemplateVariables(
            customer=data.get("customer") or {},
            traits=data.get("traits") or {},
            trigger=data.get("trigger") or {},
            key=data.get("key"),
            brand=self._brand,
            urls=self._brand["urls"],
            message=MessageFields(id=request.id, name=request.message, topic=topic.title if topic else request.topic),
            unsubscribe_url=unsubscribe_url,
        )
        return {**(data.get("with") or {}), **standard}, unsubscribe_url

    def _message(self, name: str) -> Message:
        message = self.playbook.messages.get(name)
        if message is None:
            raise RenderingFailed(f"messages/{name}: this message is not in the playbook any more. Bring it back.")
        return message

    def _levels(self, message: Message, locale: str | None) -> tuple[str, ...]:
        """The folders of the languages that serve a customer, the best first; "" is the message's own."""
        folders = {tidy(folder): folder for folder in message.files if folder}
        wanted = dict.fromkeys([*fallbacks(locale), *self._home])
        return (*(folders[level] for level in wanted if level in folders), "")

    def _get(self, name: str, locale: str | None) -> _Compiled:
        message = self._message(name)
        levels = self._levels(message, locale)
        found = self._compiled.get((name, levels))
        if found is None:
            try:
                found = _compile(message, levels)
            except RenderingFailed as error:
                found = error
            self._compiled[name, levels] = found
        if isinstance(found, RenderingFailed):
            raise RenderingFailed(str(found))
        return found

    def _voice(self, language: str, asked: str | None) -> str:
        """How numbers and dates are written: the way of the text they stand in, in the customer's own variety of it."""
        written = tidy(language or self.playbook.brand.locale)
        if asked and written in fallbacks(asked):
            return tidy(asked)
        return written


def _rendered(part: _Part, variables: Mapping[str, Any], rendition: Rendition) -> str:
    try:
        return render(part.template, variables, rendition)
    except TemplateInvalid as error:
        raise part.failed(error) from None


def _compile(message: Message, levels: tuple[str, ...]) -> _Compiled:
    """Each file from the first level that has it; a text part only from where the body is, or a closer level."""

    def find(*names: str) -> tuple[int, str] | None:
        for level, folder in enumerate(levels):
            for name in names:
                if name in message.files.get(folder, {}):
                    return level, name
        return None

    def path(level: int, name: str) -> str:
        return "/".join(part for part in ("messages", message.name, levels[level], name) if part)

    subject_at, body_at = find("subject.txt"), find("body.mjml", "body.html")
    if subject_at is None or body_at is None:
        missing = "subject.txt" if subject_at is None else "body.mjml or body.html"
        raise RenderingFailed(f"messages/{message.name}: there is no {missing}. Write one.")
    subject = _plain(path(*subject_at), message.files[levels[subject_at[0]]][subject_at[1]])
    level, name = body_at
    kind: BodyKind = "mjml" if name == "body.mjml" else "html"
    preheader = next((message.preheaders[of] for of in levels if of in message.preheaders), message.preheader)
    try:
        body = compile_body(message.files[levels[level]][name], kind, preheader)
    except TemplateInvalid as error:
        raise RenderingFailed(f"{path(level, name)}:{error.line}: {error.message}") from None
    html = _derived(path(level, name), body.html, html=True)
    text_at = find("body.txt")
    # Another language's text part would say the same thing in words that this reader did not choose.
    if text_at is not None and text_at[0] <= level:
        text = _plain(path(*text_at), message.files[levels[text_at[0]]]["body.txt"])
    else:
        text = _derived(path(level, name), body.text, html=False)
    return _Compiled(subject, html, text, levels[level])


def _plain(path: str, source: str) -> _Part:
    try:
        return _Part(path, compile_template(source, html=False, name=path))
    except TemplateInvalid as error:
        raise RenderingFailed(f"{path}:{error.line}: {error.message}") from None


def _derived(path: str, source: Source, *, html: bool) -> _Part:
    try:
        return _Part(path, compile_template(source.text, html=html, name=path), source)
    except TemplateInvalid as error:
        raise RenderingFailed(f"{path}:{source.line(error.line)}: {error.message}") from None


def _with_image(html: str, url: str) -> str:
    """The image that tells of an open, last: what readers hear and see is not moved by it."""
    image = f'<img src="{escape(url)}" width="1" height="1" alt="" style="display:block;border:0">'
    end = html.rfind("</body>")
    return f"{html}{image}\n" if end < 0 else f"{html[:end]}{image}{html[end:]}"


_WHITESPACE = re.compile(r"[ \t\n\r\f\v]+")
_BLANK_LINES = re.compile(r"[ \t]*\n(?:[ \t]*\n){2,}")
_URL_IN_TEXT = re.compile(r"https?://[^\s<>\"]+")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]+")


class _Targets:
    """The targets of one mail's links, each once, in the order in which they are met."""

    def __init__(self, link: Callable[[int], str], unsubscribe_url: str) -> None:
        self._link = link
        self._unsubscribe_url = unsubscribe_url
        self._tracked: dict[str, str] = {}

    @property
    def found(self) -> list[str]:
        return list(self._tracked)

    def in_html(self, attribute: str) -> str:
        """The value of an `href` for another, both escaped."""
        # Not as markup, all of whose methods escape.
        target = unescape(str(attribute)).strip()
        return escape(self._for(target))

    def in_text(self, text: str) -> str:
        return _URL_IN_TEXT.sub(self._in_text, text)

    def _in_text(self, found: re.Match[str]) -> str:
        url = found[0]
        end = len(url.rstrip(".,;:!?'*"))
        if url[:end].endswith(")") and "(" not in url:
            end -= 1
        return self._for(url[:end]) + url[end:]

    def _for(self, target: str) -> str:
        if target == self._unsubscribe_url:
            return target
        scheme = target[:8].lower()
        if target.startswith("//"):
            target = "https:" + target
        elif not scheme.startswith(("http://", "https://")):
            # Events bring addresses, too: one that would run something leads nowhere.
            return target if scheme.startswith(("mailto:", "tel:", "sms:", "#")) else "#"
        if " " in target or not target.isprintable():
            target = _UNPRINTABLE.sub(lambda found: "%20" if found[0].strip(" ") == "" else "", target)
        known = self._tracked.get(target)
        if known is not None:
            return known
        if len(target) > _MAX_TARGET or len(self._tracked) >= MAX_LINKS:
            return target
        self._tracked[target] = made = self._link(len(self._tracked))
        return made
