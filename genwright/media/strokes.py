"""Strokes: a drawing of lines as small numbers that a language model reads and writes, and their grammar.

A word is a command or a count of half units from where the pen is: `L dx dy`, `C` with six numbers, `A` (its two
flags are in the word) with a radius and an end. Points are rounded where they lie, not from step to step, so nothing
adds up: what is written back is nowhere more than half a unit (2 % of the square) from the drawing.

The grammar says at every place which words may follow: always one range of numbers. Who keeps to it writes a drawing
that is complete, lies on the square with every end, and shows something, whatever the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

from genwright.core.errors import DataError

from .drawing import SIDE, Arc, Curve, Line, Point, Segment, Subpath, curves_of, halves, points_of, read_drawing, turned
from .tidy import tidied

GRID = 2  # places of a unit
LAST = int(SIDE) * GRID  # the largest place
TOLERANCE = 1 / GRID  # units
MOVE, END, CLOSE, LINE, ACROSS, DOWN, CURVE, ARC = range(8)  # ARC + 2 · large + sweep
ZERO = ARC + 4 + LAST  # the word for 0; ZERO + n is n half units
WORDS = ZERO + LAST + 1
_NUMBERS = {MOVE: 2, LINE: 2, ACROSS: 1, DOWN: 1, CURVE: 6, ARC: 3}
_DOT = "h.01"  # not every program draws a line of no length
_LETTERS = {LINE: "l", ACROSS: "h", DOWN: "v", CURVE: "c", ARC: "a"}
# What a word is asked for: one of four kinds of command, or a number of a command.
_FIRST, _AFTER_MOVE, _ANY, _AFTER_CLOSE = range(4)
_NUMBERED = {kind: 4 + sum(n for k, n in _NUMBERS.items() if k < kind) for kind in _NUMBERS}
SLOTS = 4 + sum(_NUMBERS.values())
ROOM = 1 + max(_NUMBERS.values()) + 1  # words of the longest command, and the end
SHORTEST = 3 + ROOM  # words that always suffice for a drawing


class Grammar:
    """Where a drawing stands after some words, and what may follow: words from `low` to `high`, for the `slot`.

    `x`, `y` are the pen's place on the grid, 0 to 96. `room` is how many words the drawing may still have.
    """

    def __init__(self, room: int = 1 << 30):
        self.x = self.y = 0
        self.room = room
        self.slot, self.low, self.high = _FIRST, MOVE, MOVE
        self._start = (0, 0)
        self._kind, self._given = END, list[int]()

    def put(self, word: int) -> None:
        """One word more. Raises ValueError when it may not stand here."""
        if not self.low <= word <= self.high:
            raise ValueError(f"the word {word} may not stand here, only {self.low} to {self.high}")
        self.room -= 1
        if self.slot < 4:
            self._kind, self._given = min(word, ARC), []
            if word == CLOSE:
                self.x, self.y = self._start
                self._want(_AFTER_CLOSE)
            elif word != END:
                self._want_number()
            else:
                self.low, self.high = 1, 0
            return
        self._given.append(word - ZERO)
        if len(self._given) < _NUMBERS[self._kind]:
            self._want_number()
            return
        self._go()
        if self._kind == MOVE:
            self._start = (self.x, self.y)
        self._want(_AFTER_MOVE if self._kind == MOVE else _ANY)

    @property
    def is_done(self) -> bool:
        return self.low > self.high

    def _go(self) -> None:
        """Move the pen by the last numbers."""
        if self._kind != DOWN:
            self.x += self._given[0] if self._kind == ACROSS else self._given[-2]
        if self._kind != ACROSS:
            self.y += self._given[-1]

    def _want(self, slot: int) -> None:
        """A command. A new stroke only with room for one, anything but the end only with room for the end."""
        self.slot = slot
        if slot == _AFTER_MOVE:
            self.low, self.high = LINE, ARC + 3
        else:
            self.low = MOVE if self.room >= SHORTEST else END
            open_ = slot == _ANY
            self.high = ARC + 3 if open_ and self.room >= ROOM else CLOSE if open_ and self.room >= 2 else END

    def _want_number(self) -> None:
        """A number: radii from half a unit, ends on the square, handles of curves anywhere."""
        place = len(self._given)
        self.slot = _NUMBERED[self._kind] + place
        low, high = -LAST, LAST
        if self._kind == ARC and place == 0:
            low = 1
        elif place >= _NUMBERS[self._kind] - 2:
            down = self._kind == DOWN or (self._kind != ACROSS and place == _NUMBERS[self._kind] - 1)
            at = self.y if down else self.x
            low, high = -at, LAST - at
        self.low, self.high = ZERO + low, ZERO + high


@dataclass(frozen=True)
class Places:
    """For each word of a drawing: its slot, the pen's place before it, and the range that it is from."""

    slots: list[int]
    xs: list[int]
    ys: list[int]
    lows: list[int]
    highs: list[int]


