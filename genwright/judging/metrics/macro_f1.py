"""Mean over the labels of each label's F1, so that rare labels count as much as common ones."""

from typing import Any

import numpy as np

from genwright.core import Pairs, Score, Settings
from genwright.judging.intervals import RESAMPLES, score_of_sums


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """Labels are those of the references; an answer that is none of them is a miss of the right label only."""
    wanted = [p.wanted.strip().casefold() for p in pairs]
    said = [p.said.strip().casefold() for p in pairs]
    labels = sorted(set(wanted))
    place = {label: 3 * i for i, label in enumerate(labels)}
    rows = np.zeros((len(wanted), 3 * len(labels)))  # for each label: right, named, wanted
    for row, told, right in zip(rows, said, wanted, strict=True):
        row[place[right] + 2] = 1
        if told in place:
            row[place[told] + 1] = 1
            row[place[told]] = told == right
    one = _f1(rows.sum(0, keepdims=True))[0] if labels else []
    return score_of_sums(
        rows, lambda sums: np.nanmean(_f1(sums), 1) if labels else np.zeros(len(sums)),
        bootstrap=bootstrap, seed=seed, unit="share", signature="macro_f1|labels:references|casefold",
        details={"each_label": {label: float(f) for label, f in zip(labels, one, strict=True)}},
    )  # fmt: skip


def _f1(sums: np.ndarray) -> np.ndarray:
    """(b, 3 × labels) -> (b, labels); NaN for a label that a resample neither wants nor names."""
    right, named, wanted = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
    both = named + wanted
    return np.divide(2 * right, both, out=np.full(both.shape, np.nan), where=both > 0)
