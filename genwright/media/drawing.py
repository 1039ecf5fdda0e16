"""Drawings: an SVG of lines as points on a square of 24 units, whatever shapes, transforms and sizes it is made of.

Every shape becomes subpaths of straight lines, cubic curves and arcs of circles (SVG 1.1, chapters 8 and 9). What is no
line (text, pictures, filled areas) is refused with the reason, so that nothing is learned that was not drawn.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from genwright.core.errors import DataError

from .picture import svg_root

SIDE = 24.0  # units of a drawing's square
MARGIN = 0.125  # units that an end may lie outside
Point = tuple[float, float]
_Matrix = tuple[float, float, float, float, float, float]  # a b c d e f: x' = ax + cy + e, y' = bx + dy + f

_SMALL = 2.0  # units: what is filled and no thicker is covered by its own outline
_FAR = 1e6
_SPAN = 1e-9
_GROUPS = {"svg", "g", "a"}
_SILENT = {"title", "desc", "metadata", "defs", "style", "script", "namedview"}
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_COUNTS = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "S": 4, "Q": 4, "T": 2, "A": 7, "Z": 0}


@dataclass(frozen=True)
class Line:
    end: Point


@dataclass(frozen=True)
class Curve:
    """A cubic Bézier curve from wherever the pen is."""

    first: Point
    second: Point
    end: Point


@dataclass(frozen=True)
class Arc:
    """A part of a circle from wherever the pen is: SVG's `A r r 0 large sweep x y`."""

    radius: float
    large: bool
    sweep: bool
    end: Point


Segment = Line | Curve | Arc


@dataclass(frozen=True)
class Subpath:
    """One stroke of the pen."""

    start: Point
    segments: tuple[Segment, ...]
    closed: bool = False


def read_drawing(svg: str) -> tuple[Subpath, ...]:
    """The lines of an SVG on a square of 24 units, in the order in which they are drawn.

    Raises DataError for what is no SVG, holds what is no line, is broken, empty, or leaves its frame by more than an
    eighth of a unit.
    """
    root = svg_root(svg)
    paint = {"fill": "black", "stroke": "none"}
    found = tuple(one for one in _walk(root, _frame(root), paint) if one.segments)
    if not found:
        raise DataError("The SVG draws no line.", "Look at what the file holds.")
    outside = max(max(-min(p), max(p) - SIDE) for one in found for p in _ends(one))
    if outside > MARGIN:
        raise DataError(f"The drawing leaves its frame by {outside:.1f} of {SIDE:g} units.", "Widen its viewBox.")
    return found


def points_of(start: Point, segment: Segment, count: int = 16) -> list[Point]:
    """`count` + 1 points along a segment, its two ends with it; arcs at equal angles."""
    shares = [k / count for k in range(count + 1)]
    match segment:
        case Line(end):
            return [_between(start, end, t) for t in shares]
        case Curve(first, second, end):
            return [_on_curve(start, first, second, end, t) for t in shares]
        case Arc():
            centre, radius, angle, turn = circle_of(start, segment)
            angles = [angle + turn * t for t in shares]
            return [(centre[0] + radius * math.cos(a), centre[1] + radius * math.sin(a)) for a in angles]


def curves_of(start: Point, arc: Arc) -> list[Curve]:
    """Cubic curves in place of an arc, each of at most a quarter of the circle (off by less than 0.03 % of the
    radius)."""
    centre, radius, angle, turn = circle_of(start, arc)
    return list(_elliptic(centre, radius, radius, 0.0, angle, turn))


