"""Bar validity: share of the answers' bars that last as long as their metre says; an answer that is no ABC has none.

Pickups, and what they take from the last bar of a section, count as right. Beside it stand the held-out tunes' own
(people make mistakes too); in the details `tunes` and `references_tunes`, the share without a wrong bar, and `unread`.
"""

from typing import Any

import numpy as np

from genwright.core import Pairs, Score, Settings
from genwright.judging.intervals import RESAMPLES, ratio, score_of_sums
from genwright.judging.tunes import mean, tune_in
from genwright.media.abc import Tune
from genwright.media.score import bars_of

needs = frozenset({"answers"})


def score(
    pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any
) -> Score:  # fmt: skip
    """The share over all bars of all answers."""
    made = [tune_in(pair.answer) for pair in pairs]
    true = [tune_in(pair.example.answer) for pair in pairs]
    rows, floor = np.array(list(map(_right, made))).reshape(-1, 2), np.array(list(map(_right, true))).reshape(-1, 2)
    return score_of_sums(
        rows, ratio, bootstrap=bootstrap, seed=seed, each=tuple(ratio(rows).tolist()), higher_is_better=True,
        unit="share", signature="bar_validity|pickups allowed",
        beside={"held-out tunes": float(ratio(floor.sum(0, keepdims=True))[0])},
        details={"bars": int(rows[:, 1].sum()), "tunes": mean([float(a == b) for a, b in rows]),
                 "references_tunes": mean([float(a == b) for a, b in floor]),
                 "unread": sum(tune is None for tune in made)},
    )  # fmt: skip


def _right(tune: Tune | None) -> tuple[float, float]:
    """(right bars, all bars); what cannot be read is one wrong bar."""
    if tune is None:
        return 0.0, 1.0
    bars = bars_of(tune)
    return float(bars.all - bars.wrong), float(max(1, bars.all))
