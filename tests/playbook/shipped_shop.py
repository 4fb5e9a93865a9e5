"""A shop with the shipped playbook, lived through in the house: for what tests of journeys do not see, above all the
words of mails."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import msgspec
from shipped_cases import PLAYBOOK, RENDERER

from services.mailer.mime import compose
from services.rehearsal.house import House
from services.rehearsal.witness import End, Witness
from shared.contracts.events import Event
from shared.language.durations import parse_duration

LAMP = {"product_id": "lamp-01", "name": "Lantern Nord", "price": 89.0, "quantity": 1}
BULB = {"product_id": "bulb-01", "name": "Warm bulb E27", "price": 12.0, "quantity": 1}


class Shop(Witness):
    """Times are told from Monday 2 March 2026, 12:00 UTC."""

    BEGINS = datetime(2026, 3, 2, 12, tzinfo=UTC)

    def __init__(self) -> None:
        self.mails: list[tuple[str, datetime]] = []
        """Each mail that went out, with the instant that it was asked for."""
        self.texts: list[str] = []
        self._ids = count(1)
        self._house = House(
            PLAYBOOK,
            self.BEGINS - timedelta(days=365),
            witness=self,
            compose=lambda _, request, now: compose(RENDERER, request, now),
        )

    def ended(self, end: End, at: datetime) -> None:
        if end.mail is not None:
            self.mails.append((end.request.message, end.decided_for))
            self.texts.append(end.mail.rendered.text)

    @staticmethod
    def at(text: str) -> datetime:
        return Shop.BEGINS + parse_duration(text)

    def joins(self, when: str = "0m", customer: str = "ada", **traits: Any) -> None:
        consent = dict.fromkeys(PLAYBOOK.topics, True)
        told = {"email": f"{customer}@example.com", "first_name": customer.title(), "consent": consent, **traits}
        self._take(when, customer, type="identify", traits=msgspec.Raw(msgspec.json.encode(told)))

    def posts(self, name: str, when: str, customer: str = "ada", /, **properties: Any) -> None:
        self._take(when, customer, name=name, properties=msgspec.Raw(msgspec.json.encode(properties)))

    def adds(self, *products: dict[str, Any], when: str) -> None:
        for product in products:
            self.posts("Product Added", when, **product, cart_id="cart-1-1", currency="EUR")

    def orders(self, order: str, when: str) -> None:
        self.posts("Order Completed", when, order_id=order, total=89.0, currency="EUR", products=[LAMP])

    def passes(self, until: str | datetime) -> None:
        """Time goes on, with everything that falls due on the way."""
        self._house.pass_to(self.at(until) if isinstance(until, str) else until)

    def stage(self, customer: str = "ada") -> str:
        return self._house.profiles[customer].stage

    def segments(self, customer: str = "ada") -> tuple[str, ...]:
        return self._house.profiles[customer].segments

    def _take(self, when: str, customer: str, **what: Any) -> None:
        moment = self.at(when)
        self._house.pass_to(moment)
        id = f"event-{next(self._ids)}"
        self._house.take(Event(id=id, source="shop", key=customer, occurred_at=moment, received_at=moment, **what))