def turned(drawing: Iterable[Subpath], way: int) -> tuple[Subpath, ...]:
    """A drawing in one of the eight ways that a square can be laid on itself: 0 as it is; 1 left for right, 2 upside
    down, 4 rows for columns, and their sums.

    >>> turned([Subpath((1, 2), (Line((3, 5)),))], 5)
    (Subpath(start=(22.0, 1), segments=(Line(end=(19.0, 3)),), closed=False),)
    """

    def there(p: Point) -> Point:
        x, y = (p[1], p[0]) if way & 4 else p
        return SIDE - x if way & 1 else x, SIDE - y if way & 2 else y

    def laid(segment: Segment) -> Segment:
        match segment:
            case Line(end):
                return Line(there(end))
            case Curve(first, second, end):
                return Curve(there(first), there(second), there(end))
            case Arc(radius, large, sweep, end):
                return Arc(radius, large, sweep != bool(way.bit_count() % 2), there(end))

    return tuple(Subpath(there(one.start), tuple(map(laid, one.segments)), one.closed) for one in drawing)


def halves(start: Point, curve: Curve) -> tuple[Curve, Curve]:
    """A curve as two (de Casteljau)."""
    a, b, c = (_between(p, q, 0.5) for p, q in ((start, curve.first), (curve.first, curve.second),
                                               (curve.second, curve.end)))  # fmt: skip
    d, e = _between(a, b, 0.5), _between(b, c, 0.5)
    return Curve(a, d, _between(d, e, 0.5)), Curve(e, c, curve.end)


# -- elements ----------------------------------------------------------------------------------------------------------


def _walk(element: Any, matrix: _Matrix, paint: Mapping[str, str]) -> Iterator[Subpath]:
    name = str(element.tag).rsplit("}", 1)[-1]
    if name in _SILENT or not isinstance(element.tag, str):
        return
    paint = {**paint, **_painted(element)}
    if paint.get("display") == "none":
        return
    matrix = _times(matrix, _transform(element.get("transform", "")))
    if name in _GROUPS:
        for child in element:
            yield from _walk(child, matrix, paint)
        return
    if name not in _SHAPES:
        raise DataError(f"The SVG holds <{name}>, which is no line.", "Draw it with paths, or leave it out.")
    if paint["stroke"] == "none" and paint["fill"] == "none":
        return
    try:
        found = list(_Pen(matrix).draw(_SHAPES[name](element)))
    except ValueError as error:
        raise DataError(f"A <{name}> of the SVG is broken: {error}.", "Save it anew in a drawing program.") from None
    if paint["fill"] != "none" and (paint["stroke"] == "none" or any(_thickness(one) > _SMALL for one in found)):
        raise DataError(f"A <{name}> of the SVG is filled, and only lines are learned.", 'Draw it with fill="none".')
    yield from found


def _painted(element: Any) -> dict[str, str]:
    """Fill, stroke and display, as attributes or in `style`."""
    pairs = [one.partition(":") for one in element.get("style", "").split(";")]
    styled = {key.strip(): value.strip() for key, _, value in pairs}
    both = {key: styled.get(key, element.get(key)) for key in ("fill", "stroke", "display")}
    return {key: value for key, value in both.items() if value is not None and value != "inherit"}


def _frame(root: Any) -> _Matrix:
    """From the view box to the square of 24 units, in its middle."""
    box = [float(n) for n in _NUMBER.findall(root.get("viewBox", ""))]
    if len(box) != 4:
        sides = [_NUMBER.match(root.get(key, "")) for key in ("width", "height")]
        box = [0.0, 0.0, *(float(side[0]) if side else SIDE for side in sides)]
    left, top, width, height = box
    if not (0 < width < _FAR and 0 < height < _FAR and abs(left) < _FAR and abs(top) < _FAR):
        raise DataError("The SVG's viewBox is empty or makes no sense.", "Save it anew in a drawing program.")
    scale = SIDE / max(width, height)
    return scale, 0, 0, scale, (SIDE - width * scale) / 2 - left * scale, (SIDE - height * scale) / 2 - top * scale


