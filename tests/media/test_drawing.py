"""Drawings as strokes: every SVG of lines is read, nearly nothing is lost, and the grammar leaves no way astray."""

import math
import random

import numpy as np
import pytest

from genwright.core import DataError
from genwright.media.drawing import Arc, Curve, Line, Subpath, points_of, read_drawing
from genwright.media.picture import TooLarge, rasterise
from genwright.media.strokes import (
    ARC,
    CLOSE,
    END,
    LAST,
    LINE,
    MOVE,
    SHORTEST,
    SLOTS,
    TOLERANCE,
    WORDS,
    ZERO,
    Grammar,
    drawing_of,
    places_of,
    svg_of,
    words_of_drawing,
)

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2">'
ICONS = {  # in the manner of the sets: arcs on short chords, smooth curves, dots, all kinds of shapes
    "cat": "M6 20.3C4.7 19 4 17.1 4 15V4l4 3.2a9.7 9.7 0 0 1 8 0L20 4v11c0 5-3.4 7-8 7a9 9 0 0 1-4-.9M9 13h.01m6 0h.01",
    "power": "M7 6a7.75 7.75 0 1 0 10 0M12 4v8",
    "cloud": "M6.657 18C4.085 18 2 15.993 2 13.517s2.085-4.482 4.657-4.482c.393-1.762 1.794-3.2 3.675-3.773"
    "c1.88-.572 3.956-.193 5.444 1c1.488 1.19 2.162 3.007 1.77 4.769h.99c1.913 0 3.464 1.56 3.464 3.486"
    "S20.449 18 18.536 18z",
    "wave": "M2 12q2.5-5 5 0t5 0t5 0T22 12",
    "smooth": "M3 17c3-10 6-10 9-5s6 4 9-5M3 3S9 3 12 6",
    "packed": "M3 16v-5.5a2.5 2.5 0 015 0V16m0-4H3m9-6v12m4-2V8h3a2 2 0 010 4h-3m3 0a2 2 0 010 4h-3",
}  # fmt: skip


def svg(body, head=HEAD):
    return f"{head}{body}</svg>"


def icon(name):
    return svg(f'<path d="{ICONS[name]}"/>')


def along(drawing):
    """Points on the lines, less than a twentieth of a unit apart."""
    found = []
    for one in drawing:
        at = one.start
        for segment in one.segments:
            rough = np.array(points_of(at, segment, 12))
            found += points_of(at, segment, 1 + int(30 * np.hypot(*np.diff(rough, axis=0).T).sum()))
            at = segment.end
    return np.array(found)


def apart(one, other):
    """Hausdorff's distance of two drawings, by points along them."""
    a, b = along(one), along(other)
    far = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    return max(far.min(0).max(), far.min(1).max())


@pytest.mark.parametrize("name", ICONS)
def test_what_is_written_back_lies_within_the_tolerance(name):
    drawing = read_drawing(icon(name))
    words = words_of_drawing(drawing)
    assert apart(drawing, drawing_of(words)) <= TOLERANCE
    again = read_drawing(svg_of(words))
    assert words_of_drawing(again) == words, "a second time nothing changes"
    assert apart(again, drawing_of(words)) < 0.02


@pytest.mark.parametrize("name", ICONS)
def test_pixels_are_nearly_those_of_the_drawing(name):
    true, made = (np.asarray(rasterise(one, 48))[..., 3].astype(float) / 255
                  for one in (icon(name), svg_of(words_of_drawing(read_drawing(icon(name))))))  # fmt: skip
    assert abs(true - made).mean() < 0.06
    assert np.corrcoef(true.ravel(), made.ravel())[0, 1] > 0.8


