"""Charts as SVG that stands in a page: it takes its colours, loads nothing, and tells each figure on hovering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from html import escape
from math import ceil, log10

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 960, 260, 56, 28, 10
_MOST_BARS = 120
COLOURS = 8
"""How many journeys have a colour of their own; the rest share the last."""
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def over_time(per_day: Mapping[date, Mapping[str, int]], series: Sequence[str]) -> str:
    """Stacked columns, one for each day, week or month, whichever there is room for."""
    if not per_day:
        return ""
    span, buckets = _buckets(per_day)
    highest = _rounded_up(max(sum(counts.values()) for counts in buckets.values()))
    step = (_WIDTH - _LEFT) / len(buckets)
    height = _HEIGHT - _BOTTOM - _TOP
    drawn = [_grid(highest)]
    labelled = ""
    for place, (begin, counts) in enumerate(buckets.items()):
        x, y = _LEFT + place * step, float(_TOP + height)
        told = ", ".join(f"{name} {counts[name]:,}" for name in series if counts.get(name))
        drawn.append(f"<g><title>{_named(begin, span)}: {escape(told) or 'none'}</title>")
        drawn.append(f'<rect class="nothing" x="{x:.1f}" y="{_TOP}" width="{step:.2f}" height="{height}"/>')
        for number, name in enumerate(series):
            if count := counts.get(name):
                tall = count / highest * height
                y -= tall
                gap = min(step * 0.15, 3)
                drawn.append(
                    f'<rect class="c{min(number, COLOURS - 1)}" x="{x + gap / 2:.1f}" y="{y:.1f}"'
                    f' width="{step - gap:.2f}" height="{tall:.1f}"/>'
                )
        drawn.append("</g>")
        label = _label(begin, len(buckets), span)
        if label and label != labelled:
            labelled = label
            drawn.append(f'<text x="{x + 2:.1f}" y="{_HEIGHT - 8}">{label}</text>')
    return _svg(_WIDTH, _HEIGHT, f"Messages by {span}", drawn)


def by_hour(per_hour: Sequence[Sequence[int]]) -> str:
    """Weekdays by hours, the darker the more."""
    most = max(max(row) for row in per_hour)
    if not most:
        return ""
    cell, tall, left, top = 36, 24, 44, 6
    drawn = []
    for weekday, row in enumerate(per_hour):
        y = top + weekday * tall
        drawn.append(f'<text x="0" y="{y + 16}">{_WEEKDAYS[weekday]}</text>')
        for hour, count in enumerate(row):
            strength = f'fill-opacity="{0.08 + 0.92 * count / most:.2f}"' if count else ""
            drawn.append(
                f'<rect class="{"c0" if count else "nothing cell"}" x="{left + hour * cell}" y="{y}" rx="3"'
                f' width="{cell - 2}" height="{tall - 2}" {strength}>'
                f"<title>{_WEEKDAYS[weekday]} {hour:02}:00 to {hour:02}:59: {count:,}</title></rect>"
            )
    y = top + 7 * tall + 14
    drawn += [f'<text x="{left + hour * cell}" y="{y}">{hour:02}:00</text>' for hour in range(0, 24, 3)]
    return _svg(left + 24 * cell, y + 6, "Messages by weekday and hour", drawn)


def columns(counts: Mapping[int, int]) -> str:
    """How many customers got so many messages; from a dozen on they share a column."""
    if not counts:
        return ""
    shown = {number: counts.get(number, 0) for number in range(1, min(max(counts), 12) + 1)}
    more = sum(count for number, count in counts.items() if number > 12)
    labels = [(str(number), count) for number, count in shown.items()] + ([("more", more)] if more else [])
    highest = _rounded_up(max(count for _, count in labels))
    width, height = 640, _HEIGHT - _BOTTOM - _TOP
    step = min((width - _LEFT) / len(labels), 64)
    drawn = [_grid(highest, width)]
    for place, (label, count) in enumerate(labels):
        x, tall = _LEFT + place * step, count / highest * height
        drawn.append(
            f"<g><title>{label} messages: {count:,} customers</title>"
            f'<rect class="c0" x="{x + 3:.1f}" y="{_TOP + height - tall:.1f}"'
            f' width="{step - 6:.1f}" height="{tall:.1f}"/>'
            f'<text x="{x + step / 2:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{label}</text></g>'
        )
    return _svg(width, _HEIGHT, "Customers by number of messages", drawn)


def _buckets(per_day: Mapping[date, Mapping[str, int]]) -> tuple[str, dict[date, dict[str, int]]]:
    first, last = min(per_day), max(per_day)
    days = (last - first).days + 1
    span = "day" if days <= _MOST_BARS else "week" if days <= 7 * _MOST_BARS else "month"
    buckets: dict[date, dict[str, int]] = {}
    for offset in range(days):
        buckets.setdefault(_begin(first + timedelta(days=offset), span), {})
    for day, counts in per_day.items():
        bucket = buckets[_begin(day, span)]
        for name, count in counts.items():
            bucket[name] = bucket.get(name, 0) + count
    return span, buckets


def _begin(day: date, span: str) -> date:
    if span == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if span == "week" else day


def _named(begin: date, span: str) -> str:
    if span == "month":
        return f"{begin:%B %Y}"
    return f"Week of {begin:%d %b %Y}" if span == "week" else f"{begin:%a %d %b %Y}"


def _label(begin: date, bars: int, span: str) -> str:
    if span == "month":
        return f"{begin:%Y}"
    if bars <= 14 and span == "day":
        return f"{begin:%d %b}"
    if bars <= 45 and span == "day":
        return f"{begin:%d %b}" if begin.weekday() == 0 else ""
    return f"{begin:%b %Y}" if begin.day <= 7 else ""


def _rounded_up(number: int) -> int:
    """1, 2, 5, 10, 20, 50 … or the next of them, so that a quarter of it is easily read."""
    size = 10 ** int(log10(max(number, 4)))
    return next(int(size * step) for step in (1, 2, 4, 5, 8, 10) if size * step >= number) if number > 4 else 4


def _grid(highest: int, width: int = _WIDTH) -> str:
    height = _HEIGHT - _BOTTOM - _TOP
    drawn = []
    for quarter in range(5):
        y = _TOP + height * (1 - quarter / 4)
        drawn.append(f'<line x1="{_LEFT}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        value = ceil(highest * quarter / 4)
        drawn.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:,}</text>')
    return "".join(drawn)


def _svg(width: float, height: float, name: str, drawn: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(name)}"'
        f' style="max-width:{width:g}px">{"".join(drawn)}</svg>'
    )
