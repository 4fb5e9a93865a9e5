"""One test: the customer's history through ingest's admission and the house, and what came of it beside what must."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from services.ingest.admission import Envelope, admit
from services.ingest.refusals import Rejection
from services.mailer.outcomes import report
from services.mailer.transport import Accepted, Receipt, Rejected, Unknown
from services.mailer.turn import Compose
from services.rehearsal.house import House
from services.trials.comparing import Comparison, Difference, as_json
from services.trials.pinning import pinned
from services.trials.story import Story, described
from shared.contracts.events import EMAIL_LINK_CLICKED, EMAIL_OPENED, SURVEY_ANSWERED, CutOffs, Event
from shared.contracts.messages import MessageRequested
from shared.language import WithTests
from shared.language.checks.tests import DEFAULT_START, TestedJourney, instant_of
from shared.language.source import Place
from shared.language.tests_file import (
    NO_ADDRESS,
    GivenClick,
    GivenEvent,
    GivenOpen,
    GivenPercentile,
    GivenReply,
    GivenTraits,
    JourneyTest,
    TestedCustomer,
)

CUSTOMER = "customer"
LONGEST = timedelta(days=400)
"""How long a story is told where nothing is said."""

_IN_FORCE_BEFORE = timedelta(days=366)
"""How long the playbook has been in force when a story begins: long enough for each date of the year to count."""

_ANSWERS: Mapping[str, Receipt] = {
    "sent": Accepted("250 tested"),
    "bounced": Rejected("550 5.1.1 tested", suppress=True),
    "failed": Rejected("554 tested", suppress=False),
    "unknown": Unknown("tested"),
}

PHONE = "+4740000000"
"""The number of a test's customer who has an address."""


class Verdict(msgspec.Struct, frozen=True):
    """What came of a test; it has passed where there is no difference."""

    tested: TestedJourney
    test: JourneyTest
    number: int
    start: datetime
    story: Story
    differences: Sequence[Difference]

    @property
    def place(self) -> Place:
        return self.tested.place(self.number)


def run(loaded: WithTests, compose: Compose, tested: TestedJourney, number: int) -> Verdict:
    """The test with this number in its file."""
    test = tested.tests[number]
    start = (test.start or DEFAULT_START).astimezone(UTC)
    book = pinned(loaded.playbook, tested.journey, test.arms)
    story = Story(book, loaded.places, tested.journey)

    def answer(request: MessageRequested, now: datetime) -> Receipt:
        mine = request.journey == tested.journey
        return _ANSWERS[test.outcomes.get(request.message, "sent") if mine else "sent"]

    house = House(book, start - _IN_FORCE_BEFORE, witness=story, compose=compose, answer=answer, nights=False)
    house.pass_to(start)
    differences = list(_live(house, story, tested, test, number, start))
    comparison = Comparison(tested, number, start)
    return Verdict(tested, test, number, start, story, [*differences, *comparison.of(story, test.expect)])


def _live(
    house: House, story: Story, tested: TestedJourney, test: JourneyTest, number: int, start: datetime
) -> Iterator[Difference]:
    """What is given, in order; gives what cannot have happened so."""
    customer = test.customer or TestedCustomer.model_construct()
    consent = {**dict.fromkeys(story.playbook.topics, True), **customer.consent}
    traits: dict[str, Any] = {"consent": {topic: said for topic, said in consent.items() if said is not None}}
    if customer.address != NO_ADDRESS:
        traits |= {"email": customer.address, "phone": PHONE, "push_token": "device"}
    joined = _admitted({"type": "identify", "traits": {**traits, **customer.traits}}, "joined", start, start)
    if isinstance(joined, Rejection):
        place = tested.place(number, "customer")
        yield Difference("customer", f"ingest refuses this: {joined.message}", "something that a shop can send", place)
        return
    house.take(joined)
    if customer.spend_percentile is not None:
        _rank(house, story, customer.spend_percentile)
    for position, given in enumerate(test.given):
        at = instant_of(given.at, start)
        place = tested.place(number, "given", position)
        house.pass_to(at)
        if isinstance(given, GivenPercentile):
            story.say(at, f"has spent more than {given.spend_percentile} % of the others, as of this night")
            _rank(house, story, given.spend_percentile)
            continue
        event: Event | Rejection
        if isinstance(given, GivenClick | GivenOpen):
            step = given.clicked if isinstance(given, GivenClick) else given.opened
            mail = next((end.request for end in reversed(story.sent) if end.request.step == step), None)
            if mail is None:
                what = "clicked" if isinstance(given, GivenClick) else "opened"
                yield Difference(what, "nothing was sent by then", f"a mail of step {step}", place, due=at)
                continue
            verb = "clicks in" if isinstance(given, GivenClick) else "opens"
            story.say(at, f"{'a machine ' if given.machine else ''}{verb} {mail.message}")
            event = _used(mail, given, position, at)
        else:
            story.say(at, _said(given))
            event = _admitted(_call(given, start), f"given-{position}", at, at)
        if isinstance(event, Rejection):
            yield Difference("given", f"ingest refuses this: {event.message}", "what a shop can send", place, due=at)
            continue
        house.take(event)
    house.pass_to(start + (test.until or LONGEST))


def _rank(house: House, story: Story, percentile: int) -> None:
    """Everybody reaches so many cut-offs, whatever they have spent."""
    spend = story.playbook.spend
    if spend is not None:
        amounts = (Decimal(0),) * percentile
        house.rank(CutOffs(metric=spend.id, amounts=amounts, customers=1, received_at=house.as_of, v=3))


def _said(given: GivenEvent | GivenTraits | GivenReply) -> str:
    if isinstance(given, GivenTraits):
        return described("has traits", given.traits)
    if isinstance(given, GivenReply):
        return f"answers {described(given.reply, given.properties)}"
    return described(given.event, given.properties)


def _call(given: GivenEvent | GivenTraits | GivenReply, start: datetime) -> dict[str, Any]:
    """What a shop would post."""
    if isinstance(given, GivenTraits):
        return {"type": "identify", "traits": given.traits}
    if isinstance(given, GivenReply):
        return {"type": "track", "event": SURVEY_ANSWERED, "properties": {"survey": given.reply, **given.properties}}
    call: dict[str, Any] = {"type": "track", "event": given.event, "properties": given.properties}
    if given.occurred_at is not None:
        call["timestamp"] = instant_of(given.occurred_at, start).isoformat()
    if given.historical:
        call["context"] = {"historical": True}
    return call


def _admitted(call: Mapping[str, Any], id: str, occurred: datetime, received: datetime) -> Event | Rejection:
    body = {"userId": CUSTOMER, "messageId": id, "timestamp": occurred.isoformat(), **call}
    return admit(as_json(body).encode(), None, Envelope("test", received))


def _used(mail: MessageRequested, given: GivenClick | GivenOpen, position: int, at: datetime) -> Event:
    """What the mailer reports of somebody, or something, that looks at a mail."""
    name = EMAIL_LINK_CLICKED if isinstance(given, GivenClick) else EMAIL_OPENED
    about = {"machine": given.machine, **({"link": "1"} if isinstance(given, GivenClick) else {})}
    return msgspec.json.decode(report(mail, f"given-{position}", name, at, about), type=Event)
