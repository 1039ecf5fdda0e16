"""Copied pictures: share of the answers that lie nearer to a training picture than true pictures do (memorisation).

Nearness is Euclidean between 16 × 16 mean colours, the picture or its mirror image. "Nearer" is below the distance that
5 % of the held-out pictures keep from their own nearest training picture: so 5 % is what a model scores that copies
nothing. Pixels, because a network's features see a copy with faint noise as another picture.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from genwright.core import Example, Pairs, Score, UsageError
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES, mean_score
from genwright.judging.pictures import distances, picture_of, thumbnails

needs = frozenset({"answers", "train"})
_AT_ONCE = 1024


class Settings(Base):
    percentile: float = Field(
        5.0, gt=0, lt=100, description="Of the held-out pictures' distances to training pictures: nearer is a copy"
    )


def score(
    pairs: Pairs, settings: Settings, *, train: Iterable[Example] = (), held_out: Iterable[Example] = (),
    bootstrap: int = RESAMPLES, seed: int = 0, **context: Any,
) -> Score:  # fmt: skip
    """`held_out` are all rows that were not learned from; without them, those that were answered. The training pictures
    are streamed past the others. Raises UsageError where answers, held-out rows or training rows have no picture."""
    made = [path for pair in pairs if (path := picture_of(pair.answer))]
    true = _pictures(held_out) or _pictures(pair.example for pair in pairs)
    if not made or not true:
        raise UsageError("No answer, or no held-out row, is a picture.", "Leave `copied_pictures` out.")
    found, count = _nearest(made + true, _pictures(train))
    if not count:
        raise UsageError("No training row is a picture, so nothing can be copied.", "Leave `copied_pictures` out.")
    ours, theirs = found[: len(made)], found[len(made) :]
    threshold = float(np.percentile(theirs, settings.percentile))
    return mean_score(
        (ours < threshold).tolist(), bootstrap=bootstrap, seed=seed, unit="share", higher_is_better=False,
        signature=f"copied_pictures|16x16 rgb|mirrored|percentile:{settings.percentile:g}|train:{count}",
        details={"references": float((theirs < threshold).mean()), "threshold": threshold,
                 "median_distance": float(np.median(ours)), "references_median_distance": float(np.median(theirs)),
                 "held_out": len(true)},
    )  # fmt: skip


def _pictures(examples: Iterable[Example]) -> list[Path]:
    return [path for example in examples if (path := picture_of(example.answer))]


def _nearest(paths: Sequence[Path], train: Sequence[Path]) -> tuple[np.ndarray, int]:
    """Each picture's distance to its nearest training picture, (len(paths),), and how many of these there are."""
    sought = np.stack(list(thumbnails(paths)))
    mirrored = sought.reshape(-1, 16, 16, 3)[:, :, ::-1].reshape(len(sought), -1)
    nearest = np.full(len(sought), np.inf)
    for start in range(0, len(train), _AT_ONCE):
        known = np.stack(list(thumbnails(train[start : start + _AT_ONCE])))
        for view in (sought, mirrored):
            nearest = np.minimum(nearest, distances(view, known).min(1))
    return nearest, len(train)
