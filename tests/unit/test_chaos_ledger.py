"""The ledger of `make chaos` finds what it is there to find."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.chaos.ledger import Arrival, Facts, Ledger, Posted

RECEIPT = ("receipt", "o1")


def story() -> tuple[Ledger, Facts]:
    """One customer, one order, one receipt that arrived: nothing is wrong."""
    ledger = Ledger()
    order = Posted("e1.", "ann", "Order Completed", {"order_id": "o1", "total": 30}, 0.0, 0.1, 1)
    ledger.posted["e1."] = order
    ledger.arrivals.append(Arrival(RECEIPT, "m1", "ann@chaos.example", 1.0, "orders=1 total=30", "250 taken"))
    row = {"id": "m1", "customer": "ann", "message": "receipt", "topic": "receipts", "status": "sent", "reason": ""}
    facts = Facts(
        history={"e1.": ["ann"]},
        outcomes=Counter({("m1", "Email Sent"): 1}),
        profiles={"ann": ("retain", frozenset())},
        enrollments={"ann": [("receipt", "o1", "ended"), ("cooled", "", "ended")]},
        messages=[{**row, "taken": "7-x-0", "request": b'{"enrollment":"7"}'}],  # type: ignore[list-item]
        causes={"m1": RECEIPT},
        dead=[],
        left_over=[],
    )
    return ledger, facts


def change(facts: Facts, **columns: Any) -> None:
    facts.messages[0] = {**facts.messages[0], **columns}  # type: ignore[call-overload]


def test_a_story_in_which_all_went_well_is_not_found_fault_with() -> None:
    ledger, facts = story()
    assert ledger.judge(facts).violations == []


def lost(ledger: Ledger, facts: Facts) -> None:
    facts.history.clear()


def counted_twice(ledger: Ledger, facts: Facts) -> None:
    facts.history["e1."].append("ann")


def handed_over_twice(ledger: Ledger, facts: Facts) -> None:
    ledger.arrivals.append(Arrival(RECEIPT, "m1", "ann@chaos.example", 2.0, "orders=1 total=30"))


def never_arrived(ledger: Ledger, facts: Facts) -> None:
    ledger.arrivals.clear()


def out_of_turn(ledger: Ledger, facts: Facts) -> None:
    ledger.arrivals[0].text = "orders=2 total=60"


def another_stage(ledger: Ledger, facts: Facts) -> None:
    facts.profiles["ann"] = ("delight", frozenset())


def cooled_twice_in_one_enrollment(ledger: Ledger, facts: Facts) -> None:
    for number in ("m2", "m3"):
        cooled = {**facts.messages[0], "id": number, "message": "cooled", "status": "skipped"}
        facts.messages.append(cooled)  # type: ignore[arg-type]
        facts.causes[number] = ("cooled", "ann")
        facts.outcomes[number, "Email Skipped"] = 1


def told_twice(ledger: Ledger, facts: Facts) -> None:
    facts.outcomes["m1", "Email Unknown"] = 1


def unknown_for_no_reason(ledger: Ledger, facts: Facts) -> None:
    change(facts, status="unknown", reason="interrupted")
    facts.outcomes = Counter({("m1", "Email Unknown"): 1})


def sent_after_an_unsubscribe(ledger: Ledger, facts: Facts) -> None:
    ledger.arrivals[0].data_at = 60.0
    ledger.unsubscribed["ann", "receipts"] = 50.0


def not_over(ledger: Ledger, facts: Facts) -> None:
    facts.left_over.append("1 messages held")


def one_code_for_two(ledger: Ledger, facts: Facts) -> None:
    for closing in ("ann-closing", "ben-closing"):
        ledger.arrivals.append(Arrival(("parting", closing), "m1", "ann@chaos.example", 1.0, "code=BYE-1 rare=", "554"))
    facts.codes["BYE-1"] = ("bye", "8")


def a_code_that_nobody_issued(ledger: Ledger, facts: Facts) -> None:
    parting = Arrival(("parting", "ann-closing"), "m1", "ann@chaos.example", 1.0, "code=BYE-1 rare=", "554")
    ledger.arrivals.append(parting)


def called_without_leaving(ledger: Ledger, facts: Facts) -> None:
    facts.tasks["ann-closing"] = 1


@pytest.mark.parametrize(
    "harm",
    [
        lost,
        counted_twice,
        handed_over_twice,
        never_arrived,
        out_of_turn,
        another_stage,
        cooled_twice_in_one_enrollment,
        told_twice,
        unknown_for_no_reason,
        sent_after_an_unsubscribe,
        not_over,
        one_code_for_two,
        a_code_that_nobody_issued,
        called_without_leaving,
    ],
)
def test_each_harm_is_found(harm: Any) -> None:
    ledger, facts = story()
    harm(ledger, facts)
    assert ledger.judge(facts).violations


def test_unknown_is_in_order_where_its_process_was_killed() -> None:
    ledger, facts = story()
    unknown_for_no_reason(ledger, facts)
    ledger.hurt[7] = "killed"
    assert ledger.judge(facts).violations == []
