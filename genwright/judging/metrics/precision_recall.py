"""Precision and recall of pictures: whether answers look true, and whether all that is true is among them.

Kynkäänniemi et al. 2019: a picture counts as like a set when it lies within the distance that some picture of the set
keeps from its k-th neighbour, in EfficientNet-Lite0's features. The value is their harmonic mean, for precision alone
is easily fooled: on the emoji data white noise has 1.00, and no recall. In the details also density and coverage
(Naeem et al. 2020) and the middle realism (above 1: inside). Recall grows with the number of answers, so hold it
against that of the true pictures beside it, which are as many. The interval is a jackknife over groups of answers.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from pydantic import Field

from genwright.core import Example, Pairs, Score, UsageError
from genwright.core import Settings as Base
from genwright.judging.intervals import Jackknifed, jackknife
from genwright.judging.pictures import distances, sets_of
from genwright.nn.picture_features import CARDS, features, signature

needs = frozenset({"answers", "train"})
cards = CARDS
_GROUPS = 32


class Settings(Base):
    k: int = Field(3, ge=1, le=50, description="Neighbours: larger forgives more")
    reference: int = Field(2000, ge=4, description="Most true pictures of other rows to compare with")


def score(
    pairs: Pairs, settings: Settings, *, train: Iterable[Example] = (), held_out: Iterable[Example] = (), seed: int = 0,
    **context: Any,
) -> Score:  # fmt: skip
    """Raises UsageError for too few pictures, ModelError when the network's card has not been fetched."""
    sets = sets_of(pairs, train=train, held_out=held_out, most=settings.reference, seed=seed, metric="precision_recall")
    k = settings.k
    if len(sets.made) < k + 2 or len(sets.reference) < k + 2:
        raise UsageError(f"{k} neighbours need {k + 2} pictures on either side.", "Lower k, or judge more rows.")
    reference = features(sets.reference, sets.side)
    found = compared(made := features(sets.made, sets.side), reference, k)
    groups = [np.arange(len(made)) % min(_GROUPS, len(made)) != group for group in range(min(_GROUPS, len(made)))]
    kept = [made[group] for group in groups if group.sum() > k + 1]
    without = np.array([compared(some, reference, k)["f1"] for some in kept])
    others = {label: compared(features(paths, sets.side), reference, k) for label, paths in sets.beside.items()}
    low, high = jackknife(found["f1"], without)
    return Jackknifed(
        found["f1"], low=low, high=high, without=(without,), unit="harmonic mean",
        signature=f"precision_recall|{signature(sets.side)}|k:{k}|{sets.said()}",
        beside={"precision": found["precision"], "recall": found["recall"], "coverage": found["coverage"],
                **{label: one["f1"] for label, one in others.items()}},
        details=found | others,
    )  # fmt: skip


def compared(made: np.ndarray, true: np.ndarray, k: int) -> dict[str, float]:
    """precision, recall, f1, density, coverage and realism of two sets of vectors with more than k + 1 rows each.

    >>> same = np.random.default_rng(0).normal(size=(50, 4))
    >>> compared(same, same, 3)["f1"], compared(same + 100, same, 3)["f1"]
    (1.0, 0.0)
    """
    between = distances(made, true)
    of_made, of_true = _radii(made, k), _radii(true, k)
    inside = between <= of_true
    precision = float(inside.any(1).mean())
    recall = float((between <= of_made[:, None]).any(0).mean())
    usual = of_true <= np.median(of_true)  # the paper leaves out the half that lies far from all others
    realism = (of_true[usual] / np.maximum(between[:, usual], 1e-12)).max(1)
    return {
        "precision": precision, "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "density": float(inside.sum() / (k * len(made))),
        "coverage": float((between.min(0) <= of_true).mean()),
        "realism": float(np.median(realism)),
    }  # fmt: skip


def _radii(vectors: np.ndarray, k: int) -> np.ndarray:
    """Each one's distance to its k-th neighbour."""
    apart = distances(vectors, vectors)
    np.fill_diagonal(apart, np.inf)
    radii: np.ndarray = np.partition(apart, k - 1, axis=1)[:, k - 1]
    return radii
