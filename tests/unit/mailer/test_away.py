"""What the log says of those who do not take what they are given, and how much of what is for them may be in hand."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

from services.mailer.carriers import AWAY
from services.mailer.receivers import Receivers
from services.mailer.transport import THE_SERVER, Accepted, Deferred, receiver_of
from shared.contracts.messages import WEBHOOK, MessageRequested
from shared.telemetry import WAITING
from shared.trouble import Trouble

DOWN, YES = Deferred("no answer in time", "timeout"), Accepted("204")
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
BEGINS = ("calling webhooks waits", "dead.example:8443 timeout: no answer in time")


def receivers(lines: list[tuple[str, str]], patience_seconds: float = 3600.0, connections: int = 16) -> Receivers:
    logger = SimpleNamespace(warning=lambda line, **said: lines.append((line, said.get("error", ""))))
    return Receivers(Trouble(*AWAY[WEBHOOK], logger=logger, now=lambda: 0.0), connections, patience_seconds)


async def told(*receipts: tuple[str, Accepted | Deferred]) -> list[tuple[str, str]]:
    """What the log says, and of which error, when these receivers have given these receipts."""
    lines: list[tuple[str, str]] = []
    some = receivers(lines)
    for receiver, receipt in receipts:
        some.came_to(receiver, receipt)
    some.close()
    return lines


async def test_one_receiver_that_is_away_makes_one_line_however_many_others_answer() -> None:
    turns = [("dead.example:8443", DOWN), ("well.example", YES)] * 50
    assert await told(*turns) == [BEGINS]
    assert await told(*turns, ("dead.example:8443", YES)) == [BEGINS, ("calling webhooks goes on", "")]


async def test_a_receiver_that_fails_is_away_and_one_that_does_not_like_a_call_is_not() -> None:
    assert await told(("shop.example", Deferred("500 oh", "failing"))) == [
        ("calling webhooks waits", "shop.example failing: 500 oh")
    ]
    assert await told(("shop.example", Deferred("422 what", "deferred"))) == []


async def test_a_receiver_that_is_never_called_again_is_not_waited_for() -> None:
    lines: list[tuple[str, str]] = []
    some = receivers(lines, patience_seconds=0.01)
    some.came_to("dead.example:8443", DOWN)
    assert some.is_away("dead.example:8443")
    async with asyncio.timeout(20):
        while some.is_away("dead.example:8443"):
            await asyncio.sleep(0.01)
    assert lines == [BEGINS, ("calling webhooks waits no more", "")]
    assert WAITING.labels("calling webhooks")._value.get() == 0


def test_one_of_many_has_half_of_the_connections_and_half_of_what_may_be_in_hand() -> None:
    some = receivers([], connections=4)
    for _ in range(2):
        assert some.may_be_called("a.example")
        some.call("a.example")
    assert not some.may_be_called("a.example")
    assert some.may_be_called("b.example")
    some.hang_up("a.example")
    assert some.may_be_called("a.example")

    for left in (4, 3, 2):
        assert some.room("a.example", slots=8) == left
        some.take("a.example")
    assert some.room("b.example", slots=8) == 4
    some.let_go("a.example")
    assert some.room("a.example", slots=8) == 2


def test_a_mail_server_that_is_the_only_one_has_everything() -> None:
    some = receivers([], connections=1)
    some.call(THE_SERVER)
    some.take(THE_SERVER)
    assert some.may_be_called(THE_SERVER)
    assert some.room(THE_SERVER, slots=8) == 8


def test_a_receiver_is_a_host_and_its_port() -> None:
    assert {receiver_of(a_call(f"https://{url}")) for url in ("key@A.example:8443/x", "a.example:8443?y=/z")} == {
        "a.example:8443"
    }


def a_call(url: str) -> MessageRequested:
    return MessageRequested(
        as_of=NOON, id="w1", customer="anna", address=None, message="tell", topic="", journey="cart", enrollment="e1",
        step="tell", due=NOON, expires=NOON, channel=WEBHOOK, data={"url": url, "type": "tell", "key": "", "with": {}},
        v=2,
    )  # fmt: skip
