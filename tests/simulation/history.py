"""What happens in a history: what customers do, how time passes, and which troubles come. Drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tests.simulation.weather import OUTAGES

CUSTOMERS = ("ann", "ben", "cai", "deb", "eve")
WORKERS = ("segmenter-1", "segmenter-2", "journeys-1", "journeys-2", "mailer-1", "mailer-2")
PROCESSES = (*WORKERS, "ingest-1", "ingest-2")
SOURCE = "shop"
_ACTS = 10, 22
"""Many short histories find what few long ones find, and sooner; what they begin goes on for days."""
_ACTS_A_SECOND = 24.0
"""What a history costs is how long it lasts, far more than what happens in it: ticks, heartbeats, looks for work."""
_FEW, _MANY = (1, 1, 1, 1, 2, 3), (1, 2, 3, 5, 8)
"""How many calls a post has: where there are many, more happens at one instant, and in one transaction."""
RANKING = 6
"""The playbook that ranks customers."""
_FOLLOWING = 0, 1, 2, 3, 4, 5, RANKING
_ROUGH = 0.0, 1.0, 1.0, 2.0, 2.0, 4.0
_BATCHES = {
    (1, 0.0): 1,
    (2, 0.0): 1,
    (3, 0.02): 2,
    (5, 0.02): 2,
    (16, 0.2): 3,
    (100, 0.2): 2,
    (2000, 0.0): 2,
    (2000, 0.2): 3,
}
"""How many records a batch has at most, and for how many seconds partitions gather for one transaction. Small batches
are for timers that a transaction cannot take at once; where they wait for one another, too, nothing ends. The
smallest cost three times what large ones do, and are drawn less often."""
_PARTITIONS = (2, 2, 2, 3)
"""Two are enough for all that goes on between partitions but one: that workers have unequal shares of them."""


@dataclass(frozen=True)
class Act:
    """Something that happens `at` so many seconds of the machine's time."""

    at: float

    def __str__(self) -> str:
        fields = ", ".join(f"{name}={value}" for name, value in vars(self).items() if name != "at")
        return f"{type(self).__name__.lower()} {fields}"


@dataclass(frozen=True)
class Post(Act):
    """The shop posts these calls, again and again until it is answered, or `tries` times. `ago` (by message id) says
    how long ago each of them happened."""

    calls: tuple[dict[str, Any], ...]
    tries: int
    ago: dict[str, timedelta] = field(default_factory=dict)


@dataclass(frozen=True)
class Leap(Act):
    """The clock goes on."""

    by: timedelta


@dataclass(frozen=True)
class Kill(Act):
    process: str
    back_after: float


@dataclass(frozen=True)
class Terminate(Act):
    process: str
    back_after: float


@dataclass(frozen=True)
class Halt(Act):
    """Stopped, and resumed."""

    process: str
    seconds: float


@dataclass(frozen=True)
class Outage(Act):
    what: str
    seconds: float


@dataclass(frozen=True)
class Apply(Act):
    """A playbook is applied; the cart's journey may be paused by hand, and those inside it taken along."""

    variant: int
    paused: bool
    moves: bool


@dataclass(frozen=True)
class Click(Act):
    """Somebody follows a link of a mail that they got; `which` of them, between 0 and 1."""

    which: float


@dataclass(frozen=True)
class Look(Act):
    """The image of a mail is fetched, by a person or by a machine."""

    which: float
    machine: bool


@dataclass(frozen=True)
class Unsubscribe(Act):
    which: float
    everything: bool


@dataclass(frozen=True)
class History:
    seed: int
    partitions: int
    roughness: float
    batch_records: int
    gather_seconds: float
    acts: tuple[Act, ...]
    variant: int
    """The playbook that it begins with."""

    @property
    def housekeeping_seconds(self) -> float:
        """A night is seen to be over when house is kept; otherwise there is no hurry."""
        applied = {act.variant for act in self.acts if isinstance(act, Apply)} | {self.variant}
        return 1.0 if RANKING in applied else 20.0


def draw(seed: int) -> History:
    dice = random.Random(f"history {seed}")
    acts: list[Act] = []
    at = 0.0
    for act in _acts(dice):
        at += dice.expovariate(_ACTS_A_SECOND) if dice.random() < 0.95 else dice.uniform(0.5, 1.5)
        acts.append(act(at))
    for hours in (1.5, 26):  # what they began goes on while troubles last
        at += 1.2
        acts.append(Leap(at, timedelta(hours=hours)))
    return History(
        seed,
        dice.choice(_PARTITIONS),
        dice.choice(_ROUGH),
        *dice.choices([*_BATCHES], _BATCHES.values())[0],
        tuple(acts),
        RANKING if dice.random() < 0.3 else 0,
    )


