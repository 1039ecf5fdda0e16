"""Tune likeness: how far the answers' notes are from the held-out tunes' in distribution; 0 is the same, 1 unlike.

The mean divergence (Jensen–Shannon, bits) of four histograms: the notes' places in the scale, the steps between them,
their places in the bar, their lengths; all of them are the same in every key. In the details stands each. Beside it
stands one half of the held-out tunes against the other, below which no model can be told from people. There is no
interval: drawing a tune twice would make any two sets more unlike.
"""

from typing import Any

import numpy as np

from genwright.core import Pairs, Score, Settings, UsageError
from genwright.judging.tunes import apart, looks, mean, tune_in

needs = frozenset({"answers"})


def score(pairs: Pairs, settings: Settings, **context: Any) -> Score:
    """Raises UsageError when no answer is a tune."""
    read = [(tune_in(pair.answer), tune_in(pair.example.answer)) for pair in pairs]
    both = [(looks(made), looks(true)) for made, true in read if made and true]
    if not both:
        raise UsageError("No answer is a tune in ABC.", "Leave `tune_likeness` out.")
    mine, theirs = (np.array(some) for some in zip(*both, strict=True))
    each = {name: float(one) for name, one in apart(mine.sum(0), theirs.sum(0)).items()}
    halves = mean([float(one) for one in apart(theirs[::2].sum(0), theirs[1::2].sum(0)).values()])
    return Score(
        mean(list(each.values())), higher_is_better=False, unit="bits", signature="tune_likeness|Jensen-Shannon",
        beside={"halves of the held-out tunes": halves}, details={**each, "tunes": len(both)},
    )  # fmt: skip
