"""Tidy drawings look as before and are written in one way, however they came."""

from dataclasses import replace

import numpy as np
import pytest

from genwright.media.drawing import Arc, Curve, Line, read_drawing
from genwright.media.picture import rasterise
from genwright.media.strokes import svg_of, words_of_drawing, words_of_svg
from genwright.media.tidy import tidied

from .test_drawing import ICONS, apart, icon, svg

KAPPA = 0.5522847498


def round_by_curves(x, y, r):
    k = KAPPA * r
    return (
        f"M{x} {y - r}C{x + k} {y - r} {x + r} {y - k} {x + r} {y}S{x + k} {y + r} {x} {y + r}"
        f"S{x - r} {y + k} {x - r} {y}S{x - k} {y - r} {x} {y - r}Z"
    )


def whole(drawing):
    """With the lines that closing draws."""
    return [replace(one, segments=(*one.segments, Line(one.start))) if one.closed else one for one in drawing]


@pytest.mark.parametrize("name", ICONS)
def test_it_looks_as_before(name):
    before = read_drawing(icon(name))
    after = tidied(before)
    assert apart(whole(before), whole(after)) < 0.1
    pictures = [np.asarray(rasterise(svg_of(words_of_drawing(one)), 96))[..., 3] / 255.0 for one in (before, after)]
    assert abs(pictures[0] - pictures[1]).mean() < 0.02


@pytest.mark.parametrize("name", ICONS)
def test_a_second_time_changes_nothing(name):
    words = words_of_svg(icon(name))
    assert words_of_svg(svg_of(words)) == words


@pytest.mark.parametrize(("one", "other"), [
    ("M4 4L20 9", "M20 9L4 4"),
    ("M4 4H20V20H4Z", "M20 20V4H4V20H20"),
    ("M4 4H20V20H4Z", "M4 4V20H20V4H4Z"),
    ("M4 4h8h8V12V20H4V4", "M4 4H20V20H4Z"),
    ("M3 12A9 9 0 0 1 21 12A9 9 0 0 1 3 12Z", round_by_curves(12, 12, 9)),
    ("M3 12A9 9 0 0 1 21 12A9 9 0 0 1 3 12Z", "M12 21a9 9 0 1 0 0-18a9 9 0 0 0 0 18"),
    ("M2 2C4 4 8 8 12 12", "M2 2L12 12"),
    ("M8 8h2M2 20H22", "M2 20h20M8 8h2"),
    ("M6 12a6 6 0 0 1 12 0", "M18 12a6 6 0 0 0-6-6a6 6 0 0 0-6 6"),
])  # fmt: skip
def test_what_looks_the_same_is_written_the_same(one, other):
    assert words_of_svg(svg(f'<path d="{one}"/>')) == words_of_svg(svg(f'<path d="{other}"/>'))


def test_what_is_round_by_curves_becomes_arcs_and_other_curves_stay():
    (circle,) = tidied(read_drawing(svg(f'<path d="{round_by_curves(12, 12, 7)}"/>')))
    assert [type(one) for one in circle.segments] == [Arc, Arc]
    (egg,) = tidied(read_drawing(svg('<path d="M4 12C4 2 20 8 20 12"/>')))
    assert [type(one) for one in egg.segments] == [Curve]


def test_large_strokes_come_before_small_ones_and_a_dot_stays():
    strokes = tidied(read_drawing(svg('<path d="M12 12h.01M10 5h4M2 20h20"/>')))
    assert [one.start for one in strokes] == [(2, 20), (10, 5), (12, 12)]
    assert strokes[2].segments == (Line((12.01, 12)),)
