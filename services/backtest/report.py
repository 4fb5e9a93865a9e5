"""What came of a history: facts in, a report out. Pure.

`Findings` is told each fact as it happens and keeps counts; what it remembers grows with customers, not with events.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Context, Decimal
from zoneinfo import ZoneInfo

import msgspec

from services.backtest.reading import Refusal
from shared.contracts.messages import EMAIL, PUSH, SMS, WEBHOOK
from shared.language.playbook import Playbook

BUSIEST = 10
_PLACES_SHOWN = 5
EXACT = Context(prec=1_000)
"""Sums of money in it do not depend on the order in which they are made."""
CALLED = {
    EMAIL: ("mail", "mails"),
    SMS: ("text message", "text messages"),
    PUSH: ("notification", "notifications"),
    WEBHOOK: ("call of a webhook", "calls of webhooks"),
}
"""What one, and several, of each channel are called."""

CANNOT_KNOW = (
    "People would have behaved otherwise. History shows what they did with the messages that they got then; who would "
    "have bought because of a message, or left because of one too many, nobody can say. Read attributed value as "
    "“bought after a message”, never as “bought because of it”: for that there is holdout.",
    "Nobody clicks, answers or unsubscribes in a simulation, unless history has it. A journey that waits for a click "
    "takes its timeout.",
    "Every message that goes out arrives: there are no bounces and no servers that are away.",
    "History begins somewhere. What customers did before its first line (orders, consent, traits) is unknown here, so "
    "the first weeks may show more first orders and fewer consents than there were.",
)


class Refused(msgspec.Struct, frozen=True):
    """Lines that were no events, by code; `places` are the first few, `message` is what the first was told."""

    code: str
    count: int
    message: str
    places: list[str]


class Sends(msgspec.Struct, frozen=True):
    """One message of one journey, on one channel. `held` counts holds by reason; the same may be held several times."""

    message: str
    journey: str
    channel: str
    sent: int
    held: dict[str, int]
    skipped: dict[str, int]
    failed: dict[str, int]


class JourneyFindings(msgspec.Struct, frozen=True):
    """`customers` entered `entered` times; `declined` counts who was not let in, and `inside` who still is, by step.

    `goals` are enrollments whose goal was reached; `attributed` is what the orders among them were worth to this
    journey, by currency. The held-out stand beside, in `held_out` and `held_out_goals`.
    """

    journey: str
    title: str
    status: str
    entered: int
    customers: int
    held_out: int
    declined: dict[str, int]
    exits: dict[str, int]
    inside: dict[str, int]
    sent: int
    goals: int
    held_out_goals: int
    attributed: dict[str, Decimal]


class Busy(msgspec.Struct, frozen=True):
    customer: str
    sent: int
    messages: dict[str, int]


class Report(msgspec.Struct, frozen=True):
    """Days and hours are those of the brand's timezone. `per_hour` has one row for each weekday from Monday on."""

    playbook: str
    brand: str
    timezone: str
    currency: str
    begin: datetime | None
    end: datetime | None
    events: int
    duplicates: int
    refused: list[Refused]
    customers: int
    stages: dict[str, int]
    segments: dict[str, int]
    journeys: list[JourneyFindings]
    messages: list[Sends]
    sent: int
    """Messages to people, on all channels."""
    channels: dict[str, int]
    """What went out by channel: `email`, `sms`, `push`; and the calls of `webhook` steps, which nobody gets."""
    per_day: dict[date, dict[str, int]]
    per_hour: list[list[int]]
    per_customer: dict[int, int]
    """How many customers got so many messages; those who got none are left out."""
    busiest: list[Busy]
    coupons: dict[str, int]
    """Codes issued, by pool."""
    coupons_missing: dict[str, int]
    """How often a pool was empty."""
    cannot_know: tuple[str, ...] = CANNOT_KNOW


class CustomerStory(msgspec.Struct):
    """What one customer got. `digest` stands for all of it with its times, so that two playbooks can be compared; it
    means nothing to another process."""

    messages: dict[str, int] = {}
    entered: dict[str, int] = {}
    digest: int = 0


