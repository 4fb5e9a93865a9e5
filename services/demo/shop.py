"""A fictional lamp shop. Its customers live fast, and all that they do goes through HTTP as any shop's events do,
with Segment's official Python client."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

from segment.analytics.client import Client

_FIRST_NAMES = [
    "Ada",
    "Bo",
    "Clara",
    "Dario",
    "Edda",
    "Finn",
    "Greta",
    "Hugo",
    "Ida",
    "Jonas",
    "Kaia",
    "Leo",
    "Maja",
    "Nils",
    "Oda",
    "Pia",
    "Quirin",
    "Ronja",
    "Sven",
    "Tilda",
    "Ulla",
    "Vera",
    "Wim",
    "Xenia",
    "Yara",
    "Zoe",
]
_HOMES = (
    ("Europe/Oslo", "nb-NO", "NO"),
    ("Europe/Berlin", "de-DE", "DE"),
    ("Europe/London", "en-GB", "GB"),
    ("America/New_York", "en-US", "US"),
    ("Asia/Tokyo", "en", "JP"),
)
_LAMPS = (
    ("lamp-01", "Lantern Nord", "lamps", 89.0),
    ("lamp-02", "Desk lamp Fjell", "lamps", 129.0),
    ("lamp-03", "Pendant Måne", "lamps", 249.0),
    ("lamp-04", "Reading lamp Stille", "lamps", 179.0),
    ("bulb-01", "Warm bulb E27", "bulbs", 12.0),
    ("bulb-02", "Filament bulb G95", "bulbs", 19.0),
    ("shade-01", "Linen shade", "shades", 39.0),
)


@dataclass(eq=False)
class Told:
    """What the shop has told: when it did, and when that was answered 200, by the shop's clock. It was received in
    between, over which a busy machine may take an hour of that clock."""

    at: datetime
    answered: datetime | None = None


@dataclass(eq=False)
class Cart:
    """`ordered` is None as long as nobody bought it."""

    id: str
    fills: list[Told] = field(default_factory=list)
    """What was put into it, in order."""
    total: float = 0.0
    ordered: Told | None = None

    @property
    def order_id(self) -> str:
        return self.id.replace("cart", "order")


@dataclass(eq=False)
class Shopper:
    """A customer, and what the shop knows of what they did: the causes that mails may have."""

    user_id: str
    email: str
    first_name: str
    timezone: str
    locale: str
    country: str
    birthday: date
    joined_at: datetime | None = None
    carts: list[Cart] = field(default_factory=list)


Moment = tuple[timedelta, Callable[[], None]]


class Shop(threading.Thread):
    """Posts the lives of its customers, at the pace of the clock `now`.

    `accepted` are the ids of the messages that ingest answered 200, once it is over.
    """

    def __init__(
        self, address: str, write_key: str, now: Callable[[], datetime], seconds: float, seed: int = 7
    ) -> None:
        super().__init__(name="shop", daemon=True)
        self.shoppers: dict[str, Shopper] = {}
        self.accepted: set[str] = set()
        self._now = now
        self._seconds = seconds
        self._random = random.Random(seed)
        self._told: dict[str, Told] = {}
        self._ended = threading.Event()
        self._client = Client(
            write_key,
            host=address,
            upload_interval=0.2,
            upload_size=50,
            max_retries=10,
            timeout=15,
        )
        # The client has no other way to tell when something was answered.
        for consumer in self._client.consumers:
            consumer.request = partial(self._deliver, consumer.request)

    def stop(self) -> None:
        """No more customers; returns when everything that was posted has been answered."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        started = time.monotonic()
        lives: list[tuple[datetime, int, Iterator[Moment], Callable[[], None]]] = []
        number = 0
        next_arrival = 0.0
        while not self._ended.is_set() and time.monotonic() - started < self._seconds:
            if time.monotonic() - started >= next_arrival:
                number += 1
                next_arrival += self._random.expovariate(6.0)
                self._begin(lives, number)
            now = self._now()
            due = [life for life in lives if life[0] <= now]
            for life in due:
                lives.remove(life)
                life[3]()
                self._next(lives, life[1], life[2])
            self._ended.wait(0.01)
        self._client.flush()
        self._client.join()
        self.accepted = {id for id, told in self._told.items() if told.answered is not None}

    def _begin(self, lives: list[Any], number: int) -> None:
        name = _FIRST_NAMES[number % len(_FIRST_NAMES)]
        timezone, locale, country = self._random.choice(_HOMES)
        today = self._now().date()
        days_to_birthday = self._random.choice((1, 2)) if number % 8 == 0 else self._random.randrange(5, 330)
        # 1992 was a leap year, so every day of any year is in it.
        birthday = (today + timedelta(days=days_to_birthday)).replace(year=1992)
        shopper = Shopper(
            user_id=f"customer-{number}",
            email=f"{name.lower()}.{number}@example.com",
            first_name=name,
            timezone=timezone,
            locale=locale,
            country=country,
            birthday=birthday,
        )
        self.shoppers[shopper.user_id] = shopper
        stories = (self._looks_around, self._forgets, self._comes_back, self._buys, self._loves_lamps)
        story = self._random.choices(stories, (20, 30, 15, 20, 15))[0]
        self._next(lives, number, story(shopper))

    def _next(self, lives: list[Any], number: int, story: Iterator[Moment]) -> None:
        moment = next(story, None)
        if moment is not None:
            wait, act = moment
            lives.append((self._now() + wait, number, story, act))

    # The stories. Each moment is how long after the one before, and what happens then.

    def _looks_around(self, shopper: Shopper) -> Iterator[Moment]:
        yield timedelta(0), lambda: self._joins(shopper)
        for _ in range(self._random.randrange(1, 6)):
            yield self._minutes(1, 5), lambda: self._views(shopper)

    def _forgets(self, shopper: Shopper) -> Iterator[Moment]:
        yield from self._looks_around(shopper)
        cart = self._new_cart(shopper, 1)
        for _ in range(self._random.randrange(1, 4)):
            yield self._minutes(1, 5), lambda: self._adds(shopper, cart)

    def _comes_back(self, shopper: Shopper) -> Iterator[Moment]:
        yield from self._forgets(shopper)
        yield timedelta(hours=self._random.uniform(3, 20)), lambda: self._orders(shopper, shopper.carts[-1])

    def _buys(self, shopper: Shopper) -> Iterator[Moment]:
        yield from self._forgets(shopper)
        yield self._minutes(5, 15), lambda: self._orders(shopper, shopper.carts[-1])

    def _loves_lamps(self, shopper: Shopper) -> Iterator[Moment]:
        yield from self._buys(shopper)
        for number in range(2, 5):
            cart = self._new_cart(shopper, number)
            yield timedelta(hours=self._random.uniform(2, 10)), partial(self._adds, shopper, cart)
            yield self._minutes(5, 15), partial(self._orders, shopper, cart)

    def _minutes(self, least: float, most: float) -> timedelta:
        return timedelta(minutes=self._random.uniform(least, most))

    # What customers do.

    def _joins(self, shopper: Shopper) -> None:
        shopper.joined_at = self._now()
        traits = {
            "email": shopper.email,
            "first_name": shopper.first_name,
            "timezone": shopper.timezone,
            "locale": shopper.locale,
            "country": shopper.country,
            "birthday": shopper.birthday.isoformat(),
            "consent": dict.fromkeys(CONSENTED, True),
        }
        self._post("identify", shopper.user_id, traits=traits)

    def _views(self, shopper: Shopper) -> None:
        self._track(shopper, "Product Viewed", _product(self._random.choice(_LAMPS)))

    def _new_cart(self, shopper: Shopper, number: int) -> Cart:
        return Cart(f"cart-{shopper.user_id.removeprefix('customer-')}-{number}")

    def _adds(self, shopper: Shopper, cart: Cart) -> None:
        if cart not in shopper.carts:
            shopper.carts.append(cart)
        product = _product(self._random.choice(_LAMPS))
        cart.total += product["price"]
        added = self._track(shopper, "Product Added", product | {"cart_id": cart.id, "currency": "EUR"})
        cart.fills.append(added)

    def _orders(self, shopper: Shopper, cart: Cart) -> None:
        products = [_product(lamp) for lamp in self._random.sample(_LAMPS, self._random.randrange(1, 4))]
        total = round(sum(product["price"] for product in products), 2)
        properties = {
            "order_id": cart.order_id,
            "cart_id": cart.id,
            "total": total,
            "currency": "EUR",
            "products": products,
        }
        cart.ordered = self._track(shopper, "Order Completed", properties)

    def _track(self, shopper: Shopper, event: str, properties: dict[str, Any]) -> Told:
        return self._post("track", shopper.user_id, event=event, properties=properties)

    def _post(self, call: str, user_id: str, **fields: Any) -> Told:
        message_id = f"shop-{len(self._told) + 1}"
        told = self._told[message_id] = Told(self._now())
        getattr(self._client, call)(user_id, message_id=message_id, **fields)
        return told

    def _deliver(self, request: Callable[[list[dict[str, Any]]], None], batch: list[dict[str, Any]]) -> None:
        request(batch)
        now = self._now()
        for message in batch:
            self._told[message["messageId"]].answered = now


CONSENTED = ("cart-reminders", "birthday", "thank-you")
"""The topics of the shipped playbook that the shop's customers say yes to when they join."""


def _product(lamp: tuple[str, str, str, float]) -> dict[str, Any]:
    sku, name, category, price = lamp
    return {
        "product_id": sku,
        "sku": sku,
        "name": name,
        "category": category,
        "price": price,
        "quantity": 1,
        "url": f"https://lamps.example/{sku}",
    }
