"""Links of mails: what is signed comes back, what is not does not."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid5

from hypothesis import given, settings
from hypothesis import strategies as st

from services.mailer.links import _OCCURRENCES, Click, Links, Open, Unsubscribe, occurrence

LINKS = Links(b"secret" * 6, "https://mail.example/mailer/")
ids = st.uuids().map(str) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@settings(deadline=None)
@given(ids, st.integers(0, 65_535))
def test_a_link_says_what_it_was_made_of(id: str, number: int) -> None:
    assert LINKS.read(LINKS.click(id, number).removeprefix("https://mail.example/mailer/c/")) == Click(id, number)
    assert LINKS.read(LINKS.unsubscribe(id).removeprefix("https://mail.example/mailer/u/")) == Unsubscribe(id)
    assert LINKS.read(LINKS.open(id).removeprefix("https://mail.example/mailer/o/")) == Open(id)


@settings(deadline=None)
@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_nothing_else_is_a_link(token: str) -> None:
    assert LINKS.read(token) is None


TOKEN = LINKS.unsubscribe("5b1c0f6e-52f3-5c1e-8a53-0d6f7f4f2b6e").rpartition("/")[2]


@settings(deadline=None)
@given(st.integers(0, len(TOKEN)), st.text("aAbB09-_+/=.! \n", max_size=2), st.integers(0, 2))
def test_an_altered_link_is_none_however_little_was_altered(at: int, put: str, cut: int) -> None:
    altered = TOKEN[:at] + put + TOKEN[at + cut :]
    assert (LINKS.read(altered) is not None) is (altered == TOKEN)


def test_another_secret_reads_nothing() -> None:
    token = LINKS.click("5b1c0f6e-52f3-5c1e-8a53-0d6f7f4f2b6e", 3).rpartition("/")[2]
    assert LINKS.read(token) is not None
    assert Links(b"other" * 8, "https://mail.example").read(token) is None


def test_links_are_short_enough_for_a_line_of_text() -> None:
    assert len(LINKS.click("5b1c0f6e-52f3-5c1e-8a53-0d6f7f4f2b6e", 3).rpartition("/")[2]) <= 48


def test_using_a_link_is_one_event_in_a_minute() -> None:
    click = Click("m1", 0)
    at = [datetime(2026, 3, 2, 12, minute, second, tzinfo=UTC) for minute, second in ((0, 0), (0, 59), (1, 0))]
    first, again, later = (occurrence(click, "click", now) for now in at)
    assert first == again
    assert first != later
    assert first != occurrence(Click("m1", 1), "click", at[0])
    assert first != str(uuid5(_OCCURRENCES, ""))
