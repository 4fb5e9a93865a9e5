"""A history through a playbook: what is reported, and how two playbooks compare."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from services.backtest.comparing import Comparison, compare, lines
from services.backtest.page import as_page
from services.backtest.reading import History
from services.backtest.simulation import Simulation, simulate
from services.backtest.tables import as_comparison, as_tables
from shared.language import load
from shared.language.playbook import Playbook

MONDAY = datetime(2026, 3, 2, 12, tzinfo=UTC)
JOURNEY = """
journey: cart
title: A forgotten cart
trigger: {event: Cart Updated, key: event.cart_id}
goal: {event: Order Completed, within: 7d}
defaults: {topic: reminders}
steps:
  - wait: 1h
  - email: reminder
  - wait: 1d
  - email: last-call
"""


def playbook(journey: str = JOURNEY, quiet: str = "21:00-08:00") -> Playbook:
    files = {
        "rapport.yaml": f"""
name: Lamps
sender: shop@lamps.example
postal_address: Light Street 1
timezone: UTC
carts: sent
quiet_hours: {quiet}
""",
        "stages.yaml": 'stages:\n  retain: count("Order Completed") >= 1\n  attract: "true"\n',
        "segments.yaml": "segments:\n  nordic: {title: North, when: 'traits.country == \"NO\"'}\n",
        "topics.yaml": "topics:\n  reminders: {title: Reminders, kind: promotional, default: opt_out}\n",
        "journeys/cart.yaml": journey,
    }
    for name in ("reminder", "last-call"):
        files[f"messages/{name}/subject.txt"] = "Hello"
        files[f"messages/{name}/body.html"] = '<a href="{{ unsubscribe_url }}">Stop</a>'
    files |= dict.fromkeys(("messages/note/sms.txt", "messages/note/push.yaml"), "title: A note\nbody: Come back")
    return load({name: text.encode() for name, text in files.items()})


class Shop:
    """What customers did, as lines of a file."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def says(self, hours: float, call: str, customer: str, **fields: Any) -> None:
        at = MONDAY + timedelta(hours=hours)
        message = {"type": call, "userId": customer, "timestamp": at.isoformat(), "messageId": f"m{len(self.lines)}"}
        self.lines.append(json.dumps({**message, **fields}))

    def knows(self, hours: float, customer: str, **traits: Any) -> None:
        self.says(hours, "identify", customer, traits={"email": f"{customer}@example.com", **traits})

    def cart(self, hours: float, customer: str, cart: str = "c1") -> None:
        self.says(hours, "track", customer, event="Cart Updated", properties={"cart_id": cart, "total": 50})

    def order(self, hours: float, customer: str) -> None:
        self.says(hours, "track", customer, event="Order Completed", properties={"order_id": "1", "total": 50})

    def file(self, folder: Path) -> Path:
        path = folder / "history.ndjson"
        path.write_text("\n".join(self.lines) + "\n")
        return path


@pytest.fixture
def shop() -> Shop:
    """Ann forgets her cart, ben buys within the hour, cai says no, and dot has no address."""
    shop = Shop()
    for customer in ("ann", "ben", "cai"):
        shop.knows(0, customer, country="NO", consent={"reminders": customer != "cai"})
    for customer in ("ann", "ben", "cai", "dot"):
        shop.cart(1, customer)
    shop.order(1.5, "ben")
    shop.says(80, "track", "eve", event="Product Viewed")
    return shop


def lived(folder: Path, shop: Shop, *playbooks: Playbook) -> list[Simulation]:
    return simulate(playbooks, [History(shop.file(folder))], lambda read: None)


def test_a_report_tells_who_entered_how_they_left_and_what_they_got(tmp_path: Path, shop: Shop) -> None:
    (simulation,) = lived(tmp_path, shop, playbook())
    report = simulation.report()
    (cart,) = report.journeys
    assert (report.events, report.customers, report.sent) == (9, 5, 2)
    assert (cart.entered, cart.customers, cart.sent, cart.goals) == (4, 4, 2, 1)
    assert cart.exits == {"completed": 3, "goal": 1}
    assert report.stages == {"retain": 1, "attract": 4}
    assert report.segments == {"nordic": 3}
    assert [(busy.customer, busy.messages) for busy in report.busiest] == [("ann", {"last-call": 1, "reminder": 1})]
    assert report.per_customer == {2: 1}


CHANNELS = (
    JOURNEY
    + """
  - sms: note
  - push: note
    id: app
  - webhook: {url: "https://shop.example/hook"}
"""
)


def test_text_messages_notifications_and_calls_are_counted_beside_mails(tmp_path: Path, shop: Shop) -> None:
    shop.knows(0, "ann", phone="+4790000000", push_token="device")
    (simulation,) = lived(tmp_path, shop, playbook(CHANNELS))
    report = simulation.report()
    assert report.channels == {"email": 2, "sms": 1, "push": 1, "webhook": 3}
    assert (report.sent, report.per_customer, report.busiest[0].sent) == (4, {4: 1}, 4)
    assert [(sends.message, sends.channel, sends.sent) for sends in report.messages] == [
        *(("last-call", "email", 1), ("note", "push", 1), ("note", "sms", 1), ("reminder", "email", 1)),
    ]
    told = "2 mails, 1 text message, 1 notification and 3 calls of webhooks"
    assert f"[bold]{told}[/] would have gone out" in str(next(iter(as_tables(report))))
    page = as_page(report, "shop")
    assert "<b>1</b><span>text message</span>" in page
    assert "<b>3</b><span>calls of webhooks</span>" in page
    beside = {line.name: (line.one, line.other) for line in lines(compared(tmp_path, shop, playbook(CHANNELS)))}
    assert (beside["mails sent"], beside["text messages sent"]) == ((2, 2), (0, 1))
    assert beside["calls of webhooks sent"] == (0, 3)


