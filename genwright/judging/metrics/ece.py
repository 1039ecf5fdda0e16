"""Expected calibration error: how far confidence and accuracy lie apart, in bins of confidence (Naeini et al. 2015).

The engine says how sure it is in the answer part's `meta["probs"]`: {label: probability}.
"""

from typing import Any

import numpy as np
from pydantic import Field

from genwright.core import Judged, Pairs, Score, UsageError
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES, score_of_sums


class Settings(Base):
    bins: int = Field(15, ge=2, le=100, description="Equally wide bins of confidence")


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """Raises UsageError when an answer carries no probabilities."""
    bins = settings.bins
    rows = np.zeros((len(pairs), 3 * bins + 1))  # for each bin: answers, confidence, right ones; then all answers
    for row, pair in zip(rows, pairs, strict=True):
        label, confidence = _surest(pair)
        bin_of = min(int(confidence * bins), bins - 1)
        right = label.strip().casefold() == pair.wanted.strip().casefold()
        row[3 * bin_of : 3 * bin_of + 3] = 1, confidence, right
        row[-1] = 1
    counts = rows.sum(0)[:-1].reshape(bins, 3)
    shown = [{"bin": i / bins, "rows": int(n), "confidence": c / n, "accuracy": r / n} for i, (n, c, r) in enumerate(counts) if n]  # fmt: skip  # noqa: E501
    return score_of_sums(
        rows, _error, bootstrap=bootstrap, seed=seed, higher_is_better=False, unit="share",
        signature=f"ece|bins:{bins}|equal width", details={"bins": shown},
    )  # fmt: skip


def _error(sums: np.ndarray) -> np.ndarray:
    apart = np.abs(sums[:, 1:-1:3] - sums[:, 2:-1:3]).sum(1)
    return apart / np.maximum(sums[:, -1], 1)


def _surest(pair: Judged) -> tuple[str, float]:
    for part in pair.answer.parts if pair.answer else ():
        probs = (part.meta or {}).get("probs")
        if probs:
            return max(((str(k), float(v)) for k, v in probs.items()), key=lambda kv: kv[1])
    raise UsageError(
        "The answers carry no probabilities, so calibration cannot be told.", "Use task classify, or leave out ece."
    )
