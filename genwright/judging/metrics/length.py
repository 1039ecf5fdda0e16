"""Length of the answers by the length of the references, in words (Chinese by character)."""

from typing import Any

import numpy as np

from genwright.core import Pairs, Score, Settings
from genwright.judging.intervals import RESAMPLES, ratio, score_of_sums
from genwright.judging.words import units


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """1 is as long as the references; neither more nor less is better."""
    rows = np.array([(len(units(p.said)), len(units(p.wanted))) for p in pairs], dtype=np.float64).reshape(-1, 2)
    count = max(1, len(rows))
    return score_of_sums(
        rows, ratio, bootstrap=bootstrap, seed=seed, each=tuple(ratio(rows).tolist()), higher_is_better=None,
        unit="ratio", signature="length|tok:words+cjk-chars",
        details={"words": rows[:, 0].sum() / count, "reference_words": rows[:, 1].sum() / count,
                 "empty": int((rows[:, 0] == 0).sum())},
    )  # fmt: skip
