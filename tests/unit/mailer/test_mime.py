"""A mail written by hand must mean to every mail program what we meant: held against the standard library's parser."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr
from html import unescape

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mailer_playbook import playbook, request

from services.mailer.links import Links
from services.mailer.mime import compose, mailbox
from services.mailer.rendering import Renderer, RenderingFailed
from services.mailer.transport import Mail

NOW = datetime(2026, 3, 2, 7, 5, 9, tzinfo=UTC)
LINKS = Links(b"s" * 32, "https://mail.lamps.example/mailer")

# Any text but lone surrogates, which no JSON brings in.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
lines = st.lists(texts, max_size=8).map("\r\n".join)


def composed(**files: str) -> tuple[Mail, EmailMessage]:
    mail = compose(Renderer(playbook(**files), LINKS), request(), NOW)
    return mail, parsed(mail.data)


def parsed(data: bytes) -> EmailMessage:
    mail = message_from_bytes(data, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    assert not mail.defects
    return mail


def part(mail: EmailMessage, subtype: str) -> str:
    body = mail.get_body((subtype,))
    assert body is not None
    assert not body.defects
    content = body.get_content()
    assert isinstance(content, str)
    return newlines(content)


def test_mail_has_what_a_proper_mail_has() -> None:
    mail, read = composed()
    assert mail.sender == "hello@lamps.example"
    assert mail.recipient == "anna@example.org"
    assert read["From"] == '"Lamps & Co, Oslo" <hello@lamps.example>'
    assert read["From"].addresses[0].display_name == "Lamps & Co, Oslo"
    assert read["Reply-To"] == "help@lamps.example"
    assert read["To"] == "anna@example.org"
    assert read["Date"].datetime == NOW
    assert read["Message-ID"] == "<5b1c0f6e-52f3-5c1e-8a53-0d6f7f4f2b6e@lamps.example>"
    assert read["List-Unsubscribe"] == f"<{LINKS.unsubscribe(request().id)}>"
    assert read["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert read["Feedback-ID"] == "cart-reminder:abandoned-cart:cart-reminders:Lamps-Co"
    assert read["Auto-Submitted"] == "auto-generated"
    assert read["Content-Language"] == "en"
    assert read.get_content_type() == "multipart/alternative"
    assert [each.get_content_type() for each in read.iter_parts()] == ["text/plain", "text/html"]


def test_transactional_mail_offers_no_unsubscribing() -> None:
    mail = compose(Renderer(playbook(), LINKS), request(topic="receipts"), NOW)
    read = parsed(mail.data)
    assert read["List-Unsubscribe"] is None
    assert read["List-Unsubscribe-Post"] is None


def test_lines_are_short_and_end_as_the_protocol_wants() -> None:
    mail, _ = composed(subject="ö" * 400, text="x" * 5000 + "\n.\n..\nFrom me\n", html="<p>" + "å" * 5000 + "</p>")
    assert all(len(line) <= 78 for line in mail.data.split(b"\r\n") if not line.startswith(b"List-Unsubscribe:"))
    assert b"\n" not in mail.data.replace(b"\r\n", b"")
    assert b"\r" not in mail.data.replace(b"\r\n", b"")
    assert mail.data.isascii()


@settings(deadline=None)
@given(text=texts)
@example("=?utf-8?q?x?=")
@example("a\r\nBcc: eve@example.org")
@example("Hei ø! " * 30)
@example("word " * 40)
@example("a  b")
@example("\x85\u2028x")
def test_any_subject_survives(text: str) -> None:
    asked = request(trigger={"text": text})
    read = parsed(compose(Renderer(playbook(subject="{{ trigger.text }}x"), LINKS), asked, NOW).data)
    one_line = re.sub(r"[ \t\n\r\f\v]+", " ", text + "x").strip()[:500]
    expected = re.sub(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", one_line).strip()
    assert str(read["Subject"]) == expected
    assert set(read.keys()) == set(parsed(composed()[0].data).keys())


@settings(deadline=None)
@given(text=lines)
@example("trailing \r\nblank\t\r\n")
@example("=20\r\n=\r\n--=_5b1c0f6e-52f3-5c1e-8a53-0d6f7f4f2b6e--")
@example("日本語" * 200)
@example("a\rb\x00c\x0cd")
@example("\x80 and &#128;")
def test_any_body_survives(text: str) -> None:
    asked = request(trigger={"text": text})
    mail = compose(Renderer(playbook(text="{{ trigger.text }}|", html="<p>{{ trigger.text }}</p>"), LINKS), asked, NOW)
    read = parsed(mail.data)
    assert part(read, "plain") == newlines(mail.rendered.text)
    # A reader sees the same, whether a character is written or referred to.
    assert unescape(part(read, "html")) == unescape(newlines(mail.rendered.html))


def test_html_beyond_ascii_is_referred_to_and_not_encoded() -> None:
    mail, read = composed(html='<p title="Å">Åse – 9 €, 5 = 5</p>')
    assert b'<p title="&#197;">&#197;se &#8211; 9 &#8364;, 5 = 5</p>' in mail.data
    assert encoding(read, "html") == "7bit"


@pytest.mark.parametrize(
    "html",
    [
        '<style>@media print { p::before { content: "→" } }</style><p>a</p>',  # no references there
        "<p>\x80 is no euro</p>",
        "<p>ø" + "x" * 1000 + "</p>",
        "<p>ø<br>\n--=_5b1c0f6e-52f3-5c1e-8a53-0d6f7f4f2b6e--</p>",
        "<p>" + "日本語" * 40 + "</p>",
    ],
)
def test_html_is_encoded_where_references_would_be_long_or_mean_something_else(html: str) -> None:
    mail, read = composed(html=html)
    assert encoding(read, "html") in ("quoted-printable", "base64")
    assert part(read, "html") == mail.rendered.html


def encoding(mail: EmailMessage, subtype: str) -> str:
    body = mail.get_body((subtype,))
    assert body is not None
    return str(body["Content-Transfer-Encoding"])


def newlines(text: str) -> str:
    return re.sub(r"\r\n|\r", "\n", text)


@settings(deadline=None)
@given(name=texts)
@example('Anna "the lamp" \\ Berg')
@example("Ærlige Lamper AS, avdeling for svært lange navn på svært små lamper")
@example("x\r\nBcc: eve@example.org")
def test_any_sender_name_survives(name: str) -> None:
    shown = re.sub(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", name).strip()
    mail = compose(Renderer(playbook(sender="hello@lamps.example", brand_name=name), LINKS), request(), NOW)
    read = parsed(mail.data)
    assert len(read["From"].addresses) == 1
    assert read["From"].addresses[0].addr_spec == "hello@lamps.example"
    assert "Bcc" not in read
    # The new parser keeps the blank between two encoded words of a name, which RFC 2047 (6.2) drops; the old one
    # does as the RFC says.
    raw = message_from_bytes(mail.data, policy=policy.compat32)["From"]
    whole = str(make_header(decode_header(raw)))
    assert parseaddr(whole)[0] == shown if raw.isascii() and "=?" not in raw else whole.startswith(shown)


@settings(deadline=None)
@given(address=texts)
@example("anna@example.org\r\nRCPT TO:<eve@example.org>")
@example("anna@example.org, eve@example.org")
@example("<anna@example.org> <eve@example.org>")
@example('"x y"@example.org')
@example(".anna@example.org")
def test_any_address_is_refused_or_is_exactly_one_recipient(address: str) -> None:
    try:
        mail = compose(Renderer(playbook(), LINKS), request(address=address), NOW)
    except RenderingFailed:
        return
    read = parsed(mail.data)
    assert len(read["To"].addresses) == 1
    assert not re.search(r"[\s<>]", mail.recipient)


def test_domain_of_another_alphabet_goes_in_its_ascii_form() -> None:
    assert mailbox("anna@blåbærgrøt.example").address == "anna@xn--blbrgrt-fxak7p.example"


def test_local_part_of_another_alphabet_stays_as_it_is() -> None:
    mail = compose(Renderer(playbook(), LINKS), request(address="bjørn@example.org"), NOW)
    assert mail.recipient == "bjørn@example.org"
    assert "To: <bjørn@example.org>\r\n".encode() in mail.data


@pytest.mark.parametrize(
    "address", ["", "anna", "anna@", "@example.org", "a b@example.org", "anna@localhost", "a@b@c.d e"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(RenderingFailed, match="address"):
        mailbox(address)
