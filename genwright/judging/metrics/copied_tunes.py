"""Copied tunes: share of the answers' runs of notes that stand in the training tunes, in whatever key.

The held-out tunes' own rate stands beside it: phrases wander from tune to tune, and a model that
copies no more than people do has learned no tune by heart.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from pydantic import Field

from genwright.core import Example, Pairs, Score
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES, ratio, score_of_sums
from genwright.judging.tunes import tune_in
from genwright.media.abc import Tune
from genwright.media.melody import Run, runs

needs = frozenset({"answers", "train"})


class Settings(Base):
    n: int = Field(16, ge=4, le=64, description="Notes of a run that counts as copied")


def score(
    pairs: Pairs, settings: Settings, *, train: Iterable[Example] = (), bootstrap: int = RESAMPLES, seed: int = 0,
    **context: Any,
) -> Score:  # fmt: skip
    """Memory is bounded by the answers: the training tunes are streamed past them."""
    made = [_runs(tune_in(pair.answer), settings.n) for pair in pairs]
    true = [_runs(tune_in(pair.example.answer), settings.n) for pair in pairs]
    sought, known = set().union(*made, *true), set[Run]()
    for example in train if sought else ():
        known |= _runs(tune_in(example.answer), settings.n) & sought
    rows = np.array([(len(some & known), len(some)) for some in made], np.float64).reshape(-1, 2)
    floor = np.array([(len(some & known), len(some)) for some in true], np.float64).reshape(-1, 2)
    return score_of_sums(
        rows, ratio, bootstrap=bootstrap, seed=seed, each=tuple(ratio(rows).tolist()), higher_is_better=False,
        unit="share", signature=f"copied_tunes|n:{settings.n}|steps+lengths",
        beside={"held-out tunes": float(ratio(floor.sum(0, keepdims=True))[0])},
        details={"runs": int(rows[:, 1].sum()), "answers_with_a_copy": int((rows[:, 0] > 0).sum()),
                 "references_with_a_copy": int((floor[:, 0] > 0).sum())},
    )  # fmt: skip


def _runs(tune: Tune | None, n: int) -> set[Run]:
    return {run for run in runs(tune, n) if len(run) == n} if tune else set()
