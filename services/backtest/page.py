"""A report as one HTML page that stands alone: it can be mailed around, and loads nothing."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from services.backtest import charts
from services.backtest.comparing import Comparison, lines
from services.backtest.reasons import ends, reasons
from services.backtest.report import CALLED, Report
from services.backtest.tables import counted, difference, differing_text, money

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def as_page(report: Report, name: str, comparison: Comparison | None = None, other_name: str = "") -> str:
    """`name` is what the playbook is called, `other_name` the one that it is compared with."""
    busiest_first = sorted(report.journeys, key=lambda found: -found.sent)
    series = [found.journey for found in busiest_first if found.sent]
    return _TEMPLATES.get_template("report.html").render(
        report=report,
        name=name,
        comparison=comparison,
        other_name=other_name,
        lines=lines(comparison) if comparison is not None else [],
        entered=sum(found.entered for found in report.journeys),
        goals=sum(found.goals for found in report.journeys),
        failed=any(sends.failed for sends in report.messages),
        series=series,
        over_time=Markup(charts.over_time(report.per_day, series)),  # of numbers and escaped names alone
        by_hour=Markup(charts.by_hour(report.per_hour)),
        per_customer=Markup(charts.columns(report.per_customer)),
        number="{:,}".format,
        called=CALLED,
        counted=counted,
        ends=ends,
        reasons=reasons,
        money=money,
        difference=difference,
        differing_text=differing_text,
    )
