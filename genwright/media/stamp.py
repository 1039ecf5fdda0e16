"""Stamp: a few words on a plain ground in a corner of a picture, the same on every machine.

The letters are strokes on a grid of 11 × 11 units, drawn for this project: at 11 pixels they lie on whole pixels, and
no font is needed. Only the letters of the labels are there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from genwright.core.errors import DataError

Corner = Literal["top left", "top right", "bottom left", "bottom right"]
_Stroke = tuple[tuple[float, float], ...]
_UNITS = 11  # height of every letter
_LEAST = 7  # pixels below which letters cannot be read
_GAP, _SPACE, _MARGIN, _LINE = 2, 3, 3, 3  # units between letters, for a space, around the words, between lines
_FINE = 8  # sub-pixels by which strokes are drawn, then averaged
_GROUND, _INK = (20, 20, 20), (255, 255, 255)
# Width in units, then strokes as points (x, y) of their middle; y grows downwards from 0 to 10.
_LETTERS: dict[str, tuple[int, tuple[_Stroke, ...]]] = {
    "A": (9, (((0, 10), (4, 0), (8, 10)), ((1.4, 7), (6.6, 7)))),
    "D": (8, (((0, 0), (4, 0), (6, 1), (7, 3), (7, 7), (6, 9), (4, 10), (0, 10), (0, 0)),)),
    "E": (7, (((6, 0), (0, 0), (0, 10), (6, 10)), ((0, 5), (5, 5)))),
    "G": (8, (((7, 2), (6, 0.6), (4, 0), (3, 0), (1, 1), (0, 3), (0, 7), (1, 9), (3, 10), (4, 10), (6, 9.4), (7, 8),
               (7, 5), (4, 5)),)),
    "I": (3, (((1, 0), (1, 10)),)),
    "N": (8, (((0, 10), (0, 0), (7, 10), (7, 0)),)),
    "R": (8, (((0, 10), (0, 0), (4, 0), (6, 1), (6.6, 2.5), (6, 4), (4, 5), (0, 5)), ((3.5, 5), (7, 10)))),
    "T": (7, (((0, 0), (6, 0)), ((3, 0), (3, 10)))),
    "生": (11, (((2.6, 0), (2, 2), (0.6, 4.4)), ((2, 3), (9, 3)), ((1.6, 6.5), (8.6, 6.5)), ((0, 10), (10, 10)),
               ((5, 0), (5, 10)))),
    "成": (11, (((1, 2), (10, 2)), ((1, 2), (1, 7), (0.6, 8.6), (0, 10)), ((1, 5), (4, 5), (3.8, 8.4), (2.6, 8.2)),
               ((5.6, 0), (5.8, 3), (6.6, 6.2), (8.2, 9), (9.4, 10), (10, 7.6)), ((9, 3.8), (7.6, 6.8), (5, 9.6)),
               ((7.6, 0), (9, 1)))),
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where the stamp lies, in pixels: left, top, right, bottom; and the height of its letters."""

    box: tuple[int, int, int, int]
    letters: int


def stamped(image: Any, words: str, *, corner: Corner = "bottom right", share: float = 0.06) -> Any:
    """A copy of a PIL image (RGB or RGBA) with the words on it; the same again changes nothing more.

    Letters are `share` of the shorter side high, and no lower than 11 pixels where these fit. Raises DataError for a
    picture on which not even 7 pixels fit.
    """
    from PIL import Image

    place = place_of(image.size, words, corner=corner, share=share)
    mask = _drawn(_lines(image.size, words, place.letters), place.letters)
    stamp = Image.composite(Image.new("RGB", mask.size, _INK), Image.new("RGB", mask.size, _GROUND), mask)
    made = image.copy()
    made.paste(stamp.convert(image.mode), place.box[:2])
    return made


def place_of(size: tuple[int, int], words: str, *, corner: Corner = "bottom right", share: float = 0.06) -> Place:
    """Where the words stand on a picture of that size (width, height). Raises what `stamped` raises."""
    wanted = math.ceil(share * min(size))
    for letters in (wanted, *range(_UNITS, _LEAST - 1, -1)):
        if letters < max(wanted, _LEAST) or (letters == wanted < _UNITS):
            continue
        width, height = _extent(_lines(size, words, letters), letters)
        if width <= size[0] and height <= size[1]:
            left = 0 if "left" in corner else size[0] - width
            top = 0 if "top" in corner else size[1] - height
            return Place((left, top, left + width, top + height), letters)
    raise DataError(
        f"A picture of {size[0]} × {size[1]} pixels is too small for the label {words!r}.",
        "Use a shorter one (AI生成), make the picture larger, or leave the visible label out.",
    )


def _lines(size: tuple[int, int], words: str, letters: int) -> list[str]:
    """In one line, or a line a word where one is too long."""
    return [words] if _extent([words], letters)[0] <= size[0] else words.split(" ")


def _extent(lines: list[str], letters: int) -> tuple[int, int]:
    """Pixels of the whole stamp, (width, height)."""
    unit = letters / _UNITS
    height = letters * len(lines) + unit * (_LINE * (len(lines) - 1) + 2 * _MARGIN)
    return round(unit * (max(map(_width, lines)) + 2 * _MARGIN)), round(height)


def _width(line: str) -> int:
    return sum(_SPACE if c == " " else _LETTERS[c][0] for c in line) + _GAP * (len(line) - 1)


def _drawn(lines: list[str], letters: int) -> Any:
    """The words as coverage from 0 to 255, a PIL image of mode L with the stamp's extent."""
    from PIL import Image, ImageDraw

    unit = letters * _FINE / _UNITS
    width, height = _extent(lines, letters)
    fine = Image.new("L", (width * _FINE, height * _FINE))
    pen = ImageDraw.Draw(fine)
    for number, line in enumerate(lines):
        left, top = _MARGIN, _MARGIN + number * (_UNITS + _LINE)
        for letter in line:
            for stroke in _LETTERS[letter][1] if letter != " " else ():
                points = [((left + x + 0.5) * unit, (top + y + 0.5) * unit) for x, y in stroke]
                pen.line(points, fill=255, width=round(unit), joint="curve")
                for x, y in (points[0], points[-1]):  # ends as broad as the stroke, so that a letter is as high as said
                    pen.rectangle((x - unit / 2, y - unit / 2, x + unit / 2 - 1, y + unit / 2 - 1), fill=255)
            left += (_SPACE if letter == " " else _LETTERS[letter][0]) + _GAP
    return fine.resize((width, height), Image.Resampling.BOX)
