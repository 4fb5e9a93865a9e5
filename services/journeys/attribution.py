"""What an order is worth to the journeys whose goal it reaches. Pure.

Its value goes whole to one of them: to the one whose message was clicked last, else to the one that sent last; and to
none where none has sent anything. So what all journeys have together is never more than the shop has earned. Only an
enrollment of the customer whose goal the very event reaches takes part, and all that is asked is kept with it: the same
road gives the same result.

Who was held out got nothing, and has no part in this. By how much more often a journey's goal is reached (`lift`) is
counted beside it, and neither is worked out from the other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import msgspec

from services.journeys.engine import Course
from services.journeys.enrollment import Credited, Enrollment, Happening, key_of, key_text
from services.journeys.scopes import scope
from shared.contracts.customers import Customer
from shared.language.amounts import LARGEST, SMALLEST, currency_named
from shared.language.playbook import Goal
from shared.language.values import decimal, number_or_none

REMEMBERED = timedelta(days=90)
"""How long an order that was attributed is remembered, so that it is not attributed again."""
MOST_REMEMBERED = 100
"""Orders of one customer. Beyond that the oldest is forgotten."""


_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Reached(NamedTuple):
    """An enrollment whose goal an event has just reached, and how its version runs now."""

    course: Course
    enrollment: Enrollment


def attribute(
    reached: Sequence[Reached],
    customer: Customer,
    happening: Happening,
    credited: Collection[Credited],
    now: datetime,
) -> tuple[Enrollment, Credited] | None:
    """The one that the event's value goes to, with that value, and what is to be remembered of it. None where it goes
    to nobody, as that of an order that is among the `credited`."""
    order = order_of(happening)
    if any(one.order == order for one in credited):
        return None
    best: tuple[bool, datetime] | None = None
    for one in reached:
        goal = one.course.journey.goal
        if goal is None or goal.value is None:
            continue
        # What an enrollment took over from the one before it may be older than the window.
        since = _LONG_AGO if goal.within is None else now - goal.within
        clicked, sent = (
            at if at and at > since else None for at in (one.enrollment.clicked_at, one.enrollment.sent_at)
        )
        last = clicked or sent
        # Of two at the same instant, the one that began later.
        if last is not None and (best is None or (clicked is not None, last) >= best):
            best, winner, worth = (clicked is not None, last), one, goal
    if best is None:
        return None
    value = _value(worth, winner, customer, happening, now)
    if value is None:
        return None
    currency = winner.course.playbook.brand.currency
    enrollment = msgspec.structs.replace(winner.enrollment, attributed=value, currency=currency)
    return enrollment, Credited(order, now + REMEMBERED)


def order_of(happening: Happening) -> str:
    """What is attributed once: the order, else the event that names none."""
    named = key_of(happening.properties.get("order_id"))
    if named is not None:
        return f"order\n{key_text(named)}"
    return f"event\n{happening.event.source}\n{happening.event.id}"


def _value(goal: Goal, reached: Reached, customer: Customer, happening: Happening, now: datetime) -> Decimal | None:
    """In the brand's currency. None where it is no number above zero, or in a currency without a rate."""
    assert goal.value is not None
    course, properties = reached.course, happening.properties
    brand = course.playbook.brand
    seen = scope(course.playbook, customer, now, event=properties, enrollment=reached.enrollment)
    number = number_or_none(goal.value.evaluate(seen))
    if number is None or not 0 < number < LARGEST:
        return None
    value = decimal(number)
    # What does not come from the event is the marketer's own figure.
    currency = currency_named(properties) if any(name[0] == "event" for name in goal.value.names) else ""
    if currency not in ("", brand.currency):
        rate = brand.rates.get(currency)
        if rate is None:
            return None
        value *= rate
    return value.quantize(SMALLEST) if value < LARGEST else None
