"""A mail as bytes: RFC 5322 and MIME, written by hand because the standard library takes ten times as long. Pure.

Header injection is impossible by construction: whatever comes from outside enters a header through `_unstructured`,
`_phrase`, `_address` or `_token`, none of which can let a control character out. The tests hold every mail against the
standard library's parser.

Only a local part outside ASCII needs SMTPUTF8 (RFC 6531): it stands as UTF-8 in `To` (RFC 6532), and the SMTP client
hands such a mail over only to a server that offers it. Domains go over the wire in their ASCII form (RFC 5890), every
other text as encoded words (RFC 2047), and bodies as ASCII, quoted-printable or base64, so no server needs 8BITMIME.
"""

from __future__ import annotations

import re
from base64 import b64encode
from binascii import b2a_qp
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parseaddr
from functools import lru_cache
from typing import NamedTuple

import idna

from services.mailer.rendering import Renderer, RenderingFailed
from services.mailer.transport import Mail
from shared.contracts.messages import MessageRequested

CRLF = "\r\n"


class Mailbox(NamedTuple):
    """An address with the name that stands before it. `address` is ready for an envelope and for a header."""

    name: str
    address: str


def compose(renderer: Renderer, request: MessageRequested, now: datetime) -> Mail:
    """The mail of a request, to `request.address`. Raises RenderingFailed, with the template's file and line."""
    rendered = renderer.render(request)
    brand = renderer.playbook.brand
    sender = mailbox(brand.sender)
    recipient = mailbox(request.address or "")
    id = _token(request.id)
    domain = sender.address.rpartition("@")[2]
    headers = {
        "Date": _date(int(now.timestamp())),
        "From": _phrase(sender.name or brand.name, sender.address),
        "To": f"<{recipient.address}>",
        "Subject": _unstructured(rendered.subject, len("Subject: ")),
        "Message-ID": f"<{id}@{domain}>",
    }
    if brand.reply_to:
        reply_to = mailbox(brand.reply_to)
        headers["Reply-To"] = _phrase(reply_to.name, reply_to.address) if reply_to.name else f"<{reply_to.address}>"
    topic = renderer.playbook.topics.get(request.topic)
    if topic is None or topic.kind != "transactional":
        # RFC 8058. A POST to this address unsubscribes, with nothing else; a GET only asks.
        headers["List-Unsubscribe"] = f"<{rendered.unsubscribe_url}>"
        headers["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    # Gmail groups complaints by these, from the special to the general; the last names the sender.
    headers["Feedback-ID"] = _feedback_id((request.message, request.journey, request.topic, brand.name))
    # RFC 3834: no machine shall answer this one.
    headers["Auto-Submitted"] = "auto-generated"
    headers["Content-Language"] = _token(rendered.locale)
    return Mail(
        request=request,
        sender=sender.address,
        recipient=recipient.address,
        data=assemble(headers, rendered.text, rendered.html, id),
        rendered=rendered,
        headers=headers,
        links=rendered.links,
    )


def assemble(headers: Mapping[str, str], text: str, html: str, id: str) -> bytes:
    """The whole mail: these headers (folded and encoded already), then both bodies, the better one last."""
    # "=_" can occur in neither quoted-printable nor base64, nor behind "--" in what goes as it is.
    boundary = f"=_{id[:60]}"
    text_encoding, text_body = _body(text)
    html_encoding, html_body = _as_it_is(_in_references(html)) or _body(html)
    head = "".join(f"{name}: {value}{CRLF}" for name, value in headers.items())
    head += (
        f"MIME-Version: 1.0{CRLF}"
        f'Content-Type: multipart/alternative;{CRLF} boundary="{boundary}"{CRLF}'
        f"{CRLF}"
        f"--{boundary}{CRLF}"
        f"Content-Type: text/plain; charset=utf-8{CRLF}"
        f"Content-Transfer-Encoding: {text_encoding}{CRLF}"
        f"{CRLF}"
    )
    middle = (
        f"{CRLF}--{boundary}{CRLF}"
        f"Content-Type: text/html; charset=utf-8{CRLF}"
        f"Content-Transfer-Encoding: {html_encoding}{CRLF}"
        f"{CRLF}"
    )
    return b"".join(
        (head.encode(), text_body, middle.encode(), html_body, f"{CRLF}--{boundary}--{CRLF}".encode())
    )  # fmt: skip


_LONGEST_LINE = 998
"""RFC 5322, 2.1.1."""
_VERBATIM = ("</style>", "</script>", "</xmp>", "</iframe>", "</noembed>", "</noframes>")
"""The ends of elements in whose text a reference means nothing, as `compile_body` writes them."""
_MISREAD = re.compile(rb"&#1[2-5]\d;")
"""HTML reads references to the control characters from 128 to 159 as letters of Windows-1252."""


def _in_references(html: str) -> bytes:
    """HTML in ASCII, what lies beyond it as references to characters. Empty where that is long, or means something
    else."""
    if html.isascii():
        return html.encode()
    if not html[: max(map(html.rfind, _VERBATIM)) + 1].isascii():
        return b""
    data = html.encode("ascii", "xmlcharrefreplace")
    return b"" if 4 * len(data) > 5 * len(html) or _MISREAD.search(data) else data


def _as_it_is(data: bytes) -> tuple[str, bytes] | None:
    """A body of ASCII that needs no transfer encoding (RFC 2045, 2.7), and has nothing like a boundary in it."""
    if not data or b"\r" in data or b"\0" in data or b"--=_" in data:
        return None
    if max(map(len, data.split(b"\n"))) > _LONGEST_LINE:
        return None
    return "7bit", data.replace(b"\n", b"\r\n")


_NEWLINE = re.compile(rb"\r\n|\r|\n")


def _body(text: str) -> tuple[str, bytes]:
    """A body's transfer encoding and its bytes, in lines of at most 76."""
    data = text.encode("utf-8", "replace")
    data = _NEWLINE.sub(b"\r\n", data) if b"\r" in data else data.replace(b"\n", b"\r\n")
    quoted = b2a_qp(data, quotetabs=False, istext=True, header=False)
    if len(quoted) * 4 <= len(data) * 6:
        return "quoted-printable", quoted
    encoded = b64encode(data)
    return "base64", b"\r\n".join(encoded[at : at + 76] for at in range(0, len(encoded), 76))


# --- headers ---

_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")
_PLAIN = re.compile(r"[!-~]{1,60}(?: [!-~]{1,60})*")
_WORDS = 39
"""Bytes of UTF-8 in an encoded word, so that it fits the line of the longest header name (RFC 2047: 75 characters)."""


def _clean(text: str) -> str:
    return _CONTROL.sub(" ", text).strip()


def _unstructured(text: str, used: int) -> str:
    """The value of a header that is free text; `used` is the length of what stands before it on its line."""
    text = _clean(text)
    if not _PLAIN.fullmatch(text) or "=?" in text:
        return _encoded_words(text)
    if used + len(text) <= 78:
        return text
    lines = [""]
    for word in text.split(" "):
        if used + len(lines[-1]) + 1 + len(word) > 78:
            lines.append("")
            used = 1
        lines[-1] += (" " if lines[-1] else "") + word
    return f"{CRLF} ".join(lines)


def _encoded_words(text: str) -> str:
    whole = text.encode("utf-8", "replace")
    if len(whole) <= _WORDS:
        return f"=?utf-8?b?{b64encode(whole).decode()}?="
    words: list[bytes] = []
    word = b""
    for character in text:
        piece = character.encode("utf-8", "replace")
        if len(word) + len(piece) > _WORDS:
            words.append(word)
            word = b""
        word += piece
    words.append(word)
    return f"{CRLF} ".join(f"=?utf-8?b?{b64encode(word).decode()}?=" for word in words)


@lru_cache(256)
def _phrase(name: str, address: str) -> str:
    """`"Lamps & Co" <hello@lamps.example>`."""
    name = _clean(name)
    if _PLAIN.fullmatch(name) and len(name) <= 50 and "=?" not in name:
        shown = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    else:
        shown = _encoded_words(name)
    gap = " " if len(shown) + len(address) <= 68 and CRLF not in shown else f"{CRLF} "
    return f"{shown}{gap}<{address}>"


@lru_cache(256)
def _feedback_id(parts: Sequence[str]) -> str:
    return ":".join(_token(part)[:30] for part in parts)


def _token(text: str) -> str:
    """Text as an identifier: letters, digits and a few marks of ASCII."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text) or "-"


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(16)
def _date(seconds: int) -> str:
    now = datetime.fromtimestamp(seconds, UTC)
    day = f"{_DAYS[now.weekday()]}, {now.day:02} {_MONTHS[now.month - 1]} {now.year:04}"
    return f"{day} {now.hour:02}:{now.minute:02}:{now.second:02} +0000"


# --- addresses ---

_LOCAL = re.compile(r"[^\s@<>,;:\"()\[\]\\\x00-\x1f\x7f-\x9f\u2028\u2029]{1,64}")
_DOT_ATOM = re.compile(r"[^.]+(?:\.[^.]+)*")


@lru_cache(4096)
def _in_ascii(domain: str) -> str:
    """A domain as it goes over the wire; "" for what is none."""
    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        return ""


@lru_cache(4096)
def mailbox(text: str) -> Mailbox:
    """`Name <local@domain>` or a bare address, its domain in ASCII (IDNA 2008). Raises RenderingFailed."""
    name, address = parseaddr(text) if "<" in text else ("", text.strip())
    local, _, domain = address.rpartition("@")
    domain = _in_ascii(domain)
    if not domain or "." not in domain or not _LOCAL.fullmatch(local) or len(address) > 254:
        raise RenderingFailed("the address is none that mail can be sent to. Have the shop correct it.")
    if not _DOT_ATOM.fullmatch(local):
        local = f'"{local}"'
    return Mailbox(_clean(name), f"{local}@{domain}")