def test_sends_are_told_by_day_and_hour_of_the_brand_and_holds_by_reason(tmp_path: Path, shop: Shop) -> None:
    shop.lines.clear()
    shop.knows(0, "ann")
    shop.cart(8.5, "ann")  # at 20:30: due at 21:30, held until 08:00
    shop.says(80, "track", "eve", event="Product Viewed")
    (simulation,) = lived(tmp_path, shop, playbook())
    report = simulation.report()
    reminder = next(sends for sends in report.messages if sends.message == "reminder")
    assert reminder.held == {"quiet_hours": 1}
    assert report.per_day == {date(2026, 3, 3): {"cart": 1}, date(2026, 3, 4): {"cart": 1}}
    assert report.per_hour[1][8] == report.per_hour[2][8] == 1


def test_what_was_skipped_is_told_by_its_reason(tmp_path: Path, shop: Shop) -> None:
    (simulation,) = lived(tmp_path, shop, playbook())
    skipped = {sends.message: sends.skipped for sends in simulation.report().messages}
    assert skipped["reminder"]["no_address"] == 1
    assert skipped["reminder"]["unsubscribed"] == 1


def test_who_is_inside_at_the_end_is_told_by_step(tmp_path: Path, shop: Shop) -> None:
    shop.lines.pop()
    (simulation,) = lived(tmp_path, shop, playbook())
    (cart,) = simulation.report().journeys
    assert cart.inside == {"wait-1h": 3}


def test_bad_lines_and_repetitions_are_counted_and_change_nothing(tmp_path: Path, shop: Shop) -> None:
    without = lived(tmp_path, shop, playbook())[0].report()
    shop.lines[3:3] = ["nonsense", shop.lines[2]]
    report = lived(tmp_path, shop, playbook())[0].report()
    assert report.duplicates == 1
    assert [(one.code, one.count, one.places) for one in report.refused] == [
        ("invalid_json", 1, [f"{tmp_path}/history.ndjson:4"])
    ]
    assert report.journeys == without.journeys


def test_unsorted_history_gives_the_same_report(tmp_path: Path, shop: Shop) -> None:
    in_order = lived(tmp_path, shop, playbook())[0].report()
    shop.lines.reverse()
    assert lived(tmp_path, shop, playbook())[0].report().journeys == in_order.journeys


def test_what_rapport_itself_reported_comes_about_anew(tmp_path: Path, shop: Shop) -> None:
    before = lived(tmp_path, shop, playbook())[0].report()
    metadata = {"rapport_source": "rapport/mailer"}
    shop.says(80, "track", "ann", event="Email Sent", properties={"message_id": "x"}, _metadata=metadata)
    assert lived(tmp_path, shop, playbook())[0].report().events == before.events


def test_an_empty_history_gives_an_empty_report(tmp_path: Path) -> None:
    report = lived(tmp_path, Shop(), playbook())[0].report()
    assert (report.events, report.sent, report.begin) == (0, 0, None)
    assert "no event" in as_page(report, "shop")
    assert list(as_tables(report))


def compared(folder: Path, shop: Shop, other: Playbook) -> Comparison:
    one, two = lived(folder, shop, playbook(), other)
    return compare(one.findings, one.report(), two.findings, two.report())


def test_a_playbook_compared_with_itself_differs_for_nobody(tmp_path: Path, shop: Shop) -> None:
    comparison = compared(tmp_path, shop, playbook())
    assert (comparison.differing, comparison.named) == (0, [])
    assert {line.change for line in lines(comparison)} == {"="}


def test_who_gets_a_mail_less_is_named(tmp_path: Path, shop: Shop) -> None:
    comparison = compared(
        tmp_path, shop, playbook(JOURNEY.replace("  - email: last-call\n", "").replace("  - wait: 1d\n", ""))
    )
    assert comparison.fewer == 1
    assert [(one.customer, one.messages, one.other_messages) for one in comparison.named] == [
        ("ann", {"reminder": 1, "last-call": 1}, {"reminder": 1})
    ]
    told = _shown(as_comparison(comparison, ("today", "shorter")))
    assert "2 mails would have gone out with today" in told
    assert re.search(r"^ +today +shorter +change$", told, re.MULTILINE)
    assert "ann: last-call 1 → 0" in told


def test_who_gets_the_same_at_another_hour_counts_and_is_not_named(tmp_path: Path, shop: Shop) -> None:
    comparison = compared(tmp_path, shop, playbook(JOURNEY.replace("wait: 1h", "wait: 2h")))
    assert comparison.differing >= 1
    assert (comparison.in_number, comparison.named) == (0, [])


def test_a_page_stands_alone_and_lets_no_customer_write_into_it(tmp_path: Path, shop: Shop) -> None:
    shop.knows(0.5, "<script>alert(1)</script>", email="eve@example.com")
    shop.cart(0.6, "<script>alert(1)</script>")
    shop.lines.sort(key=lambda line: str(json.loads(line)["timestamp"]))
    page = as_page(lived(tmp_path, shop, playbook())[0].report(), "shop")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.findall(r"(?:src|href)\s*=|@import|url\(", page)
    assert page.count("<svg") == 3
    assert "What this cannot know" in page


def _shown(parts: Any) -> str:
    console = Console(record=True, width=200)
    for part in parts:
        console.print(part)
    return console.export_text()


def test_a_name_with_brackets_is_no_markup(tmp_path: Path, shop: Shop) -> None:
    shop.lines.insert(0, "[/nonsense]")
    told = _shown(as_tables(lived(tmp_path, shop, playbook())[0].report()))
    assert "1 refused" in told
