"""Plots: small SVG pictures for reports, drawn as text; colours come from the page, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

Point = tuple[float, float]
WIDTH, HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 42


def lines(curves: Mapping[str, Sequence[Point]], *, title: str, x: str, y: str, whole_x: bool = False) -> str:
    """Curves by name (class c0, c1 …). A curve of one point is a dot."""
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return ""
    xs = [p[0] for points in curves.values() for p in points]
    ys = [p[1] for points in curves.values() for p in points]
    frame = _Frame(_span(xs, margin=0.0), _span(ys))
    drawn = [frame.axes(x, y, whole_x=whole_x)]
    for number, (name, points) in enumerate(curves.items()):
        path = " ".join(f"{'M' if i == 0 else 'L'}{frame.x(a):.1f} {frame.y(b):.1f}" for i, (a, b) in enumerate(points))
        drawn.append(f'<path class="line c{number}" d="{path}"/>')
        if len(points) <= 24:
            drawn += [_dot(frame, a, b, number, f"{name}: {_figure(a)}, {_figure(b)}", 3.2) for a, b in points]
    return _picture("".join(drawn), title) + _legend(list(curves))


def bars(rows: Sequence[tuple[str, float, float | None, float | None]], *, title: str, unit: str = "") -> str:
    """Horizontal bars, each with its name, value and interval; from 0."""
    top = max([0.0, *(r[1] for r in rows), *(r[3] for r in rows if r[3] is not None)]) or 1.0
    low = min([0.0, *(r[1] for r in rows), *(r[2] for r in rows if r[2] is not None)])
    left, right, height = 62, 74, 24 + 34 * len(rows)

    def place(value: float) -> float:
        return left + (value - low) / (top - low) * (WIDTH - left - right)

    drawn = []
    for number, (name, value, lower, upper) in enumerate(rows):
        at = 8 + 34 * number
        start, end = sorted((place(0.0), place(value)))
        shade = 0 if name == "base" and len(rows) > 1 else 1
        drawn.append(f'<text x="{left - 8}" y="{at + 16}" class="end">{escape(name)}</text>')
        box = f'x="{start:.1f}" y="{at}" width="{max(1.0, end - start):.1f}" height="22"'
        drawn.append(f'<rect class="bar c{shade}" {box} rx="3"/>')
        if lower is not None and upper is not None:
            drawn.append(_whisker(place(lower), place(upper), at + 11))
        edge = max(end, place(upper) if upper is not None else end)
        drawn.append(f'<text x="{edge + 7:.1f}" y="{at + 16}" class="value">{_figure(value)}</text>')
    drawn.append(f'<text x="{left}" y="{height - 2}" class="small">{escape(unit)}</text>')
    return _picture("".join(drawn), title, height)


def gain_against_forgetting(runs: Sequence[Mapping[str, Any]], *, title: str) -> str:
    """Each run as a point: to the right what it forgot, upwards what it gained, both in nats per token; base is 0, 0.

    A run has `name`, `gain` and `lost` as (value, low, high), and `here` for the one the report is about.
    """
    xs = [0.0] + [v for run in runs for v in run["lost"] if v is not None]
    ys = [0.0] + [v for run in runs for v in run["gain"] if v is not None]
    frame = _Frame(_span(xs), _span(ys))
    x0, y0 = frame.x(0), frame.y(0)
    drawn = [
        frame.axes("forgetting: general loss (nats per token) →", "gain: held-out loss shed →"),
        _line("zero", _LEFT, WIDTH - _RIGHT, y0, y0),
        _line("zero", x0, x0, _TOP, HEIGHT - _BOTTOM),
        _dot(frame, 0, 0, 0, "base", 4.5),
        f'<text x="{x0 + 8:.1f}" y="{y0 - 7:.1f}">base</text>',
    ]
    for run in runs:
        (gain, gain_low, gain_high), (lost, lost_low, lost_high) = run["gain"], run["lost"]
        x, y, shade = frame.x(lost), frame.y(gain), 1 if run["here"] else 2
        if run["here"] and gain_low is not None:
            drawn.append(_line("whisker", x, x, frame.y(gain_low), frame.y(gain_high)))
        if run["here"] and lost_low is not None:
            drawn.append(_line("whisker", frame.x(lost_low), frame.x(lost_high), y, y))
        said = f"{run['name']}: gained {gain:.3f}, forgot {lost:.3f}"
        drawn.append(_dot(frame, lost, gain, shade, said, 5 if run["here"] else 3.5))
        if run["here"]:
            anchor, aside = ("end", -8) if x > WIDTH * 0.6 else ("start", 8)
            drawn.append(f'<text x="{x + aside:.1f}" y="{y - 8:.1f}" text-anchor="{anchor}">tuned</text>')
    return _picture("".join(drawn), title)


class _Frame:
    """Where values stand in the picture, and the axes around them."""

    def __init__(self, across: Point, up: Point):
        self.across, self.up = across, up

    def x(self, value: float) -> float:
        low, high = self.across
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.up
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    def axes(self, x: str, y: str, *, whole_x: bool = False) -> str:
        drawn = [f'<path class="axis" d="M{_LEFT} {_TOP}V{HEIGHT - _BOTTOM}H{WIDTH - _RIGHT}"/>']
        for value in ticks(*self.up, count=4):
            at = self.y(value)
            drawn.append(_line("grid", _LEFT, WIDTH - _RIGHT, at, at))
            drawn.append(f'<text class="end small" x="{_LEFT - 6}" y="{at + 4:.1f}">{_figure(value)}</text>')
        below = HEIGHT - _BOTTOM + 16
        for value in ticks(*self.across, count=5, whole=whole_x):
            drawn.append(f'<text class="middle small" x="{self.x(value):.1f}" y="{below}">{_figure(value)}</text>')
        centre = (_LEFT + WIDTH - _RIGHT) / 2
        drawn.append(f'<text class="middle small" x="{centre}" y="{HEIGHT - 6}">{escape(x)}</text>')
        middle = (_TOP + HEIGHT - _BOTTOM) / 2
        drawn.append(f'<text class="middle small" transform="translate(11 {middle}) rotate(-90)">{escape(y)}</text>')
        return "".join(drawn)


def ticks(low: float, high: float, *, count: int, whole: bool = False) -> list[float]:
    """Round values between low and high, about `count` of them.

    >>> ticks(0, 97, count=5)
    [0.0, 20.0, 40.0, 60.0, 80.0]
    """
    rough = max((high - low) / count, 1e-12)
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= rough)
    step = max(1.0, step) if whole else step
    return [round(step * i, 10) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _span(values: Sequence[float], *, margin: float = 0.08) -> Point:
    low, high = min(values), max(values)
    if low == high:
        spread = abs(low) * 0.1 or 1.0
        return low - spread, high + spread
    return low - margin * (high - low), high + margin * (high - low)


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _dot(frame: _Frame, x: float, y: float, shade: int, said: str, size: float) -> str:
    place = f'cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="{size}"'
    return f'<circle class="dot c{shade}" {place}><title>{escape(said)}</title></circle>'


def _whisker(start: float, end: float, at: float) -> str:
    ends = f"M{start:.1f} {at - 5}V{at + 5}M{end:.1f} {at - 5}V{at + 5}"
    return f'<path class="whisker" d="M{start:.1f} {at}H{end:.1f}{ends}"/>'


def _picture(drawn: str, title: str, height: float = HEIGHT) -> str:
    name = escape(title, quote=True)
    return f'<svg role="img" aria-label="{name}" viewBox="0 0 {WIDTH} {height}"><title>{name}</title>{drawn}</svg>'


def _legend(names: Sequence[str]) -> str:
    items = "".join(f'<span><i class="key c{i}"></i>{escape(name)}</span>' for i, name in enumerate(names))
    return f'<p class="legend">{items}</p>' if len(names) > 1 else ""


def _figure(value: float) -> str:
    """A number as short as it stays clear.

    >>> _figure(1234.5), _figure(12.34), _figure(0.1234), _figure(-0.0), _figure(3.0)
    ('1,234', '12.3', '0.123', '0', '3')
    """
    size = abs(value)
    text = f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 10 else f"{value:.3g}" if size else "0"
    return text.removesuffix(".0").replace("-", "−")