def places_of(words: Sequence[int]) -> Places:
    """Raises ValueError for words that are no drawing."""
    grammar, found = Grammar(), Places([], [], [], [], [])
    for word in words:
        found.slots.append(grammar.slot)
        found.xs.append(grammar.x)
        found.ys.append(grammar.y)
        found.lows.append(grammar.low)
        found.highs.append(grammar.high)
        grammar.put(word)
    if not grammar.is_done:
        raise ValueError("the words are no whole drawing")
    return found


def words_of_drawing(drawing: Iterable[Subpath]) -> list[int]:
    """The words of a drawing, with the end. Raises DataError for one that leaves its square."""
    words: list[int] = []
    pen = (0, 0)
    for one in drawing:
        start = _place(one.start)
        words += [MOVE, *_steps(pen, start)]
        pen, drawn = start, list[int]()
        for command, end in _all(one.start, one.segments, start):
            if not (min(end) >= 0 and max(end) <= LAST):
                raise DataError("The drawing leaves its frame.", "Widen its viewBox.")
            drawn += command
            pen = end
        words += drawn or [ACROSS, ZERO]  # smaller than the grid: a dot
        if one.closed and drawn:
            words.append(CLOSE)
            pen = start
    return [*words, END]


def words_of_svg(svg: str, way: int = 0) -> list[int]:
    """The words of an SVG, its strokes written in the one way (media/tidy.py): before they are rounded, and once more
    as they lie then, laid as `turned` says. Raises DataError for what is no drawing of lines."""
    rounded = drawing_of(words_of_drawing(tidied(read_drawing(svg))))
    return words_of_drawing(tidied(turned(rounded, way)))


def drawing_of(words: Sequence[int]) -> tuple[Subpath, ...]:
    """The strokes that words say. Raises ValueError for words that are no drawing."""
    found: list[Subpath] = []
    for start, commands, closed in _strokes(words):
        at, segments = start, []
        for word, numbers in commands:
            segment = _segment(at, word, numbers)
            segments.append(segment)
            at = (round(segment.end[0] * GRID), round(segment.end[1] * GRID))
        found.append(Subpath((start[0] / GRID, start[1] / GRID), tuple(segments), closed))
    return tuple(found)


