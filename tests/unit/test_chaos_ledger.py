"""The ledger of `make chaos` finds what it is there to find."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.chaos.again import but_for_more_duplicates
from tests.chaos.calls import Call
from tests.chaos.ledger import Arrival, Ledger, Posted
from tests.chaos.tables import Facts
from tests.chaos.verdict import judge
from tests.chaos.visits import TOLD_WITHIN, Visit

RECEIPT = ("receipt", "o1")
TELL = ("webhook:tell", "ann-closing")
LINK = "https://chaos.example/order"


def story() -> tuple[Ledger, Facts]:
    """One customer, one order, one receipt that arrived and whose link was followed, one call: nothing is wrong."""
    ledger = Ledger()
    order = Posted("e1.", "ann", "Order Completed", {"order_id": "o1", "total": 30}, 0.0, 0.1, 1)
    ledger.posted["e1."] = order
    ledger.arrivals.append(Arrival(RECEIPT, "m1", "ann@chaos.example", 1.0, "orders=1 total=30", "250 taken"))
    row = {"id": "m1", "customer": "ann", "message": "receipt", "topic": "receipts", "status": "sent", "reason": ""}
    row |= {"taken": "7-x-0", "request": b'{"enrollment":"7"}', "channel": "email"}
    call = {**row, "id": "m9", "message": "tell", "topic": "", "channel": "webhook"}
    ledger.calls += [Call("m9", TELL, b"{}", True, 503), Call("m9", TELL, b"{}", True, 200)]
    ledger.written_down["m1"] = 2.0
    ledger.visits.append(Visit("m1", LINK, False, False, 10.0, 7, 10.1))
    facts = Facts(
        history={"e1.": ["ann"]},
        outcomes=Counter({("m1", "Email Sent"): 1, ("m9", "Webhook Sent"): 1}),
        profiles={"ann": ("retain", frozenset())},
        enrollments={"ann": [("receipt", "o1", "ended"), ("cooled", "", "ended")]},
        messages=[row, call],  # type: ignore[list-item]
        causes={"m1": RECEIPT, "m9": TELL},
        dead=[],
        left_over=[],
        uses=Counter({("m1", LINK, False): 1}),
    )
    return ledger, facts


def change(facts: Facts, **columns: Any) -> None:
    facts.messages[0] = {**facts.messages[0], **columns}  # type: ignore[call-overload]


def test_a_story_in_which_all_went_well_is_not_found_fault_with() -> None:
    ledger, facts = story()
    assert judge(ledger, facts).violations == []


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
    facts.outcomes["m1", "Email Skipped"] = 1


def unknown_for_no_reason(ledger: Ledger, facts: Facts) -> None:
    change(facts, status="unknown", reason="interrupted")
    facts.outcomes["m1", "Email Unknown"] = facts.outcomes.pop(("m1", "Email Sent"))


def sent_after_an_unsubscribe(ledger: Ledger, facts: Facts) -> None:
    ledger.arrivals[0].data_at = 60.1
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


def called_and_never_taken(ledger: Ledger, facts: Facts) -> None:
    ledger.calls.pop()


def called_under_another_id(ledger: Ledger, facts: Facts) -> None:
    ledger.calls[1].id = "m8"


def called_for_something_else(ledger: Ledger, facts: Facts) -> None:
    ledger.calls[1].cause = ("webhook:tell", "ben-closing")


def called_with_other_words(ledger: Ledger, facts: Facts) -> None:
    ledger.calls[1].body = b"{1}"


def called_without_a_signature(ledger: Ledger, facts: Facts) -> None:
    ledger.calls[1].signed = False


def a_call_that_was_told_of_twice(ledger: Ledger, facts: Facts) -> None:
    facts.outcomes["m9", "Webhook Failed"] = 1


def a_click_that_does_not_count(ledger: Ledger, facts: Facts) -> None:
    facts.uses = Counter({("m1", LINK, True): 1})


def a_click_that_is_lost(ledger: Ledger, facts: Facts) -> None:
    facts.uses.clear()


def a_click_that_is_lost_long_before_its_process_is_killed(ledger: Ledger, facts: Facts) -> None:
    facts.uses.clear()
    ledger.losses.ended[7] = 10.1 + TOLD_WITHIN + 1


def a_click_that_nobody_made(ledger: Ledger, facts: Facts) -> None:
    facts.uses["m1", "", False] = 1


def a_scanner_that_counts(ledger: Ledger, facts: Facts) -> None:
    ledger.visits[0].scanner = True


def a_click_before_the_mail_was_let_in_that_counts(ledger: Ledger, facts: Facts) -> None:
    ledger.visits[0].before_yes = True


def an_unsubscribe_that_nobody_asked_for(ledger: Ledger, facts: Facts) -> None:
    facts.stopped.add(("ann", "notes"))


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
        called_and_never_taken,
        called_under_another_id,
        called_for_something_else,
        called_with_other_words,
        called_without_a_signature,
        a_call_that_was_told_of_twice,
        a_click_that_does_not_count,
        a_click_that_is_lost,
        a_click_that_is_lost_long_before_its_process_is_killed,
        a_click_that_nobody_made,
        a_scanner_that_counts,
        a_click_before_the_mail_was_let_in_that_counts,
        an_unsubscribe_that_nobody_asked_for,
    ],
)
def test_each_harm_is_found(harm: Any) -> None:
    ledger, facts = story()
    harm(ledger, facts)
    assert judge(ledger, facts).violations


def test_unknown_is_in_order_where_its_process_was_killed() -> None:
    ledger, facts = story()
    unknown_for_no_reason(ledger, facts)
    ledger.hurt[7] = "killed"
    assert judge(ledger, facts).violations == []


def test_a_click_is_lost_in_order_where_its_process_was_killed_before_it_had_to_be_told() -> None:
    ledger, facts = story()
    a_click_that_is_lost(ledger, facts)
    ledger.losses.ended[7] = 10.9
    assert judge(ledger, facts).violations == []


def test_whoever_is_quick_or_follows_two_links_at_once_may_count_or_not() -> None:
    for harm in (quick, at_once):
        for machine in (False, True):
            ledger, facts = story()
            harm(ledger)
            facts.uses = Counter({(visit.message, visit.link, machine): 1 for visit in ledger.visits})
            assert judge(ledger, facts).violations == []


def quick(ledger: Ledger) -> None:
    ledger.written_down["m1"] = 8.0


def at_once(ledger: Ledger) -> None:
    ledger.visits.append(Visit("m1", "https://chaos.example/why", False, False, 11.0, 8, 11.1))


def test_an_unknown_mail_whose_link_is_followed_has_arrived() -> None:
    ledger, facts = story()
    ledger.arrivals[0].answer = ""
    facts.outcomes["m1", "Email Unknown"] = 1
    assert judge(ledger, facts).violations == []


def test_a_mail_may_come_later_after_an_unsubscribe_where_a_process_stood_still_but_not_much() -> None:
    ledger, facts = story()
    sent_after_an_unsubscribe(ledger, facts)
    ledger.losses.stops.append((8, 49.0, 54.0))
    assert not any("after an unsubscribe" in line for line in judge(ledger, facts).violations)
    ledger.arrivals[0].data_at = 65.1
    assert any("after an unsubscribe" in line for line in judge(ledger, facts).violations)


def test_more_came_twice_than_comes_twice_again_only_where_an_operator_said_from_where_to_go_on() -> None:
    def states(*counts: int) -> dict[str, Any]:
        return {"counters": [{"partition": p, "processed": 9, "deduplicated": n} for p, n in enumerate(counts)]}

    assert but_for_more_duplicates(states(3, 3), states(1, 1), {1}) == states(3, 1)
    assert but_for_more_duplicates(states(0, 0), states(1, 1), {1}) == states(0, 0)
