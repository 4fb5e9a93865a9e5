"""What every shop begins with must load without a word, and every mail of it must be fit to be read."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from html import unescape
from html.parser import HTMLParser

import pytest
from shipped_cases import (
    BASKETS,
    CART,
    CART_MAILS,
    JOURNEYS,
    ORDER,
    PLAYBOOK,
    READERS,
    THANKS,
    mailed,
)

from services.demo import ledger
from services.demo.shop import CONSENTED
from services.mailer.transport import Mail
from shared.language import SHIPPED, check, read_folder
from shared.language.playbook import Email

MESSAGES = tuple(JOURNEYS)
every_mail = pytest.mark.parametrize("message", MESSAGES)
every_basket = pytest.mark.parametrize("basket", BASKETS)
every_reader = pytest.mark.parametrize("reader", READERS)


def parsed(mail: Mail) -> EmailMessage:
    found = message_from_bytes(mail.data, policy=policy.default)
    assert isinstance(found, EmailMessage)
    assert not found.defects
    return found


class _Page(HTMLParser):
    """The words that a mail program shows, the pictures, the links, and the text that is hidden."""

    _VOID = frozenset({"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "wbr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.hidden: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.language: str | None = None
        self.headings = 0
        self.rows: list[int] = []
        self._open: list[tuple[str, bool]] = []
        self._goods: int | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "html":
            self.language = named.get("lang")
        elif tag == "img":
            self.pictures.append(named)
        elif tag == "a":
            self.links.append(named.get("href") or "")
        elif tag == "h1":
            self.headings += 1
        if tag in ("th", "td") and self._goods is not None:
            self.rows[-1] += int(named.get("colspan") or 1)
        if tag == "tr" and self._goods is not None:
            self.rows.append(0)
        if tag in self._VOID:
            return
        if tag == "td" and named.get("class") == "goods":
            self._goods = len(self._open)
        hidden = tag in ("style", "title") or "display:none" in (named.get("style") or "").replace(" ", "")
        self._open.append((tag, hidden or (bool(self._open) and self._open[-1][1])))

    def handle_endtag(self, tag: str) -> None:
        if tag in self._VOID:
            return
        assert self._open.pop()[0] == tag
        if self._goods is not None and len(self._open) == self._goods:
            self._goods = None

    def handle_data(self, data: str) -> None:
        if data.strip():
            into = self.hidden if self._open and self._open[-1][1] else self.words
            into.append(data)

    @property
    def shown(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_shipped_playbook_has_no_problem_and_no_warning() -> None:
    assert [str(problem) for problem in check(read_folder(SHIPPED))] == []


def test_it_has_what_every_shop_begins_with() -> None:
    assert [stage.name for stage in PLAYBOOK.stages] == ["delight", "retain", "convert", "attract"]
    assert len(PLAYBOOK.segments) == 6
    assert set(PLAYBOOK.journeys) == {"abandoned-cart", "birthday", "thank-you"}
    assert set(PLAYBOOK.messages) == set(MESSAGES)


def test_every_journey_is_live_and_every_message_is_sent_by_one() -> None:
    assert {journey.status for journey in PLAYBOOK.journeys.values()} == {"live"}
    sent = {
        (step.message, name)
        for name, journey in PLAYBOOK.journeys.items()
        for step in journey.steps.values()
        if isinstance(step, Email)
    }
    assert sent == set(JOURNEYS.items())


def test_nobody_is_advertised_to_who_did_not_ask_for_it() -> None:
    promotional = [topic for topic in PLAYBOOK.topics.values() if topic.kind == "promotional"]
    assert {topic.default for topic in promotional} == {"opt_in"}
    assert all(topic.description for topic in PLAYBOOK.topics.values())


def test_the_demonstrations_customers_say_yes_to_every_topic_that_is_mailed() -> None:
    assert {journey.topic for journey in PLAYBOOK.journeys.values()} == set(CONSENTED)


def test_a_held_mail_outlives_the_quiet_hours() -> None:
    quiet = PLAYBOOK.brand.quiet_hours
    assert quiet is not None
    hours = (quiet.end.hour - quiet.start.hour) % 24
    for name in ("abandoned-cart", "thank-you"):
        for step in PLAYBOOK.journeys[name].steps.values():
            assert not isinstance(step, Email) or step.expires.total_seconds() > hours * 3600


@every_mail
@every_basket
@every_reader
def test_every_mail_can_be_made_of_what_shops_send(message: str, basket: str, reader: str) -> None:
    mail = mailed(message, basket, reader)
    made = mail.rendered
    for part in (made.subject, made.html, made.text):
        assert not re.search(r"\{[%{#]|[%#}]\}", part.replace("{{ 7 * 7 }}", "")), "unrendered Jinja"
        assert not re.search(r"\b(None|Undefined|nan|Decimal)\b", part)
    assert max(map(len, mail.data.split(b"\r\n"))) <= 998
    for brackets in ("< b>", "<script", "javascript:"):
        assert brackets not in made.html


@every_mail
@every_basket
@every_reader
def test_text_part_reads_as_if_somebody_had_typed_it(message: str, basket: str, reader: str) -> None:
    text = mailed(message, basket, reader).rendered.text
    lines = text.splitlines()
    assert "\n\n\n" not in text
    assert lines[0]
    assert lines[-1]
    assert text.endswith("\n")
    assert all(line == line.rstrip() or line == "-- " for line in lines)
    for end in (",", ":", ": ", "- "):
        assert end.strip() not in lines, "a mark that stands alone"
    prose = [line for line in lines if not line.startswith("- ") and "http" not in line]
    if reader != "wicked":
        assert all(len(line) <= 76 for line in prose)
        assert not re.search(r"</?[a-z]+[ >]", text.replace('<b>"{{ 7 * 7 }}"</b>', "")), "html in a text part"
    assert "&amp;" not in text
    assert "&#" not in text


@every_mail
@every_reader
def test_html_is_fit_for_eyes_ears_and_phones(message: str, reader: str) -> None:
    html = mailed(message, "pictures", reader).rendered.html
    page = _Page(html)
    assert page.language == ("nb" if (message, reader) == ("cart-reminder", "norwegian") else "en")
    assert page.headings == 1
    assert all("alt" in picture and picture.get("width") for picture in page.pictures)
    assert 'name="viewport"' in html
    assert "@media (max-width: 480px)" in html
    assert "prefers-color-scheme: dark" in html
    assert not re.search("<link|@import", html), "fetched from elsewhere"
    assert len(html.encode()) < 102_000, "Gmail cuts off what is longer"


@every_mail
def test_preheader_comes_first_and_stays_hidden(message: str) -> None:
    page = _Page(mailed(message).rendered.html)
    [preheader] = [text.split("\u034f")[0].strip() for text in page.hidden if "\u034f" in text]
    assert 30 <= len(preheader) <= 90
    assert preheader not in page.shown
    assert preheader not in mailed(message).rendered.text


@every_mail
@every_reader
def test_subject_is_short_enough_for_a_phone(message: str, reader: str) -> None:
    subject = mailed(message, reader=reader).rendered.subject
    if reader != "wicked":
        assert 10 <= len(subject) <= 60
    assert "\r" not in subject
    assert "\n" not in subject
    assert not subject.endswith((".", ",", "!"))
    assert subject[0].isupper()


@pytest.mark.parametrize("message", CART_MAILS)
@pytest.mark.parametrize("reader", ["english", "norwegian"])
def test_cart_mails_name_the_cart_and_lead_to_it(message: str, reader: str) -> None:
    mail = mailed(message, reader=reader)
    assert CART in _Page(mail.rendered.html).shown
    assert CART in mail.rendered.text
    assert f"https://lamps.example/cart?id={CART}" in mail.links
    assert ledger.arrived(mail.data) == ("ada@example.com", message, CART)


@pytest.mark.parametrize("message", THANKS)
def test_thanks_name_the_order_and_lead_to_it(message: str) -> None:
    mail = mailed(message)
    assert ORDER in _Page(mail.rendered.html).shown
    assert ORDER in mail.rendered.text
    assert f"https://lamps.example/account?order={ORDER}" in mail.links
    assert ledger.arrived(mail.data) == ("ada@example.com", message, ORDER)


def test_a_birthday_is_about_no_cart() -> None:
    assert ledger.arrived(mailed("birthday").data) == ("ada@example.com", "birthday", "2026")


@every_mail
@every_reader
def test_who_has_enough_of_it_can_leave_and_knows_who_writes(message: str, reader: str) -> None:
    made = mailed(message, reader=reader).rendered
    page = _Page(made.html)
    assert made.unsubscribe_url in page.links
    assert made.unsubscribe_url in made.text.splitlines()
    assert PLAYBOOK.brand.postal_address in page.shown
    assert PLAYBOOK.brand.postal_address in made.text


@pytest.mark.parametrize("message", [*CART_MAILS, *THANKS])
def test_what_was_chosen_is_listed_with_its_price(message: str) -> None:
    made = mailed(message).rendered
    shown = _Page(made.html).shown
    for written in ("Lantern Nord £89.00", "Filament bulb G95 Amber 3 × £19.50 £58.50", "Total £146.50"):
        assert written in shown
    for line in ("- Lantern Nord: £89.00", "- 3 × Filament bulb G95 (Amber): £58.50", "Total: £146.50"):
        assert line in made.text.splitlines()


@pytest.mark.parametrize("message", [*CART_MAILS, *THANKS])
@every_basket
def test_the_rows_of_a_list_have_the_same_columns(message: str, basket: str) -> None:
    rows = _Page(mailed(message, basket, shipping=9.5, discount="5").rendered.html).rows
    assert set(rows) == (set() if basket in ("empty", "untold") else {3} if basket == "pictures" else {2})


@pytest.mark.parametrize("message", [*CART_MAILS, *THANKS])
def test_prices_that_come_as_text_are_prices(message: str) -> None:
    assert "- 2 × Reading lamp: £359.80" in mailed(message, "pictures").rendered.text.splitlines()


@pytest.mark.parametrize("message", [*CART_MAILS, *THANKS])
def test_a_product_without_a_name_is_called_by_its_number(message: str) -> None:
    lines = mailed(message, "odd").rendered.text.splitlines()
    assert "- shade-01: £39.00" in lines
    assert "- cable-3m" in lines


@pytest.mark.parametrize("message", [*CART_MAILS, *THANKS])
def test_a_long_list_is_cut_short_and_says_so(message: str) -> None:
    made = mailed(message, "many").rendered
    assert made.text.count("Lantern Nord") == 4
    assert "and 32 more" in made.text
    assert "and 32 more" in _Page(made.html).shown


@pytest.mark.parametrize("message", THANKS)
def test_delivery_and_discount_explain_the_total(message: str) -> None:
    made = mailed(message, shipping=9.5, discount=5).rendered
    assert "Discount: −£5.00\nDelivery: £9.50\nTotal: £146.50\n" in made.text
    assert "Discount −£5.00 Delivery £9.50 Total £146.50" in _Page(made.html).shown
    without = mailed(message, shipping=0).rendered
    assert "Delivery" not in without.text
    assert "Delivery" not in without.html


@every_mail
def test_a_customer_without_a_name_is_greeted_all_the_same(message: str) -> None:
    made = mailed(message, reader="unknown").rendered
    assert "Dear ," not in made.text
    assert ", ." not in made.subject
    assert " ," not in made.subject
    assert made.text.startswith("Happy birthday!" if message == "birthday" else "Hello,\n\n")


@every_mail
def test_the_name_may_be_written_as_segments_libraries_do(message: str) -> None:
    made = mailed(message, reader="norwegian").rendered
    assert "Oda" in made.subject
    assert "Oda" in made.text
    assert "Oda" in made.html


def test_a_norwegian_reads_norwegian_in_every_part() -> None:
    mail = mailed("cart-reminder", reader="norwegian")
    assert mail.rendered.subject == "Du lot lyset stå på, Oda"
    assert mail.rendered.text.startswith("Kjære Oda,")
    assert "- 3 × Filament bulb G95 (Amber): 58,50\u00a0kr" in mail.rendered.text
    assert "Lantern Nord ligger fortsatt i handlekurven. Det haster ikke." in mail.rendered.html
    assert not re.search(r"\b(your|cart|you|the)\b", _Page(mail.rendered.html).shown.replace(CART, ""))
    assert parsed(mail)["Content-Language"] == "nb-NO"


def test_the_birthday_sells_nothing() -> None:
    for stage in ("attract", "convert", "retain", "delight"):
        made = mailed("birthday", stage=stage).rendered
        assert made.links == ("https://lamps.example",)
        assert ("our lamps be part of your evenings" in made.text) == (stage in ("retain", "delight"))


def test_all_mails_look_alike() -> None:
    # There are no includes, so each file has the whole look; whoever changes one has to change all.
    heads = set()
    for message in PLAYBOOK.messages.values():
        for files in message.files.values():
            head = re.search(r"<mj-attributes>.*</mj-style>", files["body.mjml"], re.DOTALL)
            assert head is not None
            heads.add(head[0])
    assert len(heads) == 1


def test_colours_can_be_told_apart() -> None:
    # WCAG 2.2, 1.4.3: 4.5:1 for text. Pairs as the mails use them, in light and in dark.
    head = PLAYBOOK.messages["birthday"].files[""]["body.mjml"]
    pairs = [
        *(("#2b2622", "#ffffff"), ("#1d1916", "#ffffff"), ("#1d1916", "#e6b96a"), ("#665c52", "#ffffff")),
        *(("#665c52", "#f4efe8"), ("#7d4f1f", "#f4efe8"), ("#1f4d46", "#ffffff"), ("#ffffff", "#1f4d46")),
        *(("#f2eae0", "#28221d"), ("#bdb0a1", "#28221d"), ("#bdb0a1", "#1c1815"), ("#e6b96a", "#1c1815")),
        ("#1c1815", "#e6b96a"),
    ]
    for text, ground in pairs:
        assert text in head
        assert ground in head
        assert _contrast(text, ground) >= 4.5, (text, ground)
    written = set(re.findall(r"(?<!-)color[:=] ?\"?(#[0-9a-f]{6})", head))
    assert written <= {text for text, _ in pairs}


def _contrast(one: str, other: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_both_parts_say_the_same() -> None:
    for message in MESSAGES:
        made = mailed(message).rendered
        [paragraph, *_] = [one for one in made.text.split("\n\n") if len(one) > 80]
        assert " ".join(paragraph.split()) in unescape(_Page(made.html).shown)
