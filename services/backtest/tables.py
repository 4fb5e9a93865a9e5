"""A report as a marketer reads it in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from textwrap import fill

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from services.backtest.comparing import Comparison, Differing, lines
from services.backtest.reasons import ends, reasons
from services.backtest.report import CALLED, Report
from shared.language.problems import listed

_WIDTH = 100


def as_tables(report: Report) -> Iterator[RenderableType]:
    yield from _head(report)
    yield _journeys(report)
    for found in report.journeys:
        if found.entered or found.declined:
            yield f"[bold]{found.journey}[/]  {escape(found.title)}" + (
                "" if found.status == "live" else f"  ({found.status})"
            )
            for what, counts in (
                ("left", ends(found.exits)),
                ("still inside, at", found.inside),
                ("not let in", reasons(found.declined)),
            ):
                if counts:
                    yield f"  {what}: {counted(counts)}"
            if found.held_out:
                yield f"  held out: {found.held_out:,}, of whom {found.held_out_goals:,} reached the goal"
    for sends in report.messages:
        yield f"[bold]{sends.message}[/]  {of_channel({sends.channel: sends.sent})} sent"
        for what, counts in (("held", sends.held), ("skipped", sends.skipped), ("failed", sends.failed)):
            if counts:
                yield f"  {what}: {counted(reasons(counts))}"
    if report.busiest:
        yield ""
        yield f"{sum(report.per_customer.values()):,} customers got messages: " + ", ".join(
            f"{count:,} got {messages}" for messages, count in report.per_customer.items()
        )
        yield _busiest(report)
    if report.coupons:
        yield f"coupons issued: {counted(report.coupons)}"
    if report.coupons_missing:
        yield f"[yellow]coupons that were missing[/]: {counted(report.coupons_missing)}"
    yield ""
    yield from _foot(report)


def as_comparison(comparison: Comparison, names: tuple[str, str]) -> Iterator[RenderableType]:
    """`names` are what the two playbooks are called."""
    yield from _head(comparison.report, f" with {names[0]}")
    table = _table("", *names, "change")
    for place, line in enumerate(lines(comparison)):
        if place and line.one == line.other:
            continue
        table.add_row(line.name, f"{line.one:,}", f"{line.other:,}", line.change)
    yield table
    yield ""
    yield differing_text(comparison)
    for differing in comparison.named:
        yield f"  {escape(differing.customer)}: {difference(differing)}"
    if comparison.in_number > len(comparison.named):
        yield f"  and {comparison.in_number - len(comparison.named):,} more"
    yield ""
    yield from _foot(comparison.report)


def counted(counts: Mapping[str, int]) -> str:
    """`completed 12, goal 3`"""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def of_channel(sent: Mapping[str, int]) -> str:
    """`3,485 mails, 12 text messages and 1 call`"""
    return listed([f"{count:,} {CALLED[name][count != 1]}" for name, count in sent.items()], "and") or "0 mails"


def money(amounts: Mapping[str, Decimal]) -> str:
    return " + ".join(f"{amount:,.2f} {currency}".strip() for currency, amount in amounts.items())


def differing_text(comparison: Comparison) -> str:
    """How many customers are treated differently, in a sentence."""
    if not comparison.differing:
        return "Nobody would have been treated differently."
    only_when = comparison.differing - comparison.in_number
    return (
        f"{comparison.differing:,} customers differ: {comparison.more:,} get more messages, {comparison.fewer:,} "
        f"fewer; for {only_when:,} only times or reasons differ."
    )


def difference(differing: Differing) -> str:
    """`cart-reminder 2 → 1`"""
    words = [
        f"{prefix}{name} {here.get(name, 0)} → {there.get(name, 0)}"
        for prefix, here, there in (
            ("", differing.messages, differing.other_messages),
            ("entered ", differing.entered, differing.other_entered),
        )
        for name in {**here, **there}
        if here.get(name, 0) != there.get(name, 0)
    ]
    return ", ".join(words)


def _head(report: Report, under: str = "") -> Iterator[RenderableType]:
    if report.begin is None or report.end is None:
        yield "The history holds no event."
    else:
        span = f"{report.begin:%Y-%m-%d} to {report.end:%Y-%m-%d}"
        yield (
            f"{report.events:,} events of {report.customers:,} customers, {span}: "
            f"[bold]{of_channel(report.channels)}[/] would have gone out{escape(under)}"
        )
    if report.duplicates:
        yield f"{report.duplicates:,} events came twice and count once"
    for refused in report.refused:
        where = ", ".join(refused.places) + (", …" if refused.count > len(refused.places) else "")
        yield f"[yellow]{refused.count:,} refused[/]: {refused.code}, {escape(refused.message)} ({escape(where)})"
    yield ""


def _foot(report: Report) -> Iterator[RenderableType]:
    yield "What this cannot know"
    for text in report.cannot_know:
        yield fill(text, _WIDTH, initial_indent="- ", subsequent_indent="  ")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(escape(column), justify="right" if place else "left", no_wrap=not place)
    return table


def _journeys(report: Report) -> Table:
    table = _table("journey", "entered", "customers", "messages", "goals", "attributed")
    for found in report.journeys:
        table.add_row(
            found.journey,
            f"{found.entered:,}",
            f"{found.customers:,}",
            f"{found.sent:,}",
            f"{found.goals:,}",
            money(found.attributed),
        )
    return table


def _busiest(report: Report) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("busiest", no_wrap=True)
    table.add_column("messages", justify="right")
    table.add_column("")
    for busy in report.busiest:
        table.add_row(escape(busy.customer), str(busy.sent), counted(busy.messages))
    return table