class Refusals:
    """What was refused, by code. Which of it is shown does not depend on the order in which it was met."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._shown: dict[str, list[Refusal]] = {}

    def note(self, refusal: Refusal) -> None:
        self._counts[refusal.code] += 1
        self._show(refusal)

    def add(self, other: Refusals) -> None:
        self._counts.update(other._counts)
        for shown in other._shown.values():
            for refusal in shown:
                self._show(refusal)

    def told(self) -> list[Refused]:
        """The most frequent first."""
        return [
            Refused(code, count, self._shown[code][0].message, [one.place for one in self._shown[code]])
            for code, count in most_first(self._counts).items()
        ]

    def _show(self, refusal: Refusal) -> None:
        shown = self._shown.setdefault(refusal.code, [])
        if len(shown) < _PLACES_SHOWN or refusal < shown[-1]:
            insort(shown, refusal)
            del shown[_PLACES_SHOWN:]


class _JourneyCounts:
    def __init__(self) -> None:
        self.entered = self.held_out = self.sent = self.goals = self.held_out_goals = 0
        self.declined: Counter[str] = Counter()
        self.exits: Counter[str] = Counter()
        self.inside: Counter[str] = Counter()
        self.attributed: dict[str, Decimal] = {}


class _MessageCounts:
    def __init__(self) -> None:
        self.sent = 0
        self.held: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()


class Findings:
    """Collects what happens under one playbook."""

    def __init__(self, playbook: Playbook) -> None:
        self._playbook = playbook
        self._zone = ZoneInfo(playbook.brand.timezone)
        self.begin: datetime | None = None
        self.end: datetime | None = None
        self.events = 0
        self.duplicates = 0
        self.customers: dict[str, CustomerStory] = {}
        self.refusals = Refusals()
        self._journeys = {name: _JourneyCounts() for name in playbook.journeys}
        self._messages: dict[tuple[str, str, str], _MessageCounts] = {}
        self._channels: Counter[str] = Counter()
        self._days: dict[date, Counter[str]] = {}
        self._hours = [[0] * 24 for _ in range(7)]
        self.coupons: Mapping[str, int] = {}
        self.coupons_missing: Mapping[str, int] = {}

    def refused(self, refusal: Refusal) -> None:
        """A line was no event, or an event could not be taken."""
        self.refusals.note(refusal)

    def entered(self, journey: str, customer: str, at: datetime, *, held_out: bool) -> None:
        counts = self._journeys[journey]
        counts.entered += 1
        counts.held_out += held_out
        story = self._story(customer)
        story.entered = {**story.entered, journey: story.entered.get(journey, 0) + 1}
        _note(story, "entered", journey, at)

    def declined(self, journey: str, reason: str, count: int) -> None:
        self._journeys[journey].declined[reason] += count

    def left(self, journey: str, customer: str, reason: str, at: datetime) -> None:
        self._journeys[journey].exits[reason] += 1
        _note(self._story(customer), reason, journey, at)

    def reached_goal(self, journey: str, *, held_out: bool) -> None:
        counts = self._journeys[journey]
        counts.goals += not held_out
        counts.held_out_goals += held_out

    def attributed(self, journey: str, value: Decimal, currency: str) -> None:
        amounts = self._journeys[journey].attributed
        amounts[currency] = EXACT.add(amounts.get(currency, Decimal(0)), value)

    def sent(self, journey: str, message: str, channel: str, customer: str, at: datetime) -> None:
        self._of_message(journey, message, channel).sent += 1
        self._channels[channel] += 1
        if journey in self._journeys:
            self._journeys[journey].sent += 1
        local = at.astimezone(self._zone)
        self._days.setdefault(local.date(), Counter())[journey] += 1
        self._hours[local.weekday()][local.hour] += 1
        story = self._story(customer)
        story.messages = {**story.messages, message: story.messages.get(message, 0) + 1}
        _note(story, "sent", message, at)

    def called(self) -> None:
        """A `webhook` step has made its call."""
        self._channels[WEBHOOK] += 1

    def held(self, journey: str, message: str, channel: str, reason: str) -> None:
        self._of_message(journey, message, channel).held[reason] += 1

    def skipped(self, journey: str, message: str, channel: str, customer: str, reason: str, at: datetime) -> None:
        self._of_message(journey, message, channel).skipped[reason] += 1
        _note(self._story(customer), reason, message, at)

    def failed(self, journey: str, message: str, channel: str, reason: str) -> None:
        self._of_message(journey, message, channel).failed[reason] += 1

    def still_inside(self, journey: str, step: str) -> None:
        self._journeys[journey].inside[step] += 1

    def report(self, customers: int, stages: Mapping[str, int], segments: Mapping[str, int]) -> Report:
        """With how many customers there are at the end, and how they are tagged."""
        playbook = self._playbook
        entered_by: Counter[str] = Counter()
        for story in self.customers.values():
            entered_by.update(story.entered.keys())
        return Report(
            playbook=playbook.hash,
            brand=playbook.brand.name,
            timezone=playbook.brand.timezone,
            currency=playbook.brand.currency,
            begin=self.begin,
            end=self.end,
            events=self.events,
            duplicates=self.duplicates,
            refused=self.refusals.told(),
            customers=customers,
            stages=dict(stages),
            segments=dict(segments),
            journeys=[self._journey(name, counts, entered_by[name]) for name, counts in self._journeys.items()],
            messages=[
                Sends(
                    message,
                    journey,
                    channel,
                    counts.sent,
                    most_first(counts.held),
                    most_first(counts.skipped),
                    most_first(counts.failed),
                )
                for (journey, message, channel), counts in sorted(self._messages.items())
            ],
            sent=sum(counts.sent for counts in self._messages.values()),
            channels={channel: self._channels[channel] for channel in CALLED if self._channels[channel]},
            per_day={day: dict(sorted(counts.items())) for day, counts in sorted(self._days.items())},
            per_hour=self._hours,
            per_customer=dict(
                sorted(Counter(sum(s.messages.values()) for s in self.customers.values() if s.messages).items())
            ),
            busiest=self._busiest(),
            coupons=most_first(self.coupons),
            coupons_missing=most_first(self.coupons_missing),
        )

    def _journey(self, name: str, counts: _JourneyCounts, customers: int) -> JourneyFindings:
        journey = self._playbook.journeys[name]
        return JourneyFindings(
            journey=name,
            title=journey.title,
            status=journey.status,
            entered=counts.entered,
            customers=customers,
            held_out=counts.held_out,
            declined=most_first(counts.declined),
            exits=most_first(counts.exits),
            inside=most_first(counts.inside),
            sent=counts.sent,
            goals=counts.goals,
            held_out_goals=counts.held_out_goals,
            attributed=dict(sorted(counts.attributed.items())),
        )

    def _busiest(self) -> list[Busy]:
        reached = (
            (sum(story.messages.values()), customer) for customer, story in self.customers.items() if story.messages
        )
        most = heapq.nsmallest(BUSIEST, reached, key=lambda one: (-one[0], one[1]))
        return [Busy(customer, sent, most_first(self.customers[customer].messages)) for sent, customer in most]

    def _of_message(self, journey: str, message: str, channel: str) -> _MessageCounts:
        counts = self._messages.get((journey, message, channel))
        if counts is None:
            counts = self._messages[journey, message, channel] = _MessageCounts()
        return counts

    def _story(self, customer: str) -> CustomerStory:
        story = self.customers.get(customer)
        if story is None:
            story = self.customers[customer] = CustomerStory()
        return story


def _note(story: CustomerStory, fact: str, what: str, at: datetime) -> None:
    # Added up, so that the order of two facts of one instant does not tell two runs apart.
    story.digest = (story.digest + hash((fact, what, at))) & 0xFFFF_FFFF_FFFF


def most_first(counts: Mapping[str, int]) -> dict[str, int]:
    """Sorted so."""
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))
