"""What shares of the customers came to, put together: the same as if all had been simulated in one place. Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from services.backtest.comparing import Comparison, greatest
from services.backtest.report import BUSIEST, CALLED, EXACT, JourneyFindings, Refusals, Report, Sends, most_first


class Part(NamedTuple):
    """What a share came to under each playbook, and with two of them how they compare."""

    reports: list[Report]
    refusals: list[Refusals]
    comparison: Comparison | None


def together(parts: Sequence[Part]) -> Part:
    """Of all shares."""
    reports, refusals = [], []
    for number in range(len(parts[0].reports)):
        refused = Refusals()
        for part in parts:
            refused.add(part.refusals[number])
        refusals.append(refused)
        whole = _report([part.reports[number] for part in parts])
        reports.append(msgspec.structs.replace(whole, refused=refused.told()))
    compared = [part.comparison for part in parts if part.comparison is not None]
    return Part(reports, refusals, _comparison(compared, *reports) if compared else None)


def _report(reports: Sequence[Report]) -> Report:
    """All but what was refused."""
    messages: dict[tuple[str, str, str], list[Sends]] = {}
    for report in reports:
        for sends in report.messages:
            messages.setdefault((sends.journey, sends.message, sends.channel), []).append(sends)
    channels = _sum(report.channels for report in reports)
    hours = [report.per_hour for report in reports]
    busiest = (busy for report in reports for busy in report.busiest)
    return msgspec.structs.replace(
        reports[0],
        begin=min((report.begin for report in reports if report.begin is not None), default=None),
        end=max((report.end for report in reports if report.end is not None), default=None),
        events=sum(report.events for report in reports),
        duplicates=sum(report.duplicates for report in reports),
        customers=sum(report.customers for report in reports),
        stages=dict(_sum(report.stages for report in reports)),
        segments=dict(_sum(report.segments for report in reports)),
        journeys=[_journey(of_one) for of_one in zip(*(report.journeys for report in reports), strict=True)],
        messages=[_sends(of_one) for _, of_one in sorted(messages.items())],
        sent=sum(report.sent for report in reports),
        channels={channel: channels[channel] for channel in CALLED if channels[channel]},
        per_day=_days(report.per_day for report in reports),
        per_hour=[[sum(hour) for hour in zip(*days, strict=True)] for days in zip(*hours, strict=True)],
        per_customer=dict(sorted(_sum(report.per_customer for report in reports).items())),
        busiest=heapq.nsmallest(BUSIEST, busiest, key=lambda busy: (-busy.sent, busy.customer)),
        coupons=_most_first(report.coupons for report in reports),
        coupons_missing=_most_first(report.coupons_missing for report in reports),
    )


def _journey(found: Sequence[JourneyFindings]) -> JourneyFindings:
    attributed: dict[str, Decimal] = {}
    for one in found:
        for currency, amount in one.attributed.items():
            attributed[currency] = EXACT.add(attributed.get(currency, Decimal(0)), amount)
    return msgspec.structs.replace(
        found[0],
        entered=sum(one.entered for one in found),
        customers=sum(one.customers for one in found),
        held_out=sum(one.held_out for one in found),
        declined=_most_first(one.declined for one in found),
        exits=_most_first(one.exits for one in found),
        inside=_most_first(one.inside for one in found),
        sent=sum(one.sent for one in found),
        goals=sum(one.goals for one in found),
        held_out_goals=sum(one.held_out_goals for one in found),
        attributed=dict(sorted(attributed.items())),
    )


def _sends(found: Sequence[Sends]) -> Sends:
    return msgspec.structs.replace(
        found[0],
        sent=sum(one.sent for one in found),
        held=_most_first(one.held for one in found),
        skipped=_most_first(one.skipped for one in found),
        failed=_most_first(one.failed for one in found),
    )


def _comparison(compared: Sequence[Comparison], report: Report, other: Report) -> Comparison:
    return Comparison(
        report=report,
        other=other,
        differing=sum(one.differing for one in compared),
        in_number=sum(one.in_number for one in compared),
        more=sum(one.more for one in compared),
        fewer=sum(one.fewer for one in compared),
        named=greatest(named for one in compared for named in one.named),
    )


def _days(several: Iterable[Mapping[date, Mapping[str, int]]]) -> dict[date, dict[str, int]]:
    found: dict[date, Counter[str]] = {}
    for days in several:
        for day, counts in days.items():
            found.setdefault(day, Counter()).update(counts)
    return {day: dict(sorted(counts.items())) for day, counts in sorted(found.items())}


def _most_first(several: Iterable[Mapping[str, int]]) -> dict[str, int]:
    return most_first(_sum(several))


def _sum(several: Iterable[Mapping[Any, int]]) -> Counter[Any]:
    """In the order of the first."""
    found: Counter[Any] = Counter()
    for counts in several:
        found.update(counts)
    return found
