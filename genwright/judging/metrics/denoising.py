"""Denoising error: how far the model's clean picture is from the true one, from fixed noise at fixed times.

Mean squared error of pixels from -1 to 1, the same noise for every model, so that models and checkpoints compare. In
the details stand the times apart: early on the way from noise the whole composition is guessed, late only detail.
Beside it stands the same error on training rows: where it is far smaller, the model has begun to know its pictures by
heart.
"""

from typing import Any

import numpy as np

from genwright.core import Pairs, Score, Settings, UsageError
from genwright.judging.intervals import RESAMPLES, mean_score

needs = frozenset({"errors"})


def score(
    pairs: Pairs, settings: Settings, *, learned: Pairs = (), bootstrap: int = RESAMPLES, seed: int = 0, **context: Any
) -> Score:
    """`learned` are training rows with their errors. Raises UsageError when the model cannot tell such errors."""
    known, seen = _by_time(pairs), [float(np.mean(list(one.values()))) for one in _by_time(learned)]
    if not known:
        raise UsageError("This model tells no error of denoising.", "Leave `denoising` out.")
    by_time = {name: float(np.mean([one[name] for one in known])) for name in known[0]}
    return mean_score(
        [float(np.mean(list(one.values()))) for one in known], bootstrap=bootstrap, seed=seed, unit="mean square",
        higher_is_better=False, signature=f"denoising|{'+'.join(by_time)}|pixels:-1..1",
        beside={"training rows": float(np.mean(seen))} if seen else {},
        details={**by_time, "rows": len(known), "training_rows": len(seen)},
    )  # fmt: skip


def _by_time(pairs: Pairs) -> list[dict[str, float]]:
    told = ({name: error for name, error in (p.errors or {}).items() if name.startswith("t=")} for p in pairs)
    return [errors for errors in told if errors]
