"""Bits a sample of held-out sound, beside counting (one level, two) and linear prediction of order 16.

Sounds are taken as 256 levels (mu-law) at the rate given, so models of other levels or rates do not compare; nor do
sounds of another kind, for bits are what noise costs.
"""

import math
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
from pydantic import Field

from genwright.core import Example, GenwrightError, Pairs, Score, UsageError
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES, ratio, score_of_sums
from genwright.judging.samples import baselines
from genwright.media.companding import levels_of
from genwright.media.sound import open_sound

needs = frozenset({"likelihood", "train"})


class Settings(Base):
    rate: int = Field(16_000, ge=1_000, le=96_000, description="Samples a second: that of the model")
    counted: int = Field(200, ge=1, description="Training sounds on which the baselines count")


def score(
    pairs: Pairs, settings: Settings, *, train: Iterable[Example] = (), bootstrap: int = RESAMPLES, seed: int = 0,
    **context: Any,
) -> Score:  # fmt: skip
    """Raises UsageError when no row has a likelihood."""
    told = [pair for pair in pairs if pair.likelihood and pair.likelihood.tokens]
    if not told:
        raise UsageError("No held-out sound has a likelihood.", "Leave `sound_bits` out.")
    held = [_levels(pair.example, settings.rate) for pair in told]
    seen = [levels for example in islice(train, settings.counted) if len(levels := _levels(example, settings.rate))]
    rows = np.array([(p.likelihood.nll / math.log(2), p.likelihood.tokens) for p in told if p.likelihood])
    return score_of_sums(
        rows, ratio, bootstrap=bootstrap, seed=seed, each=tuple(ratio(rows).tolist()), higher_is_better=False,
        unit="bits a sample", signature=f"sound_bits|mu-law:256|rate:{settings.rate}|sample-weighted",
        beside=baselines(seen, held) if seen else {}, details={"samples": int(rows[:, 1].sum()), "rows": len(rows)},
    )  # fmt: skip


def _levels(example: Example, rate: int) -> np.ndarray:
    """None where a row has no sound that can be read."""
    path = next((part.path for part in example.answer.parts if part.kind == "audio" and part.path), None)
    try:
        found: np.ndarray = levels_of(open_sound(path).mono().at(rate).samples[:, 0]) if path else np.zeros(0, np.uint8)
    except GenwrightError:
        found = np.zeros(0, np.uint8)
    return found
