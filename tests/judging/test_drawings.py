"""Drawings judged: what shows nothing and what is copied is counted; bits stand beside those of n-grams."""

import math

import numpy as np
import pytest

from genwright.core import Example, Judged, Likelihood, Part, UsageError, assistant, choose, user
from genwright.judging.word_ngrams import _mixed, counted
from genwright.media.strokes import WORDS

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="black">'
BODIES = {
    "plus": '<path d="M12 5v14M5 12h14"/>', "bar": '<path d="M5 12h14"/>', "circle": '<circle cx="12" cy="12" r="9"/>',
    "none": '<path stroke="none" d="M5 5h9"/>', "filled": '<rect width="20" height="20" fill="red"/>',
}  # fmt: skip


@pytest.fixture
def drawing(tmp_path):
    def of(name):
        path = tmp_path / f"{name}.svg"
        path.write_text(f"{HEAD}{BODIES[name]}</svg>" if name in BODIES else "<svg")
        return assistant(Part(kind="image", path=path))

    return of


def test_answers_that_show_something_are_counted_and_copies_too(drawing):
    train = [Example((user("a"), drawing(name))) for name in ("plus", "filled")]
    made = ("plus", "bar", "none", "broken", "filled")
    pairs = [Judged(Example((user("a"), drawing("circle"))), drawing(name)) for name in made]
    pairs.append(Judged(Example((user("a"), drawing("plus"))), assistant("no drawing")))
    score = choose("metrics", "drawn")(pairs, train=train, bootstrap=20)
    assert score.value == pytest.approx(3 / 6)
    assert score.details["copies"] == pytest.approx(1 / 6), "the plus; what is no drawing of lines has no strokes"
    assert score.details["references_copies"] == pytest.approx(1 / 6)
    assert score.details["words"] == pytest.approx((11 + 6) / 6)


def test_bits_are_weighted_by_words_beside_what_counting_reaches(drawing):
    train = [Example((user("a"), drawing(name))) for name in ("plus", "plus", "bar")]
    pairs = [Judged(train[0], likelihood=Likelihood(11 * math.log(2), 11, 11)),
             Judged(train[2], likelihood=Likelihood(0.0, 6, 6)),
             Judged(Example((user("a"), drawing("filled"))), likelihood=Likelihood(0.0, 0, 0)),
             Judged(Example((user("a"), drawing("filled"))))]  # fmt: skip
    score = choose("metrics", "drawing_bits")(pairs, train=train, bootstrap=20)
    assert score.value == pytest.approx(11 / 17)
    assert (score.details["words"], score.details["rows"]) == (17, 2)
    orders = [score.details[f"order_{order}"] for order in range(4)]
    assert orders[3] < orders[2] < orders[1] < orders[0], "what was seen is told better with more before it"
    with pytest.raises(UsageError, match="likelihood"):
        choose("metrics", "drawing_bits")(pairs[2:], train=train)


def test_counts_are_a_distribution_at_every_order():
    counts = counted([[1, 2, 3, 1, 2, 4]])
    assert counts[()].total() == 6
    assert counts[1, 2] == {3: 1, 4: 1}
    even = np.full(WORDS, 1 / WORDS)
    found = _mixed(counts[1, 2], even)
    assert found.sum() == pytest.approx(1)
    assert found[3] == pytest.approx((1 + 2 / WORDS) / 4), "Witten and Bell: two kinds of words, two seen"
