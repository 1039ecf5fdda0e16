"""Tidy: one way to write a drawing of lines, of the many that look the same.

Drawing programs differ in where a stroke begins, which way it turns, in what order strokes come, and in whether a
corner is an arc or a curve. None of it can be seen, and all of it has to be learned by whoever learns to draw. Here
every drawing looks as before, to a sixteenth of a unit of 24, and is written the same way: arcs where curves are parts
of circles, no needless points, closed strokes clockwise from their topmost end, large strokes before small ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from .drawing import SIDE, Arc, Curve, Line, Point, Segment, Subpath, circle_of, points_of

_OFF = 1 / 16  # units: how far a simpler segment may lie from what it replaces
_SAME = 1 / 32  # units: nearer points are one
_FLAT = 1.0  # units: of a stroke's place, what is nearer counts as level with another


def tidied(drawing: Iterable[Subpath]) -> tuple[Subpath, ...]:
    """The same strokes, each written in the one way, the largest first, then from the top left."""
    strokes = [_directed(_simple(one)) for one in drawing]
    return tuple(sorted(strokes, key=_rank))


def _rank(stroke: Subpath) -> tuple[int, int, int]:
    left, top, right, bottom = _box(stroke)
    return -round(math.hypot(right - left, bottom - top) / _FLAT), round(top / _FLAT), round(left / _FLAT)


def _box(stroke: Subpath) -> tuple[float, float, float, float]:
    points = [stroke.start]
    for at, segment in _walked(stroke.start, stroke.segments):
        points += points_of(at, segment, 8)
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _walked(start: Point, segments: Iterable[Segment]) -> Iterable[tuple[Point, Segment]]:
    """Each segment with the point where it begins."""
    for segment in segments:
        yield start, segment
        start = segment.end


# -- simple segments ---------------------------------------------------------------------------------------------------


def _simple(stroke: Subpath) -> Subpath:
    """Curves that are straight or round become lines and arcs, and what goes on in the same way becomes one."""
    segments: list[Segment] = []
    starts: list[Point] = []
    for at, segment in _walked(stroke.start, stroke.segments):
        if isinstance(segment, Curve):
            segment = _plainer(at, segment)
        if len(stroke.segments) > 1 and _is_dot(at, segment):
            continue
        one = _joined(starts[-1], segments[-1], segment) if segments else None
        if one is None:
            starts.append(at if not segments else segments[-1].end)
            segments.append(segment)
        else:
            segments[-1] = one
    closed = stroke.closed or (len(segments) > 1 and math.dist(stroke.start, segments[-1].end) < _SAME)
    if not segments:
        return stroke
    if closed and len(segments) > 1 and _is_back(segments[-1], stroke.start):
        segments.pop()  # closing draws it
    return Subpath(stroke.start, tuple(segments), closed)


def _is_dot(at: Point, segment: Segment) -> bool:
    near = math.dist(at, segment.end) < _SAME
    return near and (isinstance(segment, Line) or (isinstance(segment, Curve) and math.dist(at, segment.first) < _SAME))


def _is_back(segment: Segment, start: Point) -> bool:
    return isinstance(segment, Line) and math.dist(start, segment.end) < _SAME


def _plainer(at: Point, curve: Curve) -> Line | Arc | Curve:
    """A line or an arc where the curve is one, else the curve."""
    points = points_of(at, curve, 8)
    for one in (_line(at, curve), _arc(at, curve.end, points)):
        if one is not None and all(_distance(at, one, p) <= _OFF for p in points):
            return one
    return curve


def _line(at: Point, curve: Curve) -> Line | None:
    """The line from end to end, where the handles lie between them."""
    (x, y), length = (curve.end[0] - at[0], curve.end[1] - at[1]), math.dist(at, curve.end)
    if length < _SAME:
        return None
    along = [((p[0] - at[0]) * x + (p[1] - at[1]) * y) / length for p in (curve.first, curve.second)]
    return Line(curve.end) if all(-_OFF <= one <= length + _OFF for one in along) else None


def _arc(at: Point, end: Point, points: Sequence[Point]) -> Arc | None:
    """The arc from `at` to `end` through the middle one of the points."""
    middle = points[len(points) // 2]
    area = (middle[0] - at[0]) * (end[1] - at[1]) - (middle[1] - at[1]) * (end[0] - at[0])
    sides = math.dist(at, middle), math.dist(middle, end), math.dist(at, end)
    if abs(area) < 1e-6 or sides[2] < _SAME:
        return None
    radius = math.prod(sides) / (2 * abs(area))
    if radius > SIDE:
        return None
    obtuse = sides[0] ** 2 + sides[1] ** 2 < sides[2] ** 2  # the middle one sees the ends wide apart: a short arc
    return Arc(radius, not obtuse, area > 0, end)


def _distance(at: Point, segment: Line | Arc, p: Point) -> float:
    """How far a point lies from a segment, taken as endless."""
    if isinstance(segment, Arc):
        centre, radius, _, _ = circle_of(at, segment)
        return abs(math.dist(centre, p) - radius)
    x, y = segment.end[0] - at[0], segment.end[1] - at[1]
    return abs((p[0] - at[0]) * y - (p[1] - at[1]) * x) / max(math.hypot(x, y), 1e-9)


def _joined(at: Point, one: Segment, other: Segment) -> Segment | None:
    """Both as one, where the other only goes on; arcs up to half a circle."""
    if isinstance(one, Line) and isinstance(other, Line):
        whole = Line(other.end)
        ahead = (one.end[0] - at[0]) * (other.end[0] - one.end[0]) + (one.end[1] - at[1]) * (other.end[1] - one.end[1])
        return whole if ahead > 0 and _distance(at, whole, one.end) <= _OFF / 2 else None
    if isinstance(one, Arc) and isinstance(other, Arc) and one.sweep == other.sweep:
        (c1, r1, _, t1), (c2, r2, _, t2) = circle_of(at, one), circle_of(one.end, other)
        if math.dist(c1, c2) <= 2 * _OFF and abs(r1 - r2) <= _OFF and abs(t1 + t2) <= math.pi + 0.02:
            return Arc((r1 + r2) / 2, abs(t1 + t2) > math.pi, one.sweep, other.end)
    return None


# -- where a stroke begins, and which way it goes ----------------------------------------------------------------------


def _directed(stroke: Subpath) -> Subpath:
    """Open strokes from their upper (then left) end; closed ones clockwise from the topmost (then leftmost)."""
    if not stroke.segments:
        return stroke
    if not stroke.closed:
        return _reversed(stroke) if _first(stroke.segments[-1].end) < _first(stroke.start) else stroke
    if math.dist(stroke.start, stroke.segments[-1].end) >= _SAME:
        stroke = Subpath(stroke.start, (*stroke.segments, Line(stroke.start)), True)
    if _area(stroke) < 0:
        stroke = _reversed(stroke)
    return _turned(_circle(stroke) or stroke)


def _first(p: Point) -> tuple[int, float]:
    return round(p[1] / _FLAT * 2), p[0]


def _reversed(stroke: Subpath) -> Subpath:
    segments: list[Segment] = []
    for at, segment in _walked(stroke.start, stroke.segments):
        match segment:
            case Line():
                segments.append(Line(at))
            case Curve():
                segments.append(Curve(segment.second, segment.first, at))
            case Arc():
                segments.append(Arc(segment.radius, segment.large, not segment.sweep, at))
    return Subpath(stroke.segments[-1].end, tuple(reversed(segments)), stroke.closed)


def _area(stroke: Subpath) -> float:
    """Twice the signed area; above zero it is drawn clockwise, as the eye sees it."""
    points = [p for at, segment in _walked(stroke.start, stroke.segments) for p in points_of(at, segment, 8)]
    return sum(p[0] * q[1] - q[0] * p[1] for p, q in zip(points, [*points[1:], points[0]], strict=True))


def _circle(stroke: Subpath) -> Subpath | None:
    """A whole circle as two halves from its left, wherever its arcs began."""
    arcs = list(_walked(stroke.start, stroke.segments))
    if not all(isinstance(arc, Arc) for _, arc in arcs):
        return None
    found = [circle_of(at, arc) for at, arc in arcs if isinstance(arc, Arc)]
    (x, y), radius = found[0][0], found[0][1]
    if any(math.dist(c, (x, y)) > 2 * _OFF or abs(r - radius) > _OFF for c, r, _, _ in found):
        return None
    left, right = (x - radius, y), (x + radius, y)
    return Subpath(left, (Arc(radius, False, True, right), Arc(radius, False, True, left)), True)


def _turned(stroke: Subpath) -> Subpath:
    """A closed stroke that begins at its first point; a line back to it is left to the closing."""
    starts = [at for at, _ in _walked(stroke.start, stroke.segments)]
    first = min(range(len(starts)), key=lambda k: _first(starts[k]))
    segments = [*stroke.segments[first:], *stroke.segments[:first]]
    if len(segments) > 1 and isinstance(segments[-1], Line):
        segments.pop()
    return Subpath(starts[first], tuple(segments), True)