@pytest.mark.parametrize(("shape", "path"), [
    ('<line x1="3" y1="4" x2="9" y2="20"/>', "M3 4L9 20"),
    ('<polyline points="3,4 9 20,12,4"/>', "M3 4L9 20L12 4"),
    ('<polygon points="3 4 9 20 12 4"/>', "M3 4L9 20L12 4Z"),
    ('<rect x="4" y="5" width="16" height="12"/>', "M4 5H20V17H4V5Z"),
    ('<rect x="4" y="5" width="16" height="12" rx="2"/>',
     "M6 5H18A2 2 0 0 1 20 7V15A2 2 0 0 1 18 17H6A2 2 0 0 1 4 15V7A2 2 0 0 1 6 5Z"),
    ('<circle cx="12" cy="12" r="9"/>', "M3 12A9 9 0 0 1 21 12A9 9 0 0 1 3 12Z"),
    ('<g transform="translate(2 3)"><g stroke="red"><path d="M1 1h6"/></g></g>', "M3 4h6"),
    ('<path transform="rotate(90 12 12)" d="M4 12h8"/>', "M12 4v8"),
    ('<path transform="scale(-1 1) translate(-24 0)" d="M4 12a4 4 0 0 1 8 0"/>', "M20 12a4 4 0 0 0-8 0"),
    ('<path transform="matrix(2 0 0 2 0 0)" d="M2 6a2 2 0 1 0 4 0"/>', "M4 12a4 4 0 1 0 8 0"),
    ('<path style="fill:none;stroke:#000" d="M1 1h5"/><path stroke="none" d="M0 0h24v24H0z"/>', "M1 1h5"),
    ('<circle cx="7.5" cy="7.5" r=".5" fill="currentColor"/>', "M7 7.5A.5 .5 0 0 1 8 7.5A.5 .5 0 0 1 7 7.5Z"),
])  # fmt: skip
def test_every_shape_is_a_path(shape, path):
    one, other = (words_of_drawing(read_drawing(svg(body))) for body in (shape, f'<path d="{path}"/>'))
    assert one == other


@pytest.mark.parametrize("shape", [
    '<ellipse cx="12" cy="12" rx="9" ry="5"/>', '<path d="M4 12A8 4 30 1 0 18 8"/>',
    '<path transform="skewX(10)" d="M3 12a6 6 0 0 1 12 0"/>',
    '<path transform="scale(1 .5)" d="M3 12a6 6 0 0 1 12 0"/>',
    '<path d="M3 3C3 40 21 -16 21 21"/>', '<path d="M4 12a2 2 0 0 0 12 1"/>',
])  # fmt: skip
def test_what_is_no_circle_becomes_curves(shape):
    drawing = read_drawing(svg(shape))
    found = drawing_of(words_of_drawing(drawing))
    assert apart(drawing, found) <= TOLERANCE
    true, made = (np.asarray(rasterise(one, 48))[..., 3] for one in (svg(shape), svg_of(words_of_drawing(drawing))))
    assert np.corrcoef(true.ravel(), made.ravel())[0, 1] > 0.8, "as resvg draws it"


def test_other_sizes_come_onto_the_same_square():
    wide = svg('<path d="M0 25H100"/>', '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 50" stroke="black">')
    assert read_drawing(wide) == (Subpath((0, 12), (Line((24, 12)),)),)
    bare = svg(
        '<path d="M0 0H48"/>', '<svg xmlns="http://www.w3.org/2000/svg" width="48px" height="48px" stroke="black">'
    )
    assert read_drawing(bare)[0].segments == (Line((24, 0)),)


@pytest.mark.parametrize(("body", "why"), [
    ("", "draws no line"),
    ('<path d=""/>', "draws no line"),
    ('<text x="1" y="9">a</text>', "<text>, which is no line"),
    ('<image href="a.png"/>', "<image>, which is no line"),
    ('<use href="#a"/>', "<use>, which is no line"),
    ('<rect x="4" y="4" width="16" height="9" fill="red"/>', "filled"),
    ('<path stroke="none" fill="black" d="M1 1h9v9z"/>', "filled"),
    ('<path d="L3 4"/>', "does not begin with a move"),
    ('<path d="M3 4L5"/>', "no number at character 6"),
    ('<path d="M3 4 5 6 z 7"/>', "no command at character 11"),
    ('<path d="M3 4a2 2 0 7 0 1 1"/>', "no number"),
    ('<path d="M3 4h1e300"/>', "beyond all measure"),
    ('<circle cx="x" r="4"/>', "its cx is no number"),
    ('<path d="M3 4H40"/>', "leaves its frame by 16.0"),
    ('<path d="M3 1a9 9 0 0 1 19 0" transform="scale(1 1.01)"/>', "leaves its frame"),
    ('<path transform="wobble(3)" d="M1 1h5"/>', "'wobble'"),
])  # fmt: skip
def test_what_cannot_be_learned_is_refused_with_the_reason(body, why):
    with pytest.raises(DataError, match=why):
        words_of_drawing(read_drawing(svg(body)))


