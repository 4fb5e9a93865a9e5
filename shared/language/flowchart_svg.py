"""A journey as an SVG picture: boxes from the top, the ways of a branch side by side, meeting again below.

It stands alone (no script, no font, nothing loaded), prints on paper, and follows a reader's dark mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from textwrap import wrap

import msgspec

from shared.language.flowchart import Box, Flow, Fork, Kind

_WIDTH, _LINE, _PADDING = 210, 17, 10
_DOWN, _ASIDE, _MARGIN = 30, 26, 24
_LETTERS, _MOST_LINES = 30, 5
_LABEL_LETTERS = 26
_BADGE = 19

_STYLE = """
.box rect { stroke-width: 1.2 }
.begin rect, .end rect, .leave rect { fill: #eef0f3; stroke: #8a94a3 }
.wait rect { fill: #fdf3dc; stroke: #c99a2e }
.send rect { fill: #dcebfd; stroke: #3d7fc9 }
.ask rect { fill: #efe3fb; stroke: #8a5cc2 }
.do rect { fill: #dff4e4; stroke: #46a05f }
text { font: 12.5px system-ui, sans-serif; fill: #1d2430 }
.kind { font-weight: 600 }
.label { font-size: 11.5px; fill: #55606e; paint-order: stroke; stroke: #fff; stroke-width: 4px }
.line { fill: none; stroke: #8a94a3; stroke-width: 1.4 }
.badge rect { fill: #c2372c; stroke: none } .badge text { fill: #fff; font-size: 11.5px; font-weight: 600 }
.paper { fill: #fff }
@media (prefers-color-scheme: dark) {
  .paper { fill: #14181f } text { fill: #e4e8ee } .label { fill: #aab4c0; stroke: #14181f }
  .begin rect, .end rect, .leave rect { fill: #262c36 } .wait rect { fill: #3a3117 }
  .send rect { fill: #17304c } .ask rect { fill: #322246 } .do rect { fill: #1a3a24 }
}
"""


class _Size(msgspec.Struct, frozen=True):
    """The room that something takes; `axis` is where its line comes in and goes out, from its left edge."""

    width: float
    height: float
    axis: float


class _Canvas(msgspec.Struct):
    inside: Mapping[str, int]
    drawn: list[str] = []

    def line(self, *points: tuple[float, float], arrow: bool = False) -> None:
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        end = ' marker-end="url(#arrow)"' if arrow else ""
        self.drawn.append(f'<path class="line" d="{path}"{end}/>')

    def label(self, x: float, y: float, text: str) -> None:
        lines = _wrapped(text, _LABEL_LETTERS, 2)
        # All of it where the pointer rests, if it does not fit.
        whole = f"<title>{escape(text)}</title>" if lines[-1].endswith("…") else ""
        for number, line in enumerate(lines):
            place = f'x="{x:g}" y="{y + number * 13:g}"'
            self.drawn.append(f'<text class="label" {place} text-anchor="middle">{whole}{escape(line)}</text>')

    def box(self, box: Box, x: float, y: float) -> None:
        lines = _texts(box)
        height = _height(box)
        round_ = height / 2 if box.kind in ("begin", "end", "leave") else 5
        self.drawn.append(f'<g class="box {box.kind}"><title>{escape(": ".join(box.lines))}</title>')
        self.drawn.append(f'<rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{height:g}" rx="{min(round_, 22):g}"/>')
        for number, (kind, text) in enumerate(lines):
            down = y + _PADDING + _LINE * number + 12
            style = ' class="kind"' if kind else ""
            middle = x + _WIDTH / 2
            self.drawn.append(f'<text{style} x="{middle:g}" y="{down:g}" text-anchor="middle">{escape(text)}</text>')
        self.drawn.append("</g>")
        number_inside = self.inside.get(box.id, 0)
        if number_inside:
            text = f"{number_inside:,}"
            wide = 12 + 7 * len(text)
            left, top = x + _WIDTH - wide + 8, y - _BADGE / 2
            self.drawn.append(
                f'<g class="badge"><title>{text} inside</title><rect x="{left:g}" y="{top:g}" width="{wide}"'
                f' height="{_BADGE}" rx="9.5"/><text x="{left + wide / 2:g}" y="{top + 14:g}" text-anchor="middle">'
                f"{text}</text></g>"
            )


def as_svg(flow: Flow, title: str, inside: Mapping[str, int] | None = None) -> str:
    """The picture; `inside` says how many customers are at a step."""
    size = _size(flow)
    canvas = _Canvas(inside or {})
    _draw(canvas, flow, _MARGIN + size.axis, _MARGIN)
    width, height = size.width + 2 * _MARGIN, size.height + 2 * _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}"'
        f' viewBox="0 0 {width:g} {height:g}" role="img">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#8a94a3"/></marker></defs>'
        f'<rect class="paper" width="{width:g}" height="{height:g}"/>' + "".join(canvas.drawn) + "</svg>"
    )


def _texts(box: Box) -> list[tuple[Kind | None, str]]:
    """The lines of a box; the first says what kind of step it is."""
    first: list[tuple[Kind | None, str]] = [(box.kind, line) for line in _wrapped(box.lines[0], _LETTERS, 2)]
    return [*first, *((None, line) for text in box.lines[1:] for line in _wrapped(text, _LETTERS, _MOST_LINES))]


def _wrapped(text: str, letters: int, most: int) -> list[str]:
    """Lines of so many letters at most; what does not fit is said to go on."""
    lines = wrap(text, letters, break_on_hyphens=False) or [""]
    return lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1][: letters - 1]}…"]


def _height(box: Box) -> float:
    return 2 * _PADDING + _LINE * len(_texts(box)) - 2


def _size(flow: Flow) -> _Size:
    left = right = _WIDTH / 2
    height = 0.0
    for item in flow:
        size = _size_of(item)
        left, right = max(left, size.axis), max(right, size.width - size.axis)
        height += size.height + _DOWN
    return _Size(left + right, max(0.0, height - _DOWN), left)


def _size_of(item: Box | Fork) -> _Size:
    if isinstance(item, Box):
        return _Size(_WIDTH, _height(item), _WIDTH / 2)
    ways = [_size(way.flow) for way in item.ways]
    width = sum(way.width for way in ways) + _ASIDE * (len(ways) - 1)
    below = max(way.height for way in ways)
    # The box stands above the middle of the outermost axes.
    last = width - ways[-1].width + ways[-1].axis
    axis = (ways[0].axis + last) / 2
    axis = max(axis, _WIDTH / 2)
    return _Size(max(width, axis + _WIDTH / 2), _height(item.box) + _gap(item) + below + _DOWN, axis)


def _gap(fork: Fork) -> float:
    """Between a fork's box and its ways: room for the corner and for the longest label."""
    return 2 * _DOWN + 13 * max(len(_wrapped(way.label, _LABEL_LETTERS, 2)) for way in fork.ways)


def _draw(canvas: _Canvas, flow: Flow, axis: float, top: float) -> float:
    """Draws a flow whose axis stands there; where it ends."""
    for number, item in enumerate(flow):
        if number:
            canvas.line((axis, top), (axis, top + _DOWN), arrow=True)
            top += _DOWN
        if isinstance(item, Box):
            canvas.box(item, axis - _WIDTH / 2, top)
            top += _height(item)
        else:
            top = _draw_fork(canvas, item, axis, top)
    return top


def _draw_fork(canvas: _Canvas, fork: Fork, axis: float, top: float) -> float:
    whole = _size_of(fork)
    canvas.box(fork.box, axis - _WIDTH / 2, top)
    out = top + _height(fork.box)
    corner, begin = out + _DOWN / 2, out + _gap(fork)
    bottom = top + whole.height
    left = axis - whole.axis
    for way in fork.ways:
        size = _size(way.flow)
        x = left + size.axis
        canvas.line((axis, out), (axis, corner), (x, corner), (x, begin), arrow=bool(way.flow))
        canvas.label(x, corner + 18, way.label)
        end = _draw(canvas, way.flow, x, begin)
        if way.open:
            canvas.line((x, end), (x, bottom), (axis, bottom))
        left += size.width + _ASIDE
    return bottom