def _transform(text: str) -> _Matrix:
    matrix: _Matrix = (1, 0, 0, 1, 0, 0)
    for name, inside in re.findall(r"(\w+)\s*\(([^)]*)\)", text):
        n = [float(one) for one in _NUMBER.findall(inside)] + [0.0] * 6
        match name:
            case "matrix":
                own: _Matrix = (n[0], n[1], n[2], n[3], n[4], n[5])
            case "translate":
                own = (1, 0, 0, 1, n[0], n[1])
            case "scale":
                own = (n[0], 0, 0, n[1] or n[0], 0, 0)
            case "rotate":
                c, s = math.cos(math.radians(n[0])), math.sin(math.radians(n[0]))
                own = (c, s, -s, c, n[1] - c * n[1] + s * n[2], n[2] - s * n[1] - c * n[2])
            case "skewX":
                own = (1, 0, math.tan(math.radians(n[0])), 1, 0, 0)
            case "skewY":
                own = (1, math.tan(math.radians(n[0])), 0, 1, 0, 0)
            case _:
                raise DataError(f"The SVG has a transform {name!r} that is not known.", "Save it as plain SVG.")
        matrix = _times(matrix, own)
    return matrix


def _times(m: _Matrix, n: _Matrix) -> _Matrix:
    return (
        m[0] * n[0] + m[2] * n[1], m[1] * n[0] + m[3] * n[1], m[0] * n[2] + m[2] * n[3], m[1] * n[2] + m[3] * n[3],
        m[0] * n[4] + m[2] * n[5] + m[4], m[1] * n[4] + m[3] * n[5] + m[5],
    )  # fmt: skip


def _ends(one: Subpath) -> list[Point]:
    return [one.start, *(segment.end for segment in one.segments)]


def _thickness(one: Subpath) -> float:
    """The smaller of a stroke's width and height."""
    points, at = [one.start], one.start
    for segment in one.segments:
        points += points_of(at, segment, 4)
        at = segment.end
    return min(max(axis) - min(axis) for axis in zip(*points, strict=True))


# -- shapes as path commands: (letter, numbers), absolute or relative as the letter says -------------------------------

_Command = tuple[str, list[float]]


def _path(element: Any) -> Iterator[_Command]:
    """The commands of path data, implicit ones written out (SVG 1.1, 8.3.9: flags of arcs may stick together)."""
    text, at, letter = element.get("d", ""), 0, ""
    gap = re.compile(r"[\s,]*")

    def number(flag: bool) -> float:
        nonlocal at
        at = gap.match(text, at).end()  # type: ignore[union-attr]
        found = (re.compile("[01]") if flag else _NUMBER).match(text, at)
        if not found:
            raise ValueError(f"its path has no number at character {at}")
        at = found.end()
        return _sound(float(found[0]))

    while (at := gap.match(text, at).end()) < len(text):  # type: ignore[union-attr]
        if text[at].upper() in _COUNTS:
            letter, at = text[at], at + 1
        elif not letter or letter in "zZ":
            raise ValueError(f"its path has no command at character {at}")
        elif letter in "mM":
            letter = "l" if letter == "m" else "L"
        count = _COUNTS[letter.upper()]
        yield letter, [number(letter in "aA" and place in (3, 4)) for place in range(count)]


def _line(element: Any) -> Iterator[_Command]:
    yield "M", [_length(element, "x1"), _length(element, "y1")]
    yield "L", [_length(element, "x2"), _length(element, "y2")]


def _polyline(element: Any) -> Iterator[_Command]:
    numbers = [_sound(float(n)) for n in _NUMBER.findall(element.get("points", ""))]
    for place in range(0, len(numbers) - 1, 2):
        yield "L" if place else "M", numbers[place : place + 2]


def _polygon(element: Any) -> Iterator[_Command]:
    yield from _polyline(element)
    yield "Z", []


def _rect(element: Any) -> Iterator[_Command]:
    x, y, w, h = (_length(element, key) for key in ("x", "y", "width", "height"))
    if w <= 0 or h <= 0:
        return
    rx, ry = (element.get(key) for key in ("rx", "ry"))
    rx, ry = (_length(element, "rx" if rx is not None else "ry"), _length(element, "ry" if ry is not None else "rx"))
    rx, ry = min(rx, w / 2), min(ry, h / 2)
    yield "M", [x + rx, y]
    for dx, dy, cx, cy in ((w, 0, 1, 1), (0, h, -1, 1), (-w, 0, -1, -1), (0, -h, 1, -1)):
        side = [dx - math.copysign(2 * rx, dx) if dx else 0, dy - math.copysign(2 * ry, dy) if dy else 0]
        if max(map(abs, side)) > _SPAN:
            yield "l", side
        if rx and ry:
            yield "a", [rx, ry, 0, 0, 1, cx * rx, cy * ry]
    yield "Z", []


