"""Copied pictures: share of the answers that lie nearer to a training picture than true pictures do (memorisation).

Nearness is Euclidean between 16 × 16 mean colours, the picture or its mirror image. "Nearer" is below the distance
that 5 % of the held-out pictures keep from their own nearest training picture: so 5 % is what a model scores that
copies nothing. Pixels, because a network's features see a copy with faint noise as another picture. The report shows
the answers that lie nearest, each beside its training picture.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from genwright.core import Example, Pairs, Part, Score, UsageError
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES, mean_score
from genwright.judging.pictures import caption_of, distances, picture_of, pictures_of, thumbnails

needs = frozenset({"answers", "train"})
_AT_ONCE = 1024


class Settings(Base):
    percentile: float = Field(
        5.0, gt=0, lt=100, description="Of the held-out pictures' distances to training pictures: nearer is a copy"
    )
    shown: int = Field(
        16, ge=0, le=200, description="Answers that lie nearest which the report shows, with their twins"
    )


def score(
    pairs: Pairs, settings: Settings, *, train: Iterable[Example] = (), held_out: Iterable[Example] = (),
    bootstrap: int = RESAMPLES, seed: int = 0, **context: Any,
) -> Score:  # fmt: skip
    """`held_out` are all rows that were not learned from; without them, those that were answered. The training
    pictures are streamed past the others. Raises UsageError where answers, held-out rows or training rows have no
    picture."""
    rows = [(pair, path) for pair in pairs if (path := picture_of(pair.answer))]
    true = pictures_of(held_out) or pictures_of(pair.example for pair in pairs)
    if not rows or not true:
        raise UsageError("No answer, or no held-out row, is a picture.", "Leave `copied_pictures` out.")
    known = pictures_of(train)
    if not known:
        raise UsageError("No training row is a picture, so nothing can be copied.", "Leave `copied_pictures` out.")
    found, which = _nearest([*(path for _, path in rows), *true], known)
    ours, theirs = found[: len(rows)], found[len(rows) :]
    threshold = float(np.percentile(theirs, settings.percentile))
    nearest = np.argsort(ours, kind="stable")[: settings.shown]
    return mean_score(
        (ours < threshold).tolist(), bootstrap=bootstrap, seed=seed, unit="share", higher_is_better=False,
        signature=f"copied_pictures|16x16 rgb|mirrored|percentile:{settings.percentile:g}|train:{len(known)}",
        beside={"held-out pictures": float((theirs < threshold).mean())},
        details={"references": float((theirs < threshold).mean()), "threshold": threshold,
                 "median_distance": float(np.median(ours)), "references_median_distance": float(np.median(theirs)),
                 "held_out": len(true)},
        sheet=tuple(
            (Part("image", f"{caption_of(rows[i][0].example)} ({ours[i]:.2f})", rows[i][1]),
             Part("image", "nearest training picture" + (" – a copy" if ours[i] < threshold else ""), known[which[i]]))
            for i in nearest
        ),
    )  # fmt: skip


def _nearest(paths: Sequence[Path], train: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Each picture's distance to its nearest training picture, (len(paths),), and which one that is."""
    sought = np.stack(list(thumbnails(paths)))
    mirrored = sought.reshape(-1, 16, 16, 3)[:, :, ::-1].reshape(len(sought), -1)
    nearest, which = np.full(len(sought), np.inf), np.zeros(len(sought), int)
    for start in range(0, len(train), _AT_ONCE):
        known = np.stack(list(thumbnails(train[start : start + _AT_ONCE])))
        for view in (sought, mirrored):
            apart = distances(view, known)
            best = apart.argmin(1)
            near = apart[np.arange(len(apart)), best]
            which = np.where(near < nearest, start + best, which)
            nearest = np.minimum(nearest, near)
    return nearest, which