@pytest.mark.parametrize("text", ["", "M3 4h5", "<html/>", '<!DOCTYPE a [<!ENTITY x "y">]><svg/>', HEAD])
def test_what_is_no_svg_is_refused(text):
    with pytest.raises(DataError):
        read_drawing(text)
    with pytest.raises(TooLarge):
        read_drawing(svg(" " * 3_000_000))
    with pytest.raises(DataError, match="viewBox"):
        read_drawing('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 0 24"/>')


def test_a_dot_is_drawn_and_read_back():
    words = words_of_drawing(read_drawing(svg('<path d="M9 13h.01"/>')))
    assert np.asarray(rasterise(svg_of(words), 24))[13, 8:10, 3].max() > 200
    assert words_of_drawing(read_drawing(svg_of(words))) == words


def test_an_arc_goes_the_right_way_round():
    """SVG 1.1, 8.3.8: the four arcs of one radius between two points."""
    for large in (False, True):
        for sweep in (False, True):
            ends = points_of((8, 12), Arc(5, large, sweep, (16, 12)), 2)
            middle = ends[1]
            assert math.isclose(middle[0], 12, abs_tol=1e-9)
            assert (middle[1] < 12) == sweep, "a positive angle goes over the top from left to right"
            assert math.isclose(abs(middle[1] - 12), 8 if large else 2)


# -- the grammar -------------------------------------------------------------------------------------------------------


def wandering(seed, room):
    """Words drawn blindly from what the grammar allows."""
    chance, grammar, words = random.Random(seed), Grammar(room), []
    while not grammar.is_done:
        words.append(chance.randint(grammar.low, grammar.high))
        grammar.put(words[-1])
    return words


@pytest.mark.parametrize("room", [SHORTEST, SHORTEST + 1, 40, 300])
def test_whatever_is_drawn_by_the_grammar_is_whole_valid_and_shows_something(room):
    for seed in range(40):
        words = wandering(seed, room)
        assert len(words) <= room
        assert words[-1] == END
        made = svg_of(words)
        drawing = read_drawing(made)
        for one in drawing:
            for end in (one.start, *(segment.end for segment in one.segments)):
                assert min(end) >= -0.02
                assert max(end) <= 24.02
        if seed < 8:
            assert np.asarray(rasterise(made, 24))[..., 3].max() > 127


def test_words_that_may_not_stand_there_are_refused():
    good = [MOVE, ZERO + 4, ZERO + 4, LINE, ZERO + 8, ZERO, END]
    assert len(places_of(good).slots) == 7
    for place, word in ((0, LINE), (3, END), (3, CLOSE), (4, LINE), (1, ZERO - 4), (4, ZERO + LAST), (6, ZERO)):
        wrong = [*good]
        wrong[place] = word
        with pytest.raises(ValueError, match="may not stand here"):
            places_of(wrong)
    with pytest.raises(ValueError, match="no whole drawing"):
        places_of(good[:-1])


def test_places_say_what_is_known():
    words = [MOVE, ZERO + 4, ZERO + 8, ARC + 3, ZERO + 12, ZERO + 6, ZERO, CLOSE, END]
    found = places_of(words)
    assert (found.xs[3], found.ys[3]) == (4, 8)
    assert (found.xs[7], found.ys[7]) == (10, 8)
    assert (found.xs[8], found.ys[8]) == (4, 8), "closing leads back to the start"
    assert found.lows[4] == ZERO + 1, "radii are not 0"
    assert max(found.slots) < SLOTS
    assert max(found.highs) < WORDS
    assert all(low <= word <= high for word, low, high in zip(words, found.lows, found.highs, strict=True))


def test_an_svg_looks_as_it_is_asked_to():
    words = words_of_drawing(read_drawing(icon("wave")))
    made = svg_of(words, colour="tomato", stroke_width=1.5, size=96)
    assert 'stroke="tomato"' in made
    assert 'stroke-width="1.5"' in made
    assert 'width="96"' in made
    assert made.count("<path") == 1, "one for each stroke"
    assert '"&lt;' in svg_of(words, colour="<")
    assert isinstance(drawing_of(words)[0].segments[0], Curve)