def _ellipse(element: Any) -> Iterator[_Command]:
    round_ = element.get("r") is not None
    rx, ry = _length(element, "r" if round_ else "rx"), _length(element, "r" if round_ else "ry")
    if rx <= 0 or ry <= 0:
        return
    yield "M", [_length(element, "cx") - rx, _length(element, "cy")]
    yield "a", [rx, ry, 0, 0, 1, 2 * rx, 0]
    yield "a", [rx, ry, 0, 0, 1, -2 * rx, 0]
    yield "Z", []


_SHAPES = {"path": _path, "line": _line, "polyline": _polyline, "polygon": _polygon, "rect": _rect, "circle": _ellipse,
           "ellipse": _ellipse}  # fmt: skip


def _length(element: Any, key: str) -> float:
    found = _NUMBER.match(element.get(key, "0").strip())
    if not found:
        raise ValueError(f"its {key} is no number")
    return _sound(float(found[0]))


def _sound(number: float) -> float:
    if not abs(number) < _FAR:
        raise ValueError("it has a number beyond all measure")
    return number


# -- the pen -----------------------------------------------------------------------------------------------------------


class _Pen:
    """Follows commands and gives subpaths, put through the matrix."""

    def __init__(self, matrix: _Matrix):
        self.matrix = matrix
        a, b, c, d, _, _ = matrix
        self.scale = math.hypot(a, b)
        turned = a * d - b * c > 0
        near = 1e-6 * (self.scale + _SPAN)
        self.keeps_circles = abs(math.hypot(c, d) - self.scale) < near and abs(a * c + b * d) < near * self.scale
        self.mirrors = not turned

    def draw(self, commands: Iterator[_Command]) -> Iterator[Subpath]:
        at: Point = (0.0, 0.0)
        made: list[Segment] = []
        start, handle, before = at, at, ""
        for letter, given in commands:
            kind, n = letter.upper(), list(given)
            if letter.islower():
                n = _absolute(kind, n, at)
            if not before and kind != "M":
                raise ValueError("its path does not begin with a move")
            if kind in "MZ":
                if made or kind == "Z":
                    yield Subpath(self._put(start), tuple(made), kind == "Z")
                made, at = [], (n[0], n[1]) if kind == "M" else start
                start = handle = at
            else:
                end = (n[0], at[1]) if kind == "H" else (at[0], n[0]) if kind == "V" else (n[-2], n[-1])
                segments, handle = self._segments(kind, n, at, end, handle if before in _BEFORE.get(kind, "") else at)
                made += segments
                at = end
            before = kind
        if made:
            yield Subpath(self._put(start), tuple(made))

    def _segments(self, kind: str, n: list[float], at: Point, end: Point, old: Point) -> tuple[list[Segment], Point]:
        """What a command draws, and the control point that a smooth command after it mirrors."""
        mirrored = (2 * at[0] - old[0], 2 * at[1] - old[1])
        if kind in "LHV":
            return [Line(self._put(end))], end
        if kind in "CS":
            first, second = ((n[0], n[1]), (n[2], n[3])) if kind == "C" else (mirrored, (n[0], n[1]))
            return [Curve(self._put(first), self._put(second), self._put(end))], second
        if kind in "QT":
            middle = (n[0], n[1]) if kind == "Q" else mirrored
            first, second = (_between(p, middle, 2 / 3) for p in (at, end))
            return [Curve(self._put(first), self._put(second), self._put(end))], middle
        return self._arc(n, at, end), end

    def _arc(self, n: list[float], at: Point, end: Point) -> list[Segment]:
        rx, ry, tilt, large, sweep = abs(n[0]), abs(n[1]), math.radians(n[2]), bool(n[3]), bool(n[4])
        if at == end:
            return []
        if not rx or not ry:
            return [Line(self._put(end))]
        if abs(rx - ry) < 1e-6 * rx and self.keeps_circles:
            return [Arc(rx * self.scale, large, sweep != self.mirrors, self._put(end))]
        c, s = math.cos(-tilt), math.sin(-tilt)
        flat = [((x * c - y * s) / rx, (x * s + y * c) / ry) for x, y in (at, end)]  # the ellipse as a unit circle
        (cx, cy), radius, angle, turn = circle_of(flat[0], Arc(1.0, large, sweep, flat[1]))
        centre = (cx * rx * c + cy * ry * s, -cx * rx * s + cy * ry * c)
        curves = _elliptic(centre, rx * radius, ry * radius, tilt, angle, turn)
        return [Curve(self._put(one.first), self._put(one.second), self._put(one.end)) for one in curves]

    def _put(self, p: Point) -> Point:
        a, b, c, d, e, f = self.matrix
        return a * p[0] + c * p[1] + e, b * p[0] + d * p[1] + f


