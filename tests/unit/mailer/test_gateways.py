"""Text messages and notifications: where they go, what they say, and what keeps them back."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from mailer_cases import NOON, asked, reader, said, topic
from mailer_playbook import brand, playbook, request
from msgspec.structs import replace

from services.mailer.composing import Composer, short
from services.mailer.consent import destination
from services.mailer.links import Links
from services.mailer.outcomes import Ended, after, event
from services.mailer.policy import Deliver, Skip, decide
from services.mailer.rendering import Renderer, RenderingFailed
from services.mailer.transport import Unknown
from services.mailer.turn import Candidate
from shared.contracts.messages import PUSH, SMS, MessageRequested
from shared.language.playbook import Cap, Playbook

DAY = timedelta(days=1)
LINKS = Links(b"s" * 32, "https://mail.lamps.example/mailer")


def by(channel: str, **traits: object) -> MessageRequested:
    return msgspec.structs.replace(request(traits={"first_name": "Anna", **traits}), channel=channel)


def words(own: dict[str, str], norwegian: dict[str, str] | None = None) -> Playbook:
    book = playbook()
    files = {"": own, **({"nb": norwegian} if norwegian else {})}
    return replace(book, messages={"cart-reminder": replace(book.messages["cart-reminder"], files=files)})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("+47 400 00-000", "+4740000000"),
        ("+1 (415) 555.2671", "+14155552671"),
        ("40000000", None),
        ("0047 40000000", None),
        ("+47", None),
        ("+4740000000;ext=1", None),
        (4740000000, None),
    ],
)
def test_a_number_has_one_form_and_says_its_country(given: object, kept: str | None) -> None:
    assert destination(by(SMS, phone=given), "anna@example.org") == (kept, True)


def test_a_notification_goes_to_the_token_and_nobody_is_reached_without() -> None:
    assert destination(by(PUSH, push_token="abc:DEF"), None) == ("abc:DEF", True)
    assert destination(by(PUSH, push_token="a\nb"), None) == (None, True)
    assert destination(by(PUSH), "anna@example.org") == (None, False)
    assert destination(by(SMS, phone=""), "anna@example.org") == (None, False)


def test_the_gateway_is_told_whom_to_send_what() -> None:
    book = words({"sms.txt": "Hei <{{ traits.first_name }}>, your cart: {{ urls.shop }}\n"})
    mail = Composer(LINKS)(book, by(SMS, phone="+47 40000000"), NOON)
    assert msgspec.json.decode(mail.data) == {
        "channel": "sms",
        "to": "+4740000000",
        "text": "Hei <Anna>, your cart: https://lamps.example/",
        "message_id": mail.request.id,
        "customer": "anna",
    }
    assert mail.links == ()


@pytest.mark.parametrize("address", ["JavaScript:alert(1)", "java\tscript:alert(1)", "\x01javascript:alert(1)"])
def test_a_notification_is_taken_from_one_language_and_leads_nowhere_that_would_run(address: str) -> None:
    own = {"push.title": "Your cart", "push.body": "Waits.", "push.url": "lamps://cart"}
    book = words(own, {"push.title": "Kurven din", "push.body": "Venter.", "push.url": "{{ trigger.at }}"})
    asked = by(PUSH, push_token="t")
    assert short(Renderer(book, LINKS), asked).rendered.text == "Your cart\nWaits.\nlamps://cart"
    trigger = {**asked.data, "trigger": {"at": address}}
    norwegian = Renderer(book, LINKS).short(msgspec.structs.replace(asked, locale="nb-NO", data=trigger))
    assert norwegian.said == {"title": "Kurven din", "body": "Venter.", "url": ""}


def test_a_text_without_words_and_a_message_without_one_fail() -> None:
    with pytest.raises(RenderingFailed, match=r"messages/cart-reminder/sms\.txt:1: its text is empty"):
        Renderer(words({"sms.txt": "{{ trigger.x }}"}), LINKS).short(by(SMS))
    with pytest.raises(RenderingFailed, match=r"there is no push\.yaml"):
        Renderer(words({"sms.txt": "Hello"}), LINKS).short(by(PUSH))


def test_without_a_gateway_a_message_is_skipped() -> None:
    assert decide(asked(), topic(), brand(), reader(), NOON, there=False) == Skip("no_channel")


def test_caps_are_counted_for_each_channel() -> None:
    full = brand(caps=[Cap(1, DAY, SMS)])
    known = reader(counted=[NOON - timedelta(hours=1)])
    assert decide(asked(), topic(), full, known, NOON) == Deliver(counts=True)
    held = decide(msgspec.structs.replace(asked(), channel=SMS), topic(), full, known, NOON)
    assert not isinstance(held, Deliver)


def test_what_a_customer_and_a_number_said_counts_by_its_time() -> None:
    no, yes = said(False, at=NOON), said(True, at=NOON + DAY)
    candidate = Candidate("m1", NOON, 0, None, by(SMS), None, {no.topic: no})
    assert candidate.said({}) == {no.topic: no}
    assert candidate.said({yes.topic: yes}) == {yes.topic: yes}


def test_an_answer_that_is_lost_is_asked_for_again_since_the_gateway_knows_the_id() -> None:
    again = after(Unknown("interrupted"), by(SMS), 1, "", timedelta(minutes=1), NOON - DAY)
    assert not isinstance(again, Ended)


@pytest.mark.parametrize(("channel", "name"), [(SMS, "SMS Sent"), (PUSH, "Push Notification Sent")])
def test_what_went_out_is_reported_by_channel(channel: str, name: str) -> None:
    assert event(by(channel), Ended("sent"), NOON, NOON).name == name
