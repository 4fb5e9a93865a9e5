"""What nobody reads is left out in memory, and nothing that comes of it is other than where all is told."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from services.journeys.enrollment import Enrollment
from services.rehearsal.house import House
from services.rehearsal.witness import End, Witness
from shared.contracts.customers import CustomerUpdated, DateReached
from shared.contracts.events import MAILER_SOURCE, Event
from shared.contracts.messages import MessageRecord, MessageRequested
from shared.language import load
from shared.language.playbook import Playbook

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
CUSTOMERS = ("ann", "ben", "cai", "dot", "eve")


def playbook(*, presence_matters: bool, ranks: bool = False) -> Playbook:
    """Without `presence_matters` no condition changes by a customer's being here, as in most playbooks. With `ranks`
    customers are ranked each night."""
    files = {
        "rapport.yaml": """
name: Lamps
sender: shop@lamps.example
postal_address: Light Street 1
timezone: Europe/Oslo
carts: derived
quiet_hours: 21:00-08:00
caps: {email: [{limit: 2, within: 1d}]}
""",
        "stages.yaml": """
stages:
  retain: count("Order Completed") >= 1
  convert: count("Product Added", within=3d) >= 1
  attract: "true"
""",
        "segments.yaml": """
segments:
  gazers: {title: Gazers, when: 'count("Product Viewed", within=2d) >= 3 and count("Order Completed") == 0'}
  away: {title: Away, when: 'days_since(customer.last_seen) > 4'}
  few: {title: Few, when: 'count("Product Viewed") < 20'}
""",
        "topics.yaml": "topics:\n  news: {title: News, kind: promotional, default: opt_out}\n",
        "journeys/cart.yaml": """
journey: cart
title: Cart
trigger: {event: Cart Updated, key: event.cart_id}
mode: restart
again: 1d
goal: {event: Order Completed, within: 7d}
exit_on:
  - {event: Cart Emptied, where: event.cart_id == key}
defaults: {topic: news}
steps:
  - wait: 1h
  - if: count("Product Viewed") >= 2 or days_since(customer.last_seen) < 0.02
    then:
      - email: hello
        with: {seen: customer.last_seen, stage: customer.stage}
  - wait_for: {clicked: hello}
    id: clicked
    timeout: 1d
  - {id: morning, wait: {for: 1h, until: "10:00"}}
  - email: again
""",
        "journeys/away.yaml": """
journey: away
title: Away
trigger: {segment: away, change: entered}
again: 5d
defaults: {topic: news}
steps:
  - email: hello
    with: {seen: customer.last_seen, stage: customer.stage}
""",
    }
    for name in ("hello", "again"):
        variables = "variables: [seen, stage]\n" if name == "hello" else ""
        files[f"messages/{name}/message.yaml"] = f"title: {name}\n{variables}"
        files[f"messages/{name}/subject.txt"] = "Hello {{ stage }}" if variables else "Hello"
        files[f"messages/{name}/body.html"] = (
            '{{ seen }}<a href="{{ unsubscribe_url }}">Stop</a>'
            if variables
            else ('<a href="{{ unsubscribe_url }}">Stop</a>')
        )
    if not presence_matters:
        files["segments.yaml"] = files["segments.yaml"].replace("days_since(customer.last_seen) > 4", "traits.away")
    if ranks:
        files["segments.yaml"] += "  best: {title: Best, when: customer.spend_percentile >= 60}\n"
        files["journeys/best.yaml"] = """
journey: best
title: Best
trigger: {segment: best, change: entered}
again: 1d
defaults: {topic: news}
steps:
  - wait: 30h
  - email: hello
    with: {seen: customer.spend_percentile, stage: customer.stage}
"""
    return load({name: text.encode() for name, text in files.items()})


PLAYBOOKS = {True: playbook(presence_matters=True), False: playbook(presence_matters=False)}


def events(seed: int) -> Iterator[Event]:
    dice = random.Random(seed)
    at = BEGIN
    for number in range(400):
        at += timedelta(minutes=dice.choice([0, 1, 20, 60, 300, 1500]) * dice.random())
        name = dice.choice(["Product Viewed"] * 5 + ["Product Added", "Product Removed", "Order Completed", "page"])
        traits: dict[str, Any] = {}
        properties: dict[str, Any] = {"product_id": f"p{dice.randrange(3)}", "price": 30, "total": 30}
        kind: Any = "track"
        if name == "page":
            kind = dice.choice(["page", "identify"])
        if kind == "identify":
            traits = {"email": f"{dice.choice(CUSTOMERS)}@example.com", "timezone": dice.choice(["Asia/Tokyo", None])}
        if dice.random() < 0.004:
            name, properties = "Topic Unsubscribed", {"topic": "news"}
        yield Event(
            id=f"e{number - (dice.random() < 0.05)}",
            source="shop",
            key=dice.choice(CUSTOMERS),
            type=kind,
            name="" if kind == "identify" else name,
            occurred_at=at - timedelta(hours=dice.choice([0, 0, 0, 5, 60])),
            received_at=at,
            properties=msgspec.Raw(msgspec.json.encode(properties)),
            traits=msgspec.Raw(msgspec.json.encode(traits)),
            context=msgspec.Raw(b'{"locale":"nb-NO"}') if dice.random() < 0.5 else msgspec.Raw(b"{}"),
        )


class Quiet(Witness):
    """Listens to what comes of it, and not to each change of a customer."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.sent: list[MessageRequested] = []

    def said(self, record: MessageRecord, at: datetime) -> None:
        self.heard.append((at, record))

    def moved(self, customer: str, enrollment: Enrollment, at: datetime) -> None:
        self.heard.append((at, customer, enrollment))

    def ended(self, end: End, at: datetime) -> None:
        self.heard.append((at, end.request.id, end.status, end.reason))
        if end.status == "sent":
            self.sent.append(end.request)