_BEFORE = {"S": "CS", "T": "QT"}


def _absolute(kind: str, n: list[float], at: Point) -> list[float]:
    if kind == "A":
        return [*n[:5], n[5] + at[0], n[6] + at[1]]
    if kind == "V":
        return [n[0] + at[1]]
    return [number + at[place % 2] for place, number in enumerate(n)]


def circle_of(start: Point, arc: Arc) -> tuple[Point, float, float, float]:
    """(centre, radius, first angle, turn) of an arc; a radius that is too small grows (SVG 1.1, F.6)."""
    (x0, y0), (x1, y1) = start, arc.end
    half = math.hypot(x1 - x0, y1 - y0) / 2
    radius = max(arc.radius, half)
    if half < _SPAN:
        return start, 0.0, 0.0, 0.0
    off = math.sqrt(max(0.0, radius**2 - half**2)) * (1 if arc.large != arc.sweep else -1) / (2 * half)
    centre = ((x0 + x1) / 2 - (y1 - y0) * off, (y0 + y1) / 2 + (x1 - x0) * off)
    first = math.atan2(y0 - centre[1], x0 - centre[0])
    turn = (math.atan2(y1 - centre[1], x1 - centre[0]) - first) % (2 * math.pi)
    return centre, radius, first, turn if arc.sweep else turn - 2 * math.pi


def _elliptic(centre: Point, rx: float, ry: float, tilt: float, angle: float, turn: float) -> Iterator[Curve]:
    count = max(1, math.ceil(abs(turn) / (math.pi / 2) - 1e-6))
    step, c, s = turn / count, math.cos(tilt), math.sin(tilt)
    reach = 4 / 3 * math.tan(step / 4)

    def put(x: float, y: float) -> Point:
        return centre[0] + rx * x * c - ry * y * s, centre[1] + rx * x * s + ry * y * c

    for k in range(count):
        (c0, s0), (c1, s1) = ((math.cos(a), math.sin(a)) for a in (angle + k * step, angle + (k + 1) * step))
        yield Curve(put(c0 - reach * s0, s0 + reach * c0), put(c1 + reach * s1, s1 - reach * c1), put(c1, s1))


def _between(p: Point, q: Point, t: float) -> Point:
    return p[0] + (q[0] - p[0]) * t, p[1] + (q[1] - p[1]) * t


def _on_curve(a: Point, b: Point, c: Point, d: Point, t: float) -> Point:
    u = 1 - t
    w = (u**3, 3 * u * u * t, 3 * u * t * t, t**3)
    return (sum(k * p[0] for k, p in zip(w, (a, b, c, d), strict=True)),
            sum(k * p[1] for k, p in zip(w, (a, b, c, d), strict=True)))  # fmt: skip
