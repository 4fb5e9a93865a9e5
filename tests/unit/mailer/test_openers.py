"""Who fetched the image of a mail. User agents as they were seen; where, the module says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.mailer.openers import clicked_by, opened_by

DELIVERED = datetime(2026, 3, 2, 12, tzinfo=UTC)
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.4 Mobile/15E148 Safari/604.1"
)
OUTLOOK = (
    "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; Win64; x64; Trident/7.0; .NET4.0C; Microsoft Outlook 16.0)"
)
GMAIL_PROXY = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
YAHOO_PROXY = "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html"
GMAIL_LOOKING = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/42.0.2311.135 Safari/537.36 Edge/12.246 Mozilla/5.0"
)
EDGE_OF_2015 = GMAIL_LOOKING.removesuffix(" Mozilla/5.0")
APPLE_MAIL = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
CUBOT = "Mozilla/5.0 (Linux; Android 11; CUBOT X50) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120 Mobile Safari/537"


@pytest.mark.parametrize("agent", [SAFARI, OUTLOOK, GMAIL_PROXY, YAHOO_PROXY, EDGE_OF_2015, APPLE_MAIL, CUBOT])
def test_people_read_mail_in_programs_and_through_proxies(agent: str) -> None:
    opener = opened_by(agent, DELIVERED, DELIVERED + timedelta(minutes=3))
    assert (opener.machine, opener.reason, opener.has_it) == (False, "", True)


@pytest.mark.parametrize(
    ("agent", "reason"),
    [
        ("Mozilla/5.0", "apple_privacy"),
        (GMAIL_LOOKING, "gmail_prefetch"),
        ("", "scanner"),
        ("Barracuda Sentinel (EE)", "scanner"),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "scanner"),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Microsoft Office Existence Discovery",
            "scanner",
        ),
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/124.0 Safari/537.36", "scanner"),
        ("python-requests/2.26.0", "scanner"),
        ("Python/3.9 aiohttp/3.8.1", "scanner"),
        ("okhttp/4.10.0", "scanner"),
        ("curl/8.5.0", "scanner"),
    ],
)
def test_machines_say_what_they_are_however_long_after_delivery(agent: str, reason: str) -> None:
    opener = opened_by(agent, DELIVERED, DELIVERED + timedelta(days=2))
    assert (opener.machine, opener.reason) == (True, reason)


def test_nobody_opens_a_mail_within_seconds_of_its_delivery() -> None:
    assert opened_by(SAFARI, DELIVERED, DELIVERED + timedelta(seconds=9)).reason == "at_once"
    assert opened_by(SAFARI, DELIVERED, DELIVERED + timedelta(seconds=10)).machine is False
    # The mail server has not even said yes.
    assert opened_by(SAFARI, None, DELIVERED).reason == "at_once"


def test_what_fetches_on_the_readers_device_has_the_mail_and_a_scanner_may_not() -> None:
    later = DELIVERED + timedelta(hours=1)
    assert [opened_by(agent, DELIVERED, later).has_it for agent in ("Mozilla/5.0", GMAIL_LOOKING)] == [True, True]
    assert opened_by("curl/8.5.0", DELIVERED, later).has_it is False
    assert opened_by(SAFARI, DELIVERED, DELIVERED).has_it is False


def test_whoever_follows_one_link_a_while_after_delivery_is_a_person() -> None:
    at = DELIVERED + timedelta(seconds=10)
    for agent in (SAFARI, OUTLOOK, CUBOT):
        assert clicked_by(agent, DELIVERED, at, ()).machine is False
    # They look at one thing, and then at another.
    assert clicked_by(SAFARI, DELIVERED, at, [at - timedelta(seconds=1), at + timedelta(seconds=1)]).machine is False


@pytest.mark.parametrize(
    ("agent", "seconds", "others", "reason"),
    [
        ("Barracuda Sentinel (EE)", 600, (), "scanner"),
        ("", 600, (), "scanner"),
        ("Mozilla/5.0", 600, (), "scanner"),
        (SAFARI, 9, (), "at_once"),
        (SAFARI, 600, (600.9,), "several_links"),
        (SAFARI, 600, (599.1,), "several_links"),
    ],
)
def test_scanners_follow_links_under_their_name_or_sooner_or_faster_than_people(
    agent: str, seconds: float, others: tuple[float, ...], reason: str
) -> None:
    at, *more = (DELIVERED + timedelta(seconds=each) for each in (seconds, *others))
    clicker = clicked_by(agent, DELIVERED, at, more)
    assert (clicker.machine, clicker.reason, clicker.has_it) == (True, reason, False)
    assert clicked_by(agent, None, at, ()).machine is True
