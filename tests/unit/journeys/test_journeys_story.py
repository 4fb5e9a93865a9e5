"""What a person is told who asks why: each decision with its rule, and what to do about a mail that did not come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec
import pytest

from services.journeys.decisions import Decided, Decision
from services.journeys.story import Answer, Books, Own, Story, Teller, playbooks_named
from services.journeys.whynot import NoSuchMessage, tell
from shared.contracts.customers import Customer
from shared.contracts.story import Asked, Happened, Line, Mailed, Remembered, Word
from shared.language import SHIPPED, load, read_folder

BOOK = load(read_folder(SHIPPED))
NAMED = BOOK.hash[:12]
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOBODY = Own((), (), ())
KARI = Customer(key="kari", traits={}, timezone="Europe/Oslo", address="kari@example.com", consent={"birthday": True})
YES = Word(subscribed=True, decided_at=NOON, source="shop")


def story(
    own: Own = NOBODY,
    subject: str | None = None,
    *,
    customer: Customer = KARI,
    past: tuple[Happened, ...] = (),
    dates: dict[str, datetime | None] | None = None,
    mailed: Mailed | None = None,
    files: dict[str, dict[str, bytes]] | None = None,
) -> Story:
    remembered = Remembered(customer=customer, past=past, dates=dates or {})
    mailed = mailed or Mailed(address=customer.address, consent={"birthday": YES, "cart-reminders": YES})
    teller = Teller(Books(BOOK, files or {}), ZoneInfo("Europe/Oslo"), remembered, mailed, NOON + 24 * HOUR)
    return tell("kari", teller, own, NOON - timedelta(days=90), subject)


def decided(*decisions: Decision, journey: str = "abandoned-cart", enrollment: str = "e1", at: datetime = NOON) -> Own:
    return Own([Decided(at, journey, NAMED, enrollment, "c1", list(decisions))], (), ())


def asked(**changes: Any) -> Mailed:
    values: dict[str, Any] = {
        "id": "m1",
        "message": "cart-reminder",
        "journey": "abandoned-cart",
        "enrollment": "e1",
        "step": "cart-reminder",
        "topic": "cart-reminders",
        "status": "skipped",
        "due": NOON,
        "expires": NOON + 14 * HOUR,
        "requested_at": NOON,
        "ended_at": NOON,
        "address": None,
    }
    consent, known = changes.pop("consent", {}), changes.pop("known", {})
    return Mailed(messages=(Asked(**{**values, **changes}),), address="kari@example.com", consent=consent, **known)


def answer(told: Story) -> Answer:
    (only,) = told.answers
    return only


def place(told: Any) -> str:
    return f"{told.rule.file}:{told.rule.line}" if told.rule else ""


def line_of(file: str, text: str) -> str:
    """Where a text stands in the shipped playbook."""
    written = BOOK.files[file].decode().splitlines()
    return f"{file}:{next(number for number, line in enumerate(written, 1) if text in line)}"


CART = "journeys/abandoned-cart.yaml"


def test_each_step_is_told_with_its_line_and_by_the_customers_clock() -> None:
    told = story(
        decided(
            Decision("entered", "", "event\nrapport/segmenter\nx1"),
            Decision("waits", "wait-1h", "", NOON + HOUR),
            Decision("listens", "came-back", "", NOON + 24 * HOUR),
            Decision("passed", "came-back", "timeout"),
            Decision("passed", "if-1", "else"),
            Decision("left", "cart-last-call", "completed"),
        )
    )
    assert [(one.text, place(one)) for one in told.entries] == [
        ("entered, by Cart Updated", line_of(CART, "trigger:")),
        ("waits until 2026-03-02 14:00", line_of(CART, "- wait: 1h")),
        ("waits for a click in cart-reminder until 2026-03-03 13:00", line_of(CART, "id: came-back")),
        ("a click in cart-reminder did not come", line_of(CART, "id: came-back")),
        ('count("Order Completed") >= 1: no', line_of(CART, "- if: count")),
        ("leaves: it is through", line_of(CART, "- email: cart-last-call")),
    ]
    assert {one.rule.playbook for one in told.entries if one.rule} == {NAMED}


def test_a_rule_is_shown_where_it_stood_in_the_version_that_was_active() -> None:
    before = {CART: b"# a line more\n" * 7 + BOOK.files[CART]}
    own = Own([Decided(NOON, "abandoned-cart", "0ld", "e1", "", [Decision("waits", "wait-1h")])], (), ())
    (waits,) = story(own, files={"0ld": before}).entries
    assert waits.rule is not None
    now = int(line_of(CART, "- wait: 1h").rpartition(":")[2])
    assert (waits.rule.line, waits.rule.playbook) == (now + 7, "0ld")
    (unknown,) = story(own).entries
    assert unknown.rule is None


def test_what_changed_about_a_customer_is_told_in_the_order_of_the_road() -> None:
    order = Happened(
        at=NOON,
        occurred_at=NOON,
        kind="event",
        id="o1",
        source="shop",
        name="Order Completed",
        stage_before="convert",
        stage="retain",
        entered=("new-customers",),
        consent={"newsletter": False},
        playbook=NAMED,
    )
    entered = Decision("entered", "", "event\nshop\no1")
    told = story(decided(entered, journey="thank-you"), past=(order,))
    assert [one.text for one in told.entries] == [
        "said no to newsletter, by Order Completed",
        "is in stage retain (before: convert), by Order Completed",
        "entered segment new-customers, by Order Completed",
        "entered, by Order Completed",
    ]
    assert place(told.entries[1]) == line_of("stages.yaml", "retain:")
    assert place(told.entries[2]) == line_of("segments.yaml", "new-customers:")


def test_a_night_that_moved_a_customer_is_told_with_what_it_found() -> None:
    def night(number: int, kind: Literal["time", "definition"], id: str) -> Happened:
        at = NOON + number * 24 * HOUR
        name = "customer.spend_percentile"
        return Happened(at=at, occurred_at=at, kind=kind, id=id, name=name, entered=("vip",), playbook=NAMED)

    first, second, third = night(0, "definition", "83"), night(1, "time", "91"), night(2, "time", "")
    entered = decided(Decision("entered", "", "time"), at=second.at)
    assert [one.text for one in story(entered, past=(first, second, third)).entries] == [
        "entered segment vip, since a night has passed, and 83 % of the buyers had spent less (for the first time: "
        "the playbook asks for it now)",
        "entered segment vip, since a night has passed, and 91 % of the buyers had spent less",
        "entered, since a night has passed, and 91 % of the buyers had spent less",
        "entered segment vip, since a night has passed, and what was spent cannot be added up",
    ]
    assert [one.text for one in story(entered).entries] == ["entered, as time passed"]


def test_what_people_and_machines_did_with_a_mail_and_what_came_of_it_is_told() -> None:
    def done(name: str, **about: Any) -> Happened:
        said = msgspec.Raw(msgspec.json.encode({"message": "cart-reminder", "message_id": "m1", **about}))
        return Happened(
            at=NOON, occurred_at=NOON, kind="event", id=name, source="rapport/mailer", name=name, properties=said
        )

    fetched = done("Email Opened", machine=True, reason="apple_privacy")
    opened = done("Email Opened", machine=False, reason="")
    clicked = done("Email Link Clicked", link="https://lamps.example/cart")
    worth = Decision("attributed", "", "80.00 EUR")
    told = story(decided(worth, at=NOON + HOUR), past=(fetched, opened, clicked))
    assert [one.text for one in told.entries] == [
        "a machine opened cart-reminder (apple_privacy)",
        "opened cart-reminder",
        "clicked a link in cart-reminder (https://lamps.example/cart)",
        "has the order, worth 80.00 EUR",
    ]
    assert place(told.entries[3]) == line_of(CART, "value: event.total")


def test_a_cap_is_named_with_its_line_and_when_the_mail_was_over() -> None:
    held = Line(at=NOON, reason="cap", until=NOON + 14 * HOUR, note="6 in 7d", playbook=NAMED)
    over = Line(at=NOON + 14 * HOUR, reason="cap", note="6 in 7d", playbook=NAMED)
    told = story(mailed=asked(reason="cap", lines=(held, over), ended_at=NOON + 14 * HOUR))
    assert [one.text for one in told.entries] == [
        "cart-reminder: held until 2026-03-03 03:00: the cap of 6 in 7d has no room",
        "cart-reminder: not sent: the cap of 6 in 7d has no room, and it was good until 2026-03-03 03:00 only",
    ]
    assert {place(one) for one in told.entries} == {line_of("rapport.yaml", "limit: 6")}
    assert "longer expires" in told.entries[1].remedy


@pytest.mark.parametrize(
    ("reason", "line", "text", "remedy"),
    [
        ("no_address", True, "no address is known", "Send the trait email"),
        ("not_subscribed", True, "they never said yes to cart-reminders", "Topic Subscribed"),
        ("quiet_hours", True, "quiet hours 21:00-08:00", "expires"),
        ("paused", True, "promotion to this customer is paused", "pause: 0d"),
        ("expired", True, "its time was over at 2026-03-03 03:00", "longer expires"),
        ("draft", True, "its journey is a draft", "status: live"),
        ("topic_removed", True, "its topic cart-reminders is not in topics.yaml", "Put cart-reminders back"),
        ("goal", False, "the journey took it back, since its goal was reached", "Nothing"),
        ("exit_on", False, "the journey took it back, since an exit_on came true", "Nothing"),
        ("unsubscribed", False, "the journey took it back, since the customer unsubscribed", "unless they change"),
        ("came back", False, "the journey took it back: came back", "Nothing"),
    ],
)
def test_a_mail_that_was_not_sent_says_why_and_what_to_do(reason: str, line: bool, text: str, remedy: str) -> None:
    lines = (Line(at=NOON, reason=reason, playbook=NAMED),) if line else ()
    told = answer(story(mailed=asked(reason=reason, lines=lines), subject="cart-reminder"))
    assert f"not sent: {text}" in told.text
    assert remedy in told.remedy


@pytest.mark.parametrize(
    ("channel", "status", "reason", "text", "remedy"),
    [
        ("sms", "skipped", "no_address", "no number is known", "the trait phone"),
        ("sms", "skipped", "invalid_address", "says no country", "+4740000000"),
        ("push", "skipped", "no_address", "no device is known", "the trait push_token"),
        ("push", "skipped", "no_channel", "no gateway is named", "Set RAPPORT_MAILER_PUSH_URL"),
        ("sms", "skipped", "suppressed", "nothing arrives there", "the trait phone"),
        ("sms", "failed", "no_such_address", "nothing arrives there", "the trait phone"),
        ("sms", "failed", "retries_ran_out", "no attempt succeeded", "the gateway"),
        ("push", "failed", "gone", "the gateway said that it is gone", "RAPPORT_MAILER_PUSH_URL"),
    ],
)
def test_what_a_gateway_was_not_given_or_did_not_take(
    channel: str, status: str, reason: str, text: str, remedy: str
) -> None:
    lines = (Line(at=NOON, reason=reason, playbook=NAMED),) if status == "skipped" else ()
    mailed = asked(channel=channel, status=status, reason=reason, lines=lines)
    told = answer(story(mailed=mailed, subject="cart-reminder"))
    assert text in told.text
    assert remedy in told.remedy


def test_a_pause_by_hand_is_told_from_one_of_the_playbook() -> None:
    line = Line(at=NOON, reason="paused", note="journey", playbook=NAMED)
    by_hand = answer(story(mailed=asked(reason="paused", lines=(line,)), subject="m1"))
    assert "its journey is paused by hand" in by_hand.text
    assert by_hand.remedy == "Let it go on: rapport journeys resume abandoned-cart."
    paused = {CART: BOOK.files[CART].replace(b"status: live", b"status: paused")}
    own = Own([Decided(NOON, "abandoned-cart", "0ld", "", "c1", [Decision("declined", "", "paused")])], (), ())
    (refused,) = story(own, files={"0ld": paused}).entries
    assert refused.text == "does not enter: its journey is paused"
    assert place(refused) == line_of(CART, "status: live")


def test_who_said_no_is_told_when_and_where() -> None:
    no = Word(subscribed=False, decided_at=NOON - HOUR, source="link")
    lines = (Line(at=NOON, reason="unsubscribed", playbook=NAMED),)
    told = answer(story(mailed=asked(reason="unsubscribed", lines=lines, consent={"*": no}), subject="m1"))
    assert "they said no to cart-reminders at 2026-03-02 12:00 (link)" in told.text
    assert place(told) == line_of("topics.yaml", "cart-reminders:")


def test_an_address_that_is_suppressed_says_since_when_and_why() -> None:
    known = {"suppressed": "no_such_address", "suppressed_at": NOON - HOUR}
    told = answer(story(mailed=asked(reason="suppressed", known=known), subject="m1"))
    assert "nothing goes to kari@example.com since 2026-03-02 12:00" in told.text
    assert "no such address" in told.text


def test_a_shop_that_was_not_told_of_a_code_is_told_where_to_find_it() -> None:
    call = {"channel": "webhook", "message": "coupons/ten", "status": "failed"}
    gone = answer(story(mailed=asked(**call, reason="gone", detail="410"), subject="coupons/ten"))
    assert gone.text.endswith("not sent: its address said that it is gone (410)")
    assert gone.remedy == "Name another address in coupons/ten.yaml."
    away = answer(story(mailed=asked(**call, reason="retries_ran_out", detail="503"), subject="coupons/ten"))
    assert away.remedy == "Look at its server. `rapport coupons export ten` has the code."


def test_what_failed_and_what_is_unknown() -> None:
    rejected = asked(status="failed", reason="rejected", detail="550 spam")
    assert "refused it (550 spam)" in answer(story(mailed=rejected, subject="m1")).text
    for reason, how in (("interrupted", "the process ended"), ("connection_lost", "the connection broke")):
        unknown = answer(story(mailed=asked(status="unknown", reason=reason), subject="m1"))
        assert f"{how} while it was handed over, so it may have arrived or not" in unknown.text
        assert "never sent again" in unknown.remedy


def test_who_has_no_birthday_is_told_so() -> None:
    told = answer(story(subject="birthday"))
    assert told.text == "the trait birthday is not known"
    assert told.remedy == "Send birthday with identify, as 1990-12-31."
    assert place(told) == line_of("journeys/birthday.yaml", "date: traits.birthday")


def test_a_birthday_that_cannot_be_read_and_one_that_lies_ahead() -> None:
    odd = msgspec.structs.replace(KARI, traits={"birthday": "soon"})
    assert answer(story(customer=odd, subject="birthday")).text == "the trait birthday is no date: 'soon'"
    known = msgspec.structs.replace(KARI, traits={"birthday": "1990-12-10"})
    next_time = {"birthday": datetime(2026, 12, 10, 8, tzinfo=UTC)}
    told = answer(story(customer=known, dates=next_time, subject="birthday"))
    assert told.text == "birthday is 1990-12-10: the next time is 2026-12-10 09:00"


def test_a_refusal_is_the_answer_and_says_until_when() -> None:
    own = decided(Decision("declined", "", "again", NOON + timedelta(days=14)), enrollment="")
    told = answer(story(own, "cart-reminder"))
    assert told.text == (
        "at 2026-03-02 13:00: does not enter: was in for c1 before (again: 14d), and may from 2026-03-16 13:00"
    )
    assert place(told) == line_of(CART, "again: 14d")


def cart(total: int, **changes: Any) -> Happened:
    properties = msgspec.Raw(msgspec.json.encode({"cart_id": "c1", "total": total}))
    values = {"at": NOON, "occurred_at": NOON, "kind": "derived", "id": "x1", "name": "Cart Updated"}
    return Happened(**{**values, "properties": properties, **changes})


def test_an_event_that_does_not_fit_is_shown_with_the_condition() -> None:
    told = answer(story(past=(cart(12),), subject="cart-reminder"))
    assert told.text == "the last Cart Updated, at 2026-03-02 13:00, does not fit: where: event.total >= 20"
    assert place(told) == line_of(CART, "where: event.total >= 20")


def test_history_and_late_events_begin_nothing_and_say_so() -> None:
    old = answer(story(past=(cart(50, historical=True),), subject="cart-reminder"))
    assert "marked as historical" in old.text
    late = answer(story(past=(cart(50, occurred_at=NOON - timedelta(days=3)),), subject="cart-reminder"))
    assert "came more than 1d late" in late.text


def test_an_event_that_fits_today_admits_what_cannot_be_known() -> None:
    assert "is not known any more" in answer(story(past=(cart(50),), subject="cart-reminder")).text


def test_who_has_done_nothing_of_the_kind_is_told_what_begins_it_and_what_would_stand_in_the_way() -> None:
    silent = msgspec.structs.replace(KARI, consent={}, address=None)
    nothing, address = story(customer=silent, mailed=Mailed(), subject="cart-reminder").answers
    assert nothing.text.startswith("begins with Cart Updated, and none of theirs is known")
    assert address.text == "if it were asked for today, it would not be sent: no address is known"
    reachable = msgspec.structs.replace(KARI, consent={})
    _, consent = story(customer=reachable, mailed=Mailed(address="k@example.com"), subject="cart-reminder").answers
    assert "they never said yes to cart-reminders" in consent.text


def test_a_message_alone_leaves_out_what_is_about_others() -> None:
    own = Own(
        [
            Decided(NOON, "abandoned-cart", NAMED, "e1", "c1", [Decision("asked", "cart-reminder", "m1")]),
            Decided(NOON, "thank-you", NAMED, "e2", "o1", [Decision("entered", "", "event\nshop\no1")]),
        ],
        (),
        (),
    )
    sent = asked(status="sent", address="kari@example.com")
    told = story(own, "cart-reminder", mailed=sent)
    assert [one.text for one in told.entries] == [
        "asks for the mail cart-reminder",
        "cart-reminder: sent to kari@example.com",
    ]
    assert answer(told).text == "sent at 2026-03-02 13:00 to kari@example.com"


def test_of_one_moment_what_was_the_cause_comes_first() -> None:
    later = NOON + HOUR
    through = decided(Decision("left", "cart-reminder", "completed"), at=later)
    sent = story(through, mailed=asked(status="sent", ended_at=later))
    assert [one.by for one in sent.entries] == ["mailer", "journeys"]
    bought = decided(Decision("left", "cart-reminder", "goal"), at=later)
    taken_back = story(bought, mailed=asked(reason="goal", ended_at=later))
    assert [one.by for one in taken_back.entries] == ["journeys", "mailer"]


def test_a_name_that_nobody_knows_is_refused_with_the_nearest() -> None:
    with pytest.raises(NoSuchMessage, match='Did you mean "birthday"'):
        story(subject="birtday")


def test_the_playbooks_that_are_needed_are_those_whose_rules_are_told() -> None:
    lines = (Line(at=NOON, reason="cap", playbook="a"), Line(at=NOON, reason="connection"))
    past = (cart(1, playbook="b"),)
    own = Own([Decided(NOON, "x", "c", "", "", [])], (), ())
    assert playbooks_named(own, Remembered(past=past), asked(lines=lines)) == {"a", "b", "c"}