def svg_of(words: Sequence[int], *, colour: str = "currentColor", stroke_width: float = 2.0, size: int = 24) -> str:
    """An SVG with one path for each stroke, so that each can be edited. Raises ValueError for words that are none."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" viewBox="0 0 {SIDE:g} {SIDE:g}" '
        f'fill="none" stroke={quoteattr(colour)} stroke-width="{stroke_width:g}" stroke-linecap="round" '
        'stroke-linejoin="round">'
    )
    return "\n".join([head, *(f'  <path d="{path}"/>' for path in paths_of(words)), "</svg>", ""])


def paths_of(words: Sequence[int]) -> list[str]:
    """Path data of each stroke: where it begins, then steps from point to point."""
    return [
        f"M{_said(start)}{''.join(_command(*command) for command in commands) or _DOT}{'z' if closed else ''}"
        for start, commands, closed in _strokes(words)
    ]


# -- writing -----------------------------------------------------------------------------------------------------------


_Said = tuple[list[int], tuple[int, int]]  # a command, and the place where it ends


def _all(at: Point, segments: Iterable[Segment], pen: tuple[int, int]) -> Iterator[_Said]:
    """Segments, one after the other."""
    for segment in segments:
        for command, end in _commands(at, segment, pen):
            yield command, end
            pen = end
        at = segment.end


def _commands(at: Point, segment: Segment, pen: tuple[int, int]) -> Iterator[_Said]:
    """A segment as commands with the place where each ends; nothing when it is smaller than the grid."""
    end = _place(segment.end)
    match segment:
        case Line():
            if end[1] == pen[1] and end[0] != pen[0]:
                yield [ACROSS, ZERO + end[0] - pen[0]], end
            elif end[0] == pen[0] and end[1] != pen[1]:
                yield [DOWN, ZERO + end[1] - pen[1]], end
            elif end != pen:
                yield [LINE, *_steps(pen, end)], end
        case Arc():
            if (radius := _radius(at, segment, pen, end)) is not None:
                yield [ARC + 2 * segment.large + segment.sweep, ZERO + radius, *_steps(pen, end)], end
                return
            yield from _all(at, curves_of(at, segment), pen)
        case Curve():
            steps = [_steps(pen, _place(p)) for p in (segment.first, segment.second, segment.end)]
            if any(not ZERO - LAST <= step <= ZERO + LAST for both in steps for step in both):
                yield from _all(at, halves(at, segment), pen)  # its handles reach too far
            elif any(step != ZERO for both in steps for step in both):
                yield [CURVE, *(step for both in steps for step in both)], end


def _radius(at: Point, arc: Arc, pen: tuple[int, int], end: tuple[int, int]) -> int | None:
    """The radius in half units, or None where an arc on the grid would lie too far from this one."""
    radius = max(1, round(arc.radius * GRID))
    if end == pen or radius > LAST:
        return None
    start, rounded = _back(pen), Arc(radius / GRID, arc.large, arc.sweep, _back(end))
    apart = (math.dist(p, q) for p, q in zip(points_of(at, arc), points_of(start, rounded), strict=True))
    return radius if max(apart) <= TOLERANCE else None


def _place(p: Point) -> tuple[int, int]:
    """The nearest place on the grid."""
    return round(p[0] * GRID), round(p[1] * GRID)


def _back(place: tuple[int, int]) -> Point:
    return place[0] / GRID, place[1] / GRID


def _steps(pen: tuple[int, int], to: tuple[int, int]) -> list[int]:
    return [ZERO + to[0] - pen[0], ZERO + to[1] - pen[1]]


# -- reading -----------------------------------------------------------------------------------------------------------

_Stroke = tuple[tuple[int, int], list[tuple[int, list[int]]], bool]


def _strokes(words: Sequence[int]) -> Iterator[_Stroke]:
    """(start on the grid, [(word, numbers), …], closed) of each stroke."""
    places, at, pen = places_of(words), 0, (0, 0)
    stroke: _Stroke | None = None
    while words[at] != END:
        word = words[at]
        count = _NUMBERS.get(min(word, ARC), 0)
        numbers = [one - ZERO for one in words[at + 1 : at + 1 + count]]
        at += 1 + count
        pen = (places.xs[at], places.ys[at])
        if word == MOVE or stroke is None:
            if stroke:
                yield stroke
            stroke = (pen, [], False)
        elif word == CLOSE:
            stroke = (*stroke[:2], True)
        else:
            stroke[1].append((word, numbers))
    assert stroke
    yield stroke


def _segment(at: tuple[int, int], word: int, n: list[int]) -> Segment:
    points = [_back((at[0] + x, at[1] + y)) for x, y in zip(n[-2::-2], n[::-2], strict=False)][::-1]
    if word in (ACROSS, DOWN):
        return Line(_back((at[0] + n[0], at[1]) if word == ACROSS else (at[0], at[1] + n[0])))
    if word == LINE:
        return Line(points[0])
    if word == CURVE:
        return Curve(*points)
    return Arc(n[0] / GRID, bool((word - ARC) & 2), bool((word - ARC) & 1), points[0])


def _command(word: int, n: list[int]) -> str:
    if not any(n[1:] if word >= ARC else n):
        return ""  # a step of nothing
    if word >= ARC:
        flags = f"{(word - ARC) >> 1} {(word - ARC) & 1}"
        return f"a{_said(n[:1])} {_said(n[:1])} 0 {flags} {_said(n[1:])}"
    return _LETTERS[word] + _said(n)


def _said(numbers: Iterable[int]) -> str:
    """Half units as units, without needless zeros: "1.25 -.5"."""
    plain = (f"{number / GRID:g}" for number in numbers)
    return " ".join(one.replace("0.", ".", 1) if one.lstrip("-").startswith("0.") else one for one in plain)
