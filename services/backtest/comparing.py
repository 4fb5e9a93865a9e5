"""Two playbooks over the same history, side by side. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from services.backtest.reasons import in_words
from services.backtest.report import CALLED, CustomerStory, Findings, Report
from shared.contracts.messages import EMAIL

MOST_NAMED = 20


class Differing(msgspec.Struct, frozen=True):
    """A customer whom the two treat differently: what each gets by message, and the entries into journeys."""

    customer: str
    messages: dict[str, int]
    other_messages: dict[str, int]
    entered: dict[str, int]
    other_entered: dict[str, int]


class Comparison(msgspec.Struct, frozen=True):
    """`differing` customers in all; `in_number` of them in what they get or enter and not only in when or why it ends.
    Of those, `named` are the ones with the greatest difference."""

    report: Report
    other: Report
    differing: int
    in_number: int
    more: int
    """Customers who get more messages under the other playbook."""
    fewer: int
    named: list[Differing]


class Line(NamedTuple):
    """One figure of both, and what it changes by."""

    name: str
    one: int
    other: int

    @property
    def change(self) -> str:
        return "=" if self.one == self.other else f"{self.other - self.one:+,}"


def compare(one: Findings, report: Report, other: Findings, other_report: Report) -> Comparison:
    """The two reports, and the customers whom they tell differently of."""
    nobody = CustomerStory()
    differing = more = fewer = 0
    named: list[Differing] = []
    for customer in one.customers.keys() | other.customers.keys():
        here, there = one.customers.get(customer, nobody), other.customers.get(customer, nobody)
        if here.digest == there.digest:
            continue
        differing += 1
        change = sum(there.messages.values()) - sum(here.messages.values())
        more += change > 0
        fewer += change < 0
        if here.messages != there.messages or here.entered != there.entered:
            named.append(Differing(customer, here.messages, there.messages, here.entered, there.entered))
    return Comparison(
        report=report,
        other=other_report,
        differing=differing,
        in_number=len(named),
        more=more,
        fewer=fewer,
        named=greatest(named),
    )


def greatest(differing: Iterable[Differing]) -> list[Differing]:
    """Those whom the two treat most differently, as many as are named."""
    return heapq.nsmallest(MOST_NAMED, differing, key=_by_difference)


def lines(comparison: Comparison) -> list[Line]:
    """The figures that both have, in the order in which one reads them."""
    one, other = comparison.report, comparison.other
    lines = [
        Line(f"{CALLED[channel][1]} sent", one.channels.get(channel, 0), other.channels.get(channel, 0))
        for channel in CALLED
        if channel == EMAIL or one.channels.get(channel) or other.channels.get(channel)
    ]
    lines.append(Line("customers with a message", sum(one.per_customer.values()), sum(other.per_customer.values())))
    lines.append(
        Line("most messages to one customer", max(one.per_customer, default=0), max(other.per_customer, default=0))
    )
    journeys = {found.journey: found for found in one.journeys}
    others = {found.journey: found for found in other.journeys}
    for name in [*journeys, *(name for name in others if name not in journeys)]:
        for figure in ("entered", "sent", "goals", "held_out"):
            here, there = (getattr(found.get(name), figure, 0) for found in (journeys, others))
            if here or there:
                lines.append(Line(f"{name}: {figure.replace('_', ' ')}", here, there))
    for what in ("held", "skipped"):
        here, there = _reasons(one, what), _reasons(other, what)
        lines += [
            Line(f"{what}: {in_words(reason)}", here.get(reason, 0), there.get(reason, 0))
            for reason in {**here, **there}
        ]
    for tags, others_tags, what in ((one.stages, other.stages, "stage"), (one.segments, other.segments, "segment")):
        lines += [
            Line(f"{what} {name}", tags.get(name, 0), others_tags.get(name, 0)) for name in {**tags, **others_tags}
        ]
    return lines


def _reasons(report: Report, what: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for sends in report.messages:
        for reason, count in getattr(sends, what).items():
            found[reason] = found.get(reason, 0) + count
    return found


def _distance(here: Mapping[str, int], there: Mapping[str, int]) -> int:
    return sum(abs(here.get(name, 0) - there.get(name, 0)) for name in here.keys() | there.keys())


def _by_difference(one: Differing) -> tuple[int, int, str]:
    return -_distance(one.messages, one.other_messages), -_distance(one.entered, one.other_entered), one.customer