class Curious(Quiet):
    def told(self, record: CustomerUpdated | DateReached, at: datetime) -> None:
        """All is told to who asks for it."""


def lived(
    seed: int, witness: Quiet, *, presence_matters: bool, all_tags: bool = True, book: Playbook | None = None
) -> House:
    house = House(book or PLAYBOOKS[presence_matters], BEGIN, witness=witness, all_tags=all_tags)
    for event in events(seed):
        house.take(event)
        if len(witness.sent) % 3 == 1 and event.name == "Product Added":
            house.take(_click(witness.sent[-1], event))
    house.pass_to(house.as_of + timedelta(days=9))
    return house


def _known(house: House) -> dict[str, Any]:
    """What journeys knows of each customer, but for how they were seen last: nobody has to have looked."""
    return {key: (one.enrollments, one.left, one.credited, one.due) for key, one in house.people.items()}


def _click(request: MessageRequested, event: Event) -> Event:
    properties = {"message_id": request.id, "enrollment": request.enrollment}
    return msgspec.structs.replace(
        event,
        id=f"click {event.id}",
        key=request.customer,
        source=MAILER_SOURCE,
        name="Email Link Clicked",
        properties=msgspec.Raw(msgspec.json.encode(properties)),
    )


@pytest.mark.parametrize("presence_matters", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_what_nobody_reads_makes_no_difference(seed: int, presence_matters: bool) -> None:
    quiet, curious = Quiet(), Curious()
    some = lived(seed, quiet, presence_matters=presence_matters)
    all_told = lived(seed, curious, presence_matters=presence_matters)
    assert quiet.heard == curious.heard
    assert some.profiles == all_told.profiles
    assert some.duplicates == all_told.duplicates
    assert _known(some) == _known(all_told)
    assert quiet.sent


@pytest.mark.parametrize("presence_matters", [True, False])
def test_what_nobody_reads_makes_no_difference_where_customers_are_ranked(presence_matters: bool) -> None:
    book = playbook(presence_matters=presence_matters, ranks=True)
    sent = []
    for seed in range(3):
        quiet, curious = Quiet(), Curious()
        some = lived(seed, quiet, presence_matters=presence_matters, book=book)
        all_told = lived(seed, curious, presence_matters=presence_matters, book=book)
        assert quiet.heard == curious.heard
        assert some.profiles == all_told.profiles
        assert _known(some) == _known(all_told)
        few = lived(seed, Quiet(), presence_matters=presence_matters, book=book, all_tags=False)
        assert list(few.tags()) == list(all_told.tags())
        sent += [mail.data["with"]["seen"] for mail in quiet.sent if mail.journey == "best"]
    assert {percentile >= 60 for percentile in sent} == {True, False}, "it is asked anew when the mail is"


@pytest.mark.parametrize("presence_matters", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_segments_that_no_journey_asks_for_make_no_difference(seed: int, presence_matters: bool) -> None:
    """The journeys ask for the stage, and for the segment `away`."""
    quiet, curious = Quiet(), Curious()
    some = lived(seed, quiet, presence_matters=presence_matters, all_tags=False)
    all_told = lived(seed, curious, presence_matters=presence_matters)
    assert {name for profile in some.profiles.values() for name in profile.segments} <= {"away"}
    assert list(some.tags()) == list(all_told.tags())
    counted = [{key: profile.aggregates for key, profile in one.profiles.items()} for one in (some, all_told)]
    assert counted[0] == counted[1]
    assert [_without_segments(heard) for heard in quiet.heard] == [_without_segments(heard) for heard in curious.heard]
    assert quiet.sent


def _without_segments(heard: tuple[Any, ...]) -> tuple[Any, ...]:
    at, what, *more = heard
    if isinstance(what, MessageRequested):
        what = msgspec.structs.replace(what, data={**what.data, "customer": {**what.data["customer"], "segments": ()}})
    return at, what, *more