def _acts(dice: random.Random) -> Iterator[Any]:
    shop = _Shop(dice)
    by_hand = dice.random() < 0.4
    """Journeys may be paused, and people taken along, by hand: a simulation of a playbook knows nothing of that."""
    if dice.random() < 0.85:
        yield shop.meet()
    for _ in range(dice.randint(*_ACTS)):
        lot = dice.random()
        if lot < 0.60:
            yield shop.post()
        elif lot < 0.72:
            yield _with(Leap, by=timedelta(minutes=dice.choice([1, 20, 45, 61, 90, 180, 600, 1440, 1700])))
        elif lot < 0.75:
            yield _with(Click, which=dice.random())
        elif lot < 0.77:
            yield _with(Look, which=dice.random(), machine=dice.random() < 0.3)
        elif lot < 0.79:
            yield _with(Unsubscribe, which=dice.random(), everything=dice.random() < 0.2)
        elif lot < 0.82:
            paused, moves = by_hand and dice.random() < 0.2, by_hand and dice.random() < 0.5
            yield _with(Apply, variant=dice.choice(_FOLLOWING), paused=paused, moves=moves)
        elif lot < 0.88:
            yield _with(Kill, process=dice.choice(PROCESSES), back_after=dice.uniform(0.1, 8))
        elif lot < 0.90:
            yield _with(Terminate, process=dice.choice(WORKERS), back_after=dice.uniform(0.1, 4))
        elif lot < 0.95:
            yield _with(Halt, process=dice.choice(WORKERS), seconds=dice.uniform(0.1, 9))
        else:
            yield _with(Outage, what=dice.choice(OUTAGES), seconds=dice.uniform(0.2, 5))


def _with(kind: type[Act], **fields: Any) -> Any:
    return lambda at: kind(at, **fields)


class _Shop:
    """What the customers of a small shop do."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._at_once = dice.choice([_FEW, _MANY, _MANY])
        self._number = 0
        self._posted: list[dict[str, Any]] = []
        self._ago: dict[str, timedelta] = {}

    def meet(self) -> Any:
        """Most customers say who they are first."""
        calls = []
        for customer in self._dice.sample(CUSTOMERS, 4):
            self._number += 1
            said = {"messageId": f"call-{self._number}", "userId": customer, "type": "identify"}
            calls.append(said | {"traits": self._traits(customer)})
        return _with(Post, calls=tuple(calls), tries=40)

    def post(self) -> Any:
        dice = self._dice
        calls = [self._call() for _ in range(dice.choice(self._at_once))]
        if self._posted and dice.random() < 0.15:
            calls.append(dice.choice(self._posted))  # as shops do now and then, answered or not
        self._posted += calls
        ago = {call["messageId"]: self._ago[call["messageId"]] for call in calls if call["messageId"] in self._ago}
        return _with(Post, calls=tuple(calls), tries=dice.choice([1, 3, 40, 40, 40]), ago=ago)

    def _call(self) -> dict[str, Any]:
        dice = self._dice
        self._number += 1
        id, customer = f"call-{self._number}", dice.choice(CUSTOMERS)
        call: dict[str, Any] = {"messageId": id, "userId": customer, "type": "track"}
        lot = dice.random()
        if lot < 0.30:
            product = {"product_id": f"p{dice.randrange(4)}", "price": dice.choice([5, 15, 30, 50]), "quantity": 1}
            call |= {"event": "Product Added", "properties": product}
        elif lot < 0.40:
            call |= {"event": "Product Removed", "properties": {"product_id": f"p{dice.randrange(4)}", "quantity": 1}}
        elif lot < 0.62:
            order = {"order_id": f"order-{self._number}", "total": dice.choice([10, 40, 60]), "currency": "EUR"}
            call |= {"event": "Order Completed", "properties": order}
        elif lot < 0.80:
            call |= {"type": "identify", "traits": self._traits(customer)}
        elif lot < 0.86:
            name = dice.choice(["Topic Subscribed", "Topic Unsubscribed"])
            call |= {"event": name, "properties": {"topic": dice.choice(["greetings", "reminders", "thanks"])}}
        elif lot < 0.93:
            call |= {"event": "Product Viewed", "properties": {"product_id": "p1", "look": f"look-{self._number}"}}
        elif lot < 0.97:
            call |= {"event": "Survey Answered", "properties": {"survey": "survey", "score": dice.randint(0, 10)}}
        else:
            del call["userId"]  # refused, and kept
            call |= {"event": "Nobody's"}
        if dice.random() < 0.3:
            self._ago[id] = timedelta(minutes=dice.choice([0, 5, 200, 1600]))
        return call

    def _traits(self, customer: str) -> dict[str, Any]:
        dice = self._dice
        traits: dict[str, Any] = {"email": f"{dice.choice([customer, customer, customer, 'house'])}@example.org"}
        if dice.random() < 0.3:
            traits["birthday"] = f"1990-03-{dice.randint(1, 9):02}"
        if dice.random() < 0.3:
            traits["first_name"] = dice.choice([customer.title(), None])
        if dice.random() < 0.5:
            traits["phone"] = dice.choice([f"+47 4000000{CUSTOMERS.index(customer)}", "+47 40000009", "40000000"])
        if dice.random() < 0.4:
            traits["push_token"] = f"device-of-{customer}"
        if dice.random() < 0.3:
            traits["timezone"] = dice.choice(["Europe/Oslo", "America/New_York", "Asia/Tokyo", "Mars/Olympus"])
        return traits
