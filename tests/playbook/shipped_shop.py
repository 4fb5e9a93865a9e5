"""A shop with the shipped playbook: the hearts of segmenter, journeys and mailer, one after the other, in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import Any

import journeys_road
import msgspec
import segmenter_world
from shipped_cases import PLAYBOOK, RENDERER

from services.mailer.mime import compose
from shared.contracts.customers import Activation, CustomerUpdated, DateReached, Tick
from shared.contracts.events import EMAIL_LINK_CLICKED, EMAIL_SENT, EMAIL_SKIPPED, MAILER_SOURCE
from shared.contracts.messages import MessageCancelled, MessageRequested
from shared.language.durations import parse_duration

LAMP = {"product_id": "lamp-01", "name": "Lantern Nord", "price": 89.0, "quantity": 1}
BULB = {"product_id": "bulb-01", "name": "Warm bulb E27", "price": 12.0, "quantity": 1}


class Shop:
    """One partition from the posted event to the composed mail. Times are told from Monday 2 March 2026, 12:00 UTC."""

    BEGINS = segmenter_world.START

    def __init__(self) -> None:
        self.segmenter = segmenter_world.Road(PLAYBOOK)
        self.journeys = journeys_road.Road(PLAYBOOK)
        self.journeys.drive([Activation(as_of=datetime(2020, 1, 1, tzinfo=UTC), playbook=PLAYBOOK.hash)])
        self.mails: list[tuple[str, datetime]] = []
        """Each mail that went out, with the instant that it was asked for."""
        self.texts: list[str] = []
        self.holds = False
        """Whether mails wait in the mailer instead of going out."""
        self._forwarded = 0
        self._handled: set[str] = set()
        self._ids = count(1)

    @staticmethod
    def at(text: str) -> datetime:
        return Shop.BEGINS + parse_duration(text)

    def joins(self, when: str = "0m", customer: str = "ada", **traits: Any) -> None:
        self.passes(when)
        told = {"email": f"{customer}@example.com", "first_name": customer.title(), **traits}
        self.segmenter.take(segmenter_world.identify(self.at(when), key=customer, **told))
        self._carry()

    def posts(self, name: str, when: str, customer: str = "ada", /, **properties: Any) -> None:
        self.passes(when)
        self.segmenter.take(segmenter_world.event(name, self.at(when), key=customer, **properties))
        self._carry()

    def adds(self, *products: dict[str, Any], when: str, cart: str = "cart-1-1", customer: str = "ada") -> None:
        for product in products:
            self.posts("Product Added", when, customer, **product, cart_id=cart, currency="EUR")

    def orders(self, order: str, when: str, customer: str = "ada", **more: Any) -> None:
        self.posts(
            "Order Completed", when, customer, order_id=order, total=89.0, currency="EUR", products=[LAMP], **more
        )

    def clicks(self, when: str, customer: str = "ada") -> None:
        """On the mail that went out last."""
        self.passes(when)
        request = self._requests()[-1]
        self._report(EMAIL_LINK_CLICKED, request, self.at(when))
        self._carry()

    def passes(self, until: str | datetime) -> None:
        """Time goes on, with everything that falls due on the way."""
        end = self.at(until) if isinstance(until, str) else until
        while True:
            due = min([*self.segmenter.timers.values(), *self.journeys.timers.values()], default=end)
            moment = min(end, max(due, self.segmenter.as_of))
            self.segmenter.pass_to(moment)
            self._carry()
            self.journeys.drive([Tick(as_of=moment)])
            self._carry()
            if moment >= end:
                return

    def stage(self, customer: str = "ada") -> str:
        return self._latest(customer).customer.stage

    def segments(self, customer: str = "ada") -> tuple[str, ...]:
        return self._latest(customer).customer.segments

    def cancelled(self) -> list[str]:
        by_id = {request.id: request.message for request in self._requests()}
        return [by_id[one.id] for one in self.journeys.messages if isinstance(one, MessageCancelled)]

    def ended(self, journey: str) -> list[str]:
        """Why each enrollment of a journey has ended; empty for one that is inside."""
        return [one.reason for _, one in self.journeys.enrollments.values() if one.journey == journey]

    def _latest(self, customer: str) -> CustomerUpdated:
        return next(update for update in reversed(self.segmenter.updates) if update.customer.key == customer)

    def _requests(self) -> list[MessageRequested]:
        return [message for message in self.journeys.messages if isinstance(message, MessageRequested)]

    def _carry(self) -> None:
        """What came out of one service goes into the next, until nothing moves any more."""
        while True:
            records = self.segmenter.records[self._forwarded :]
            self._forwarded += len(records)
            self.journeys.drive([one for one in records if isinstance(one, CustomerUpdated | DateReached)])
            asked = [one for one in self._requests() if one.id not in self._handled]
            if self.holds or not asked:
                return
            for request in asked:
                self._handled.add(request.id)
                self._mail(request)

    def _mail(self, request: MessageRequested) -> None:
        now = max(self.segmenter.as_of, request.due)
        if request.address is None:
            self._report(EMAIL_SKIPPED, request, now, reason="no_address")
            return
        self.texts.append(compose(RENDERER, request, now).rendered.text)
        self.mails.append((request.message, request.due))
        self._report(EMAIL_SENT, request, now)

    def _report(self, name: str, request: MessageRequested, now: datetime, reason: str = "") -> None:
        properties: dict[str, Any] = {
            "message_id": request.id,
            "message": request.message,
            "journey": request.journey,
            "enrollment": request.enrollment,
            "step": request.step,
            "topic": request.topic,
            "reason": reason,
            "decided_for": request.due.isoformat(),
        }
        event = segmenter_world.event(
            name, now, key=request.customer, id=f"mailer-{next(self._ids)}", source=MAILER_SOURCE, hops=1, **properties
        )
        self.segmenter.take(msgspec.structs.replace(event, received_at=max(now, self.segmenter.as_of)))
