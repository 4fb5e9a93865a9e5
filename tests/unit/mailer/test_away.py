"""What the log says while those whom webhooks go to, or the gateways, do not take what they are given."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from services.mailer.carriers import AWAY, tell
from services.mailer.composing import call
from services.mailer.transport import Accepted, Deferred, Mail
from shared.contracts.messages import WEBHOOK, MessageRequested
from shared.trouble import Trouble

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def a_call(url: str) -> Mail:
    data = {"url": url, "type": "tell", "key": "c1", "with": {}}
    asked = MessageRequested(
        as_of=NOON, id="w1", customer="anna", address=None, message="tell", topic="", journey="cart", enrollment="e1",
        step="tell", due=NOON, expires=NOON + timedelta(hours=72), channel=WEBHOOK, data=data, v=2,
    )  # fmt: skip
    return call(asked)


def told(*receipts: tuple[str, Accepted | Deferred]) -> list[tuple[str, str]]:
    """What the log says, and of which error, when these receivers have given these receipts."""
    lines: list[tuple[str, str]] = []
    logger = SimpleNamespace(warning=lambda line, **said: lines.append((line, said.get("error", ""))))
    away = Trouble(*AWAY[WEBHOOK], logger=logger, now=lambda: 0.0)
    for url, receipt in receipts:
        tell(away, a_call(url), receipt)
    return lines


def test_one_receiver_that_is_away_makes_one_line_however_many_others_answer() -> None:
    dead, well = "https://key@dead.example:8443/hooks", "https://well.example/hooks"
    down, yes = Deferred("no answer in time", "timeout"), Accepted("204")
    turns = [(dead, down), (well, yes)] * 50
    begins = ("calling webhooks waits", "dead.example:8443 timeout: no answer in time")
    assert told(*turns) == [begins]
    assert told(*turns, (dead, yes)) == [begins, ("calling webhooks goes on", "")]


def test_a_receiver_that_fails_is_away_and_one_that_does_not_like_a_call_is_not() -> None:
    assert told(("https://shop.example", Deferred("500 oh", "failing"))) == [
        ("calling webhooks waits", "shop.example failing: 500 oh")
    ]
    assert told(("https://shop.example", Deferred("422 what", "deferred"))) == []
