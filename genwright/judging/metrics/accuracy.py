"""Share of answers that are the right label (case and outer spaces ignored)."""

from collections import Counter
from typing import Any

from genwright.core import Pairs, Score, Settings
from genwright.judging.intervals import RESAMPLES, mean_score


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """The details hold what always naming the commonest label would reach."""
    wanted = [p.wanted.strip().casefold() for p in pairs]
    each = [float(p.said.strip().casefold() == label) for p, label in zip(pairs, wanted, strict=True)]
    commonest = Counter(wanted).most_common(1)
    return mean_score(
        each, bootstrap=bootstrap, seed=seed, unit="share", signature="accuracy|casefold",
        details={"majority": commonest[0][1] / len(wanted) if commonest else None, "labels": len(set(wanted))},
    )  # fmt: skip
