"""Drawn: share of the answers that are drawings and show something when they are drawn; how many are copies.

In the details: `copies`, the share whose strokes are those of a training drawing, word for word (media/strokes.py), and
that of the held-out drawings; `copied_pictures` counts near copies too. `words` is the mean length of an answer.
"""

from collections.abc import Iterable
from typing import Any

from genwright.core import Example, GenwrightError, Message, Pairs, Score, Settings
from genwright.judging.intervals import RESAMPLES, mean_score
from genwright.judging.pictures import picture_of
from genwright.media.picture import rasterise, read_svg
from genwright.media.strokes import words_of_svg

needs = frozenset({"answers", "train"})
_SIDE = 48


def score(
    pairs: Pairs, settings: Settings, *, train: Iterable[Example] = (), bootstrap: int = RESAMPLES, seed: int = 0,
    **context: Any,
) -> Score:  # fmt: skip
    """The training drawings are streamed past the answers."""
    made, true = [_strokes(pair.answer) for pair in pairs], [_strokes(pair.example.answer) for pair in pairs]
    sought = {one for one in (*made, *true) if one}
    known = {words for example in train if (words := _strokes(example.answer)) in sought}
    return mean_score(
        [_shows(pair.answer) for pair in pairs], bootstrap=bootstrap, seed=seed, unit="share", higher_is_better=True,
        signature=f"drawn|resvg|{_SIDE}px",
        details={"copies": sum(one in known for one in made) / max(1, len(made)),
                 "references_copies": sum(one in known for one in true) / max(1, len(true)),
                 "words": sum(map(len, made)) / max(1, len(made))},
    )  # fmt: skip


def _strokes(message: Message | None) -> tuple[int, ...]:
    """The words of the drawing in a message; none when it holds none of lines."""
    path = picture_of(message)
    try:
        return tuple(words_of_svg(read_svg(path))) if path else ()
    except GenwrightError:
        return ()


def _shows(message: Message | None) -> bool:
    path = picture_of(message)
    try:
        return path is not None and rasterise(read_svg(path), _SIDE).getchannel("A").getextrema()[1] > 127
    except GenwrightError:
        return False
