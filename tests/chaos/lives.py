"""What must have become of each customer, counted by hand from what was posted, for the playbook beside this file.

Stage and segments, journeys, messages and what these say. Where an event was not answered, or is lost on purpose, less
is known, and less is asked for.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

import asyncpg
import msgspec

from tests.chaos.calls import Call, Cause
from tests.chaos.ledger import Ledger, Posted
from tests.chaos.tables import PARTING_LINKS, Facts
from tests.chaos.visits import CLOCKS_APART

REMINDED_AFTER = 4.0
WARM_FOR = 12.0
"""Seconds here; minutes in the playbook."""
ASKED_FOR = 10.0
"""The same: how long an answer, or a click, is waited for."""

_SAID = re.compile(r"\b(\w+)=([0-9.]*)")


def wrong(ledger: Ledger, facts: Facts, buried: Set[str]) -> Iterator[str]:
    """`buried` are the ids of accepted events that were set aside as poison."""
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for arrival in ledger.arrivals:
        texts[arrival.message].append(arrival.text)
    calls_for: defaultdict[Cause, list[Call]] = defaultdict(list)
    for call in ledger.calls:
        calls_for[call.cause].append(call)
    messages: defaultdict[str, list[asyncpg.Record]] = defaultdict(list)
    for row in facts.messages:
        messages[row["customer"]].append(row)
    customers = ledger.customers()
    lost = ledger.deleted | buried
    for customer, events in customers.items():
        life = _Life(ledger, facts, customer, events, texts, calls_for, lost)
        yield from life.wrong(messages.pop(customer, []))
    for customer in messages:
        yield f"{customer} has messages, and has done nothing"
    for customer in facts.profiles.keys() - customers.keys():
        yield f"{customer} has a profile, and has done nothing"


@dataclass
class _Life:
    """What must have become of one customer."""

    ledger: Ledger
    facts: Facts
    customer: str
    events: Sequence[Posted]
    texts: Mapping[str, Sequence[str]]
    """What the mails of a message say, by its id."""
    calls_for: Mapping[Cause, Sequence[Call]]
    lost: Set[str]
    """Ids of events that were deleted from the log, or set aside."""

    def __post_init__(self) -> None:
        self.lived = [event for event in self.events if event.id in self.facts.history]
        self.certain = all(event.answered is not None and event.id not in self.lost for event in self.events)
        """Whether the state before each event is known: everything was answered, and came in turn."""

    def _of(self, name: str) -> list[Posted]:
        return [event for event in self.lived if event.name == name]

    def wrong(self, messages: Sequence[asyncpg.Record]) -> list[str]:
        found = [*self._wrong_profile(), *self._wrong_enrollments(), *self._wrong_messages(messages)]
        return [f"{self.customer}: {line}" for line in found]

    def _wrong_profile(self) -> Iterable[str]:
        if not self.lived:
            return
        is_now = self.facts.profiles.get(self.customer)
        orders = self._of("Order Completed")
        stage = (
            "delight"
            if len(orders) >= 3
            else "retain"
            if orders
            else "convert"
            if self._of("Product Added")
            else "attract"
        )
        segments = set()
        if _total(orders) >= 100:
            segments.add("big")
        if len(self._of("Product Viewed")) >= 3:
            segments.add("lookers")
        countries = [event.properties["country"] for event in self._of("identify")]
        if countries and countries[-1] in ("NO", "SE"):
            segments.add("nordic")
        if is_now != (stage, frozenset(segments)) and (self.certain or is_now is None or is_now[0] != stage):
            yield f"must be {stage} in {sorted(segments)}, and is {is_now}"

    def _wrong_enrollments(self) -> Iterable[str]:
        found = Counter((journey, key) for journey, key, _ in self.facts.enrollments.get(self.customer, []))
        wanted = Counter(("receipt", event.properties["order_id"]) for event in self._of("Order Completed"))
        wanted += Counter(("basket", event.properties["cart_id"]) for event in self._of("Basket Left"))
        wanted += Counter(("statement", event.properties["closing"]) for event in self._of("Account Closed"))
        for journey in ("parting", "farewell", "asked"):
            wanted += Counter((journey, event.properties["closing"]) for event in self._of("Account Closed"))
        cooled = found.pop(("cooled", ""), 0)
        for entry in wanted.keys() | found.keys():
            if found[entry] != wanted[entry]:
                yield f"must be in {entry} {wanted[entry]} times, and is {found[entry]} times"
        least, most = self._coolings()
        if not least <= cooled <= most:
            yield f"must have cooled {least} to {most} times, and has {cooled} times"

    def _coolings(self) -> tuple[int, int]:
        """How often 12 minutes passed without an order after one: at least, and at most."""
        orders = self._of("Order Completed")
        if not orders:
            return 0, 0
        # Nobody is warmed by an order that took longer to get through than one stays warm; and whoever is still in the
        # journey for the last time does not enter it again.
        least = any(_seconds(event) < WARM_FOR - 2 * CLOCKS_APART for event in orders if event.answered is not None)
        if any(event.answered is None for event in orders):
            return int(least), len(orders)
        gaps = ((one.begun, two.begun + _seconds(two)) for one, two in pairwise(orders))
        return int(least), 1 + sum(end - begun >= WARM_FOR - 2 * CLOCKS_APART for begun, end in gaps)

    def _wrong_messages(self, messages: Sequence[asyncpg.Record]) -> Iterable[str]:
        by_cause = {self.facts.causes[row["id"]]: row for row in messages}
        for event in self.lived:
            if event.name == "Order Completed":
                yield from self._wrong_account(by_cause, "receipt", event.properties["order_id"], event)
            elif event.name == "Account Closed":
                yield from self._wrong_account(by_cause, "statement", event.properties["closing"], event)
                yield from self._wrong_farewell(by_cause, event)
            elif event.name == "Basket Left":
                yield from self._wrong_reminders(by_cause, event)

    def _wrong_account(
        self, messages: Mapping[Cause, asyncpg.Record], name: str, about: str, event: Posted
    ) -> Iterable[str]:
        """There is a message, and what it says of the past, if it arrived, is what had happened at this very event."""
        row = messages.get((name, about))
        if row is None:
            yield f"there is no {name} for {about}"
            return
        if not self.certain:
            return
        past = [one for one in self.events if one.turn <= event.turn]
        orders = [one for one in past if one.name == "Order Completed"]
        truth = {"orders": len(orders), "total": _total(orders)}
        if name == "statement":
            truth["views"] = sum(one.name == "Product Viewed" for one in past)
            truth["added"] = sum(one.name == "Product Added" for one in past)
        for text in self.texts.get(row["id"], ()):
            said = {key: float(value or 0) for key, value in _SAID.findall(text)}
            if said != truth:
                yield f"the {name} for {about} must say {truth}, and says {said}"

    def _wrong_farewell(self, messages: Mapping[Cause, asyncpg.Record], left: Posted) -> Iterable[str]:
        """Whoever leaves is told so by all ways; the shop is called, once more where they say why, or come back."""
        closing = left.properties["closing"]
        wanted = {"webhook:tell"}
        if (self.customer, "notes") not in self.ledger.asked_to_stop:
            wanted |= {"parting", "sms:farewell", "push:farewell"}
        for name in sorted(wanted):
            if (name, closing) not in messages:
                yield f"there is no {name} for {closing}"
        for call in self.calls_for.get(("webhook:tell", closing), ()):
            said = msgspec.json.decode(call.body)["data"]
            past = [one for one in self.events if one.turn <= left.turn and one.name == "Order Completed"]
            truth = {"orders": len(past), "total": _total(past)}
            if self.certain and {name: float(value or 0) for name, value in said.items()} != truth:
                yield f"the call for {closing} must say {truth}, and says {said}"
        answers = [event for event in self.events if event.name == "Survey Answered"]
        answered = messages.get(("webhook:answered", closing))
        if answered is not None:
            scores = [event.properties["score"] for event in answers]
            for call in self.calls_for.get(("webhook:answered", closing), ()):
                if msgspec.json.decode(call.body)["data"]["score"] not in scores:
                    yield f"{closing} has said {scores}, and the call says {call.body!r}"
        if left.answered is None or any(one.answered is None or one.id in self.ledger.deleted for one in answers):
            return
        in_time = left.begun + ASKED_FOR - 2 * CLOCKS_APART
        if answered is None and self.certain and any(one.answered < in_time for one in answers if one.answered):
            yield f"{closing} was answered in time, and nobody is told"
        too_late = left.answered + ASKED_FOR + 2 * CLOCKS_APART
        if answered is not None and all(one.begun > too_late for one in answers):
            yield f"{closing} was not answered in time, and somebody is told"
        yield from self._wrong_return(messages, left)

    def _wrong_return(self, messages: Mapping[Cause, asyncpg.Record], left: Posted) -> Iterable[str]:
        """Whoever comes back by a link of the parting word is told of, and nobody else is."""
        closing = left.properties["closing"]
        parting, clicked = messages.get(("parting", closing)), messages.get(("webhook:clicked", closing))
        people = 0 if parting is None else sum(self.facts.uses[parting["id"], link, False] for link in PARTING_LINKS)
        if clicked is not None and not people:
            yield f"nobody came back by the parting word for {closing}, and somebody is told"
        left_at = self.facts.left_at.get(left.id)
        back_at = None if parting is None else self.facts.back_at.get(parting["id"])
        in_time = left_at and back_at and back_at < left_at + timedelta(minutes=ASKED_FOR)
        if clicked is None and in_time and (self.customer, "notes") not in self.ledger.asked_to_stop:
            yield f"{closing} left at {left_at} and came back at {back_at}, and nobody is told"

    def _wrong_reminders(self, messages: Mapping[Cause, asyncpg.Record], left: Posted) -> Iterable[str]:
        """Whoever ordered before the reminder was due has none; whoever did not, has one."""
        basket = left.properties["cart_id"]
        reminder, last = messages.get(("reminder", basket)), messages.get(("last-word", basket))
        orders = [
            event
            for event in self.events
            if event.name == "Order Completed" and event.properties.get("cart_id") == basket
        ]
        if left.answered is None or any(event.answered is None or event.id in self.ledger.deleted for event in orders):
            return
        if (self.customer, "carts") in self.ledger.asked_to_stop:
            return
        if any(event.answered < left.begun + REMINDED_AFTER - 2 * CLOCKS_APART for event in orders if event.answered):
            if reminder is not None:
                yield f"{basket} was ordered in time, and there is a reminder"
        elif all(event.begun > left.answered + REMINDED_AFTER + 2 * CLOCKS_APART for event in orders):
            if reminder is None:
                yield f"{basket} was not ordered in time, and there is no reminder"
            elif not orders and last is None:
                yield f"{basket} was never ordered, and there is no last word"
        if last is not None and reminder is None:
            yield f"{basket} has a last word, and no reminder"


def _seconds(event: Posted) -> float:
    """How long it took until it was answered."""
    assert event.answered is not None
    return event.answered - event.begun


def _total(orders: Iterable[Posted]) -> float:
    return float(sum(event.properties["total"] for event in orders))
