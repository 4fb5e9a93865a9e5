"""`rapport playbook preview`: a message with the data of a test, of a file, or of a customer."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.__main__ import app
from services.mailer.composing import Composer
from services.mailer.links import Links
from services.preview.reading import PUBLIC_URL, legible
from services.preview.sample import Sample, of_customer, sample, with_data
from shared.errors import RapportError
from shared.language import SHIPPED, load_with_tests, read_folder

FILES = read_folder(SHIPPED)
LOADED = load_with_tests(FILES)
UNTESTED = load_with_tests({name: content for name, content in FILES.items() if not name.endswith(".test.yaml")})
COMPOSE = Composer(Links(b"preview", PUBLIC_URL))


def text_of(found: Sample) -> str:
    return legible(COMPOSE(LOADED.playbook, found.request, found.request.due)).text


def test_a_message_is_shown_as_the_first_test_that_sends_it_has_it() -> None:
    found = sample(LOADED, "thank-you-again")
    assert found.origin.endswith(": a later order is thanked for otherwise")
    assert "That makes 2 orders by now." in text_of(found)
    assert "Dear Ada," in text_of(found)


@pytest.mark.parametrize("message", sorted(UNTESTED.playbook.messages))
def test_where_no_test_sends_it_the_data_is_made_up_from_the_catalogue(message: str) -> None:
    found = sample(UNTESTED, message)
    assert found.origin == "made up from the catalogue of events"
    assert "Dear Ada," in text_of(found) or "Ada!" in text_of(found)


def test_data_of_a_file_goes_before_the_sample() -> None:
    found = sample(LOADED, "cart-reminder").request
    changed = with_data(found, {"traits": {"first_name": "Olav"}, "locale": "nb-NO"})
    assert "Kjære Olav," in text_of(Sample(changed, ""))
    with pytest.raises(RapportError, match='"trait" is no data of a message'):
        with_data(found, {"trait": {}})
    with pytest.raises(RapportError, match='"traits" takes fields'):
        with_data(found, {"traits": "Olav"})


def test_a_customer_is_shown_with_the_latest_event_that_begins_the_journey() -> None:
    found = sample(LOADED, "cart-reminder").request
    row = {"name": "Cart Updated", "occurred_at": "2026-03-01T10:00:00Z"}
    row["properties"] = {"cart_id": "c9", "total": 7, "products": []}  # type: ignore[assignment]
    page = {
        "key": "4711",
        "address": "olav@example.com",
        "traits": {"first_name": "Olav"},
        "stage": "convert",
        "segments": [],
        "first_seen": None,
        "last_seen": None,
        "locale": "nb",
        "timezone": None,
        "timeline": {"rows": [{"name": "Product Viewed", "occurred_at": "", "properties": {}}, row]},
    }
    changed, told = of_customer(found, LOADED.playbook, page)
    assert told == "the trigger is Cart Updated of 2026-03-01T10:00:00Z"
    text = text_of(Sample(changed, ""))
    assert "Kjære Olav," in text
    assert "https://lamps.example/cart?id=c9" in text
    assert "Handlekurvens nummer: c9" in text


def test_what_a_step_gives_is_worked_out_for_a_customer_where_it_needs_no_history() -> None:
    files = dict(FILES)
    journey, body = "journeys/thank-you.yaml", "messages/thank-you-again/subject.txt"
    files[journey] = files[journey].replace(b"with: {orders:", b"with: {who: traits.first_name, orders:")
    files[body] = b"{{ who }}"
    book = load_with_tests(files)
    found = sample(book, "thank-you-again").request
    page = {
        "key": "olav",
        "traits": {"first_name": "Olav"},
        "stage": "retain",
        "segments": [],
        "locale": None,
        "timezone": None,
        "address": "olav@example.com",
        "first_seen": None,
        "last_seen": None,
        "timeline": {"rows": []},
    }
    changed, told = of_customer(found, book.playbook, page)
    assert changed.data["with"] == {**found.data["with"], "who": "Olav"}
    assert told == "the trigger is the sample's; orders is the sample's"


def test_the_command_prints_what_is_read_and_writes_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    shown = CliRunner().invoke(app, ["playbook", "preview", "cart-reminder", str(SHIPPED), "--html", str(page)])
    assert shown.exit_code == 0
    assert "Subject: You left a light on, Ada" in shown.output
    assert "https://lamps.example/cart" in page.read_text()
    assert "links.invalid/c/" not in page.read_text()


def test_a_message_that_there_is_not_is_told_with_the_one_that_was_meant() -> None:
    with pytest.raises(RapportError, match='there is no message "cart-remind"'):
        sample(LOADED, "cart-remind")
    shown = CliRunner().invoke(app, ["playbook", "preview", "cart-remind", str(SHIPPED)])
    assert shown.exit_code == 1
