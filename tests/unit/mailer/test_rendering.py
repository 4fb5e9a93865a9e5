"""From a marketer's files and a customer's data to what a person reads."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mailer_playbook import playbook, request
from msgspec.structs import replace

from services.mailer.links import Click, Links, Open
from services.mailer.rendering import Rendered, Renderer, RenderingFailed

LINKS = Links(b"s" * 32, "https://mail.lamps.example/mailer")

COLUMN = "<mjml><mj-body><mj-section><mj-column><mj-text>{}</mj-text></mj-column></mj-section></mj-body></mjml>"

WITH_A_LINK = Renderer(playbook(html='<a href="https://x.example/{{ trigger.x }}">x</a>', text=""), LINKS)


def rendered(*, asked: dict[str, object] | None = None, **files: object) -> Rendered:
    return Renderer(playbook(**files), LINKS).render(request(**(asked or {})))  # type: ignore[arg-type]


def test_variables_are_those_of_the_language() -> None:
    names = (
        "{{ traits.first_name }}|{{ customer.stage }}|{{ trigger.total }}|{{ key }}|{{ code }}|{{ brand.name }}|"
        "{{ urls.shop }}|{{ message.topic }}|{{ message.name }}|{{ brand.postal_address }}"
    )
    mail = rendered(subject=names, asked={"trigger": {"total": 12.5}, "given": {"code": "X1", "key": "not this"}})
    assert mail.subject == (
        "Anna|convert|12.5|c1|X1|Lamps & Co|https://lamps.example/|Cart reminders|cart-reminder|Storgata 1, 0155 Oslo"
    )


def test_what_customers_say_is_never_markup() -> None:
    mail = rendered(
        html="<p title='{{ traits.first_name }}'>{{ traits.first_name }}</p>",
        asked={"traits": {"first_name": "<script>'\""}},
    )
    assert "<script>" not in mail.html
    assert "&lt;script&gt;&#39;&#34;" in mail.html


def test_what_is_missing_prints_as_nothing() -> None:
    mail = rendered(subject="x{{ traits.a.b.c }}{{ trigger.items[3].name }}{{ key.of.nothing }}y")
    assert mail.subject == "xy"


def test_subject_is_one_line() -> None:
    mail = rendered(subject="\n Anna,\n  {{ trigger.x }}\n", asked={"trigger": {"x": "a\r\nBcc: b"}})
    assert mail.subject == "Anna, a Bcc: b"


def test_empty_subject_fails() -> None:
    with pytest.raises(RenderingFailed, match="the subject is empty"):
        rendered(subject="{{ trigger.nothing }}")


# Links.


def test_links_in_html_and_text_lead_through_us_and_share_their_targets() -> None:
    mail = rendered(
        html='<a href="{{ urls.shop }}">shop</a> <a href="https://x.example/?a=1&amp;b={{ traits.first_name }}">x</a>',
        text="Shop: {{ urls.shop }}. And (https://other.example/a).\n",
    )
    assert mail.links == ("https://lamps.example/", "https://x.example/?a=1&b=Anna", "https://other.example/a")
    found = re.findall(r'href="([^"]+)"', mail.html)
    assert [LINKS.read(url.rpartition("/")[2]) for url in found] == [Click(request().id, 0), Click(request().id, 1)]
    assert mail.text == f"Shop: {LINKS.click(request().id, 0)}. And ({LINKS.click(request().id, 2)}).\n"


def test_unsubscribing_is_not_a_click() -> None:
    mail = rendered(html='<a href="{{ unsubscribe_url }}">no</a>', text="{{ unsubscribe_url }}\n")
    assert mail.links == ()
    assert f'href="{mail.unsubscribe_url}"' in mail.html
    assert mail.text == mail.unsubscribe_url + "\n"


@pytest.mark.parametrize(
    ("href", "expected"),
    [
        ("mailto:a@b.example", "mailto:a@b.example"),
        ("tel:+47 1234", "tel:+47 1234"),
        ("#top", "#top"),
        ("javascript:alert(1)", "#"),
        ("JaVaScRiPt:alert(1)", "#"),
        ("data:text/html,x", "#"),
        (" vbscript:x", "#"),
        ("", "#"),
    ],
)
def test_links_that_an_event_brings_cannot_run_anything(href: str, expected: str) -> None:
    mail = rendered(html='<a href="{{ trigger.url }}">x</a>', text="", asked={"trigger": {"url": href}})
    assert f'<a href="{expected}">' in mail.html
    assert mail.links == ()


def test_targets_hold_no_line_ends() -> None:
    mail = rendered(
        html='<a href="{{ trigger.url }}">x</a>', text="", asked={"trigger": {"url": "https://x.example/a\r\nb c\0"}}
    )
    assert mail.links == ("https://x.example/ab%20c",)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_whatever_a_link_holds_stays_inside_its_attribute(text: str) -> None:
    mail = WITH_A_LINK.render(request(trigger={"x": text}))
    body = mail.html[mail.html.index("<body>") :]
    assert re.fullmatch(r'<body><a href="[^"<>]*">x</a><img src="[^"<>]*"[^<>]*></body></html>', body)
    assert len(mail.links) <= 1


# Opens.


def test_a_mail_tells_when_it_is_opened_by_an_image_at_its_end_and_its_text_does_not() -> None:
    for html in ("<body><p>Hello</p></body>", "<p>Hello</p>"):
        mail = rendered(html=html, text=None)
        (image,) = re.findall(r"<img[^>]*>(?=\s*(?:</body></html>)?\s*$)", mail.html)
        assert 'width="1" height="1" alt=""' in image
        assert LINKS.read(re.findall(r'src="([^"]+)"', image)[0].rpartition("/")[2]) == Open(request().id)
        assert mail.text == "Hello\n"
        assert mail.links == ()


def test_a_playbook_may_leave_opens_untracked() -> None:
    book = playbook()
    untracked = replace(book, brand=replace(book.brand, opens="untracked"))
    mail = Renderer(untracked, LINKS).render(request())
    assert "<img" not in mail.html
    assert "/o/" not in mail.html


# Languages.


def test_files_fall_back_one_by_one() -> None:
    files = {
        "nb": {"subject.txt": "Du glemte noe", "body.html": "<p>Kom tilbake</p>"},
        "nb-NO": {"subject.txt": "Du har gløymt noko"},
        "de": {"subject.txt": "Vergessen"},
    }
    mail = rendered(locales=files, asked={"locale": "nb_NO"})
    assert mail.subject == "Du har gløymt noko"
    assert "Kom tilbake" in mail.html
    assert "Kom tilbake" in mail.text  # and not the text part of another language
    assert mail.locale == "nb-NO"
    assert rendered(locales=files, asked={"locale": "nb"}).subject == "Du glemte noe"
    german = rendered(locales=files, asked={"locale": "de-AT"})
    assert german.subject == "Vergessen"
    assert "back" in german.html
    assert german.locale == "en"
    assert rendered(locales=files, asked={"locale": "fr"}).subject == "You forgot something"
    assert rendered(locales=files, brand_locale="nb", asked={"locale": "fr"}).subject == "Du glemte noe"


def test_money_and_dates_are_written_as_the_text_around_them() -> None:
    words = "{{ trigger.total | money }} / {{ trigger.total | money('EUR') }} / {{ trigger.at | date }}"
    files = {"nb": {"subject.txt": words, "body.html": "x"}}
    trigger = {"total": 1234.5, "at": "2026-03-02T23:30:00Z"}
    english = rendered(subject=words, locales=files, asked={"trigger": trigger, "timezone": "America/New_York"})
    assert english.subject == "kr\u00a01,234.50 / €1,234.50 / 2 March 2026"
    norwegian = rendered(subject=words, locales=files, asked={"trigger": trigger, "locale": "nb-NO"})
    assert norwegian.subject == "1\u00a0234,50\u00a0kr / 1\u00a0234,50\u00a0€ / 3. mars 2026"


# Templates that fail.


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"subject": "x\n{{ traits.x | nosuch }}"}, r"subject.txt:2: No filter named 'nosuch'"),
        ({"text": "a\nb\n{% if %}"}, r"body.txt:3: "),
        ({"html": "<p>\n\n{% for x in y %}</p>"}, r"body.html:\d: "),
        (
            {"html": "<p>\n\n{{ trigger }}</p>", "asked": {"trigger": {"a": 1}}},
            r"body.html:3: an object cannot be printed",
        ),
        ({"mjml": "<mjml><mj-body>\n<mj-txt/>\n</mj-body></mjml>"}, r"body.mjml:2: <mj-txt> is no element of MJML"),
        (
            {
                "mjml": COLUMN.format("\n\n{{ key\n~ trigger }}"),
                "asked": {"trigger": {"a": 1}},
            },
            r"body.mjml:[34]: an object",
        ),
    ],
)
def test_failures_name_file_and_line(files: dict[str, object], said: str) -> None:
    with pytest.raises(RenderingFailed, match=r"^messages/cart-reminder/" + said):
        rendered(**files)  # type: ignore[arg-type]


def test_failures_of_a_translation_name_its_file() -> None:
    with pytest.raises(RenderingFailed, match=r"^messages/cart-reminder/nb/subject.txt:1: "):
        rendered(locales={"nb": {"subject.txt": "{{ x"}}, asked={"locale": "nb"})


def test_message_that_is_gone_fails() -> None:
    with pytest.raises(RenderingFailed, match="messages/gone: this message is not in the playbook any more"):
        rendered(asked={"message": "gone"})


def test_languages_of_customers_do_not_fill_the_memory() -> None:
    renderer = Renderer(playbook(), LINKS)
    for n in range(50):
        renderer.render(request(locale=f"x{n}"))
    assert len(renderer._compiled) == 1


# The hidden line beside the subject.


def test_preheader_stands_first_and_hidden_and_escaped() -> None:
    mail = rendered(preheader="Less < more, {{ traits.first_name }}", asked={"traits": {"first_name": "<A>"}})
    assert re.search(r"<body[^>]*><div style=\"[^\"]*display:\s*none[^\"]*\">Less &lt; more, &lt;A&gt; ", mail.html)
    assert "Less" not in rendered(text=None, preheader="Less").text
