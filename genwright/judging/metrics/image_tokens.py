"""Bits per image token: how well the words foretell the tokens of held-out pictures.

Beside it stand what counting tells (order 0: how often each token comes; order 1: how often after the one before),
the same model without the words, the bits of a whole picture per number of its pixels (an upper bound: its tokens,
and what they leave open), how near the tokens come to the picture (PSNR), and the share of all tokens in use.
Tokens are the model's own, so compare `bits/dim` and PSNR between models, and bits per token with its baselines.
"""

import math
from typing import Any

import numpy as np

from genwright.core import Pairs, Score, Settings, UsageError
from genwright.judging.intervals import RESAMPLES, mean_score

needs = frozenset({"errors"})


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """Raises UsageError when the model has no tokens of pictures."""
    known = [pair.errors for pair in pairs if pair.errors and "token bits" in pair.errors]
    if not known:
        raise UsageError("This model has no tokens of pictures.", "Leave `image_tokens` out.")
    means = {name: float(np.mean([one[name] for one in known])) for name in known[0]}
    plain = {name: means[name] for name in ("order 0", "order 1", "untold") if name in means}
    means["PSNR"] = -10 * math.log10(max(means.pop("squared error"), 1e-10))
    return mean_score(
        [one["token bits"] for one in known], bootstrap=bootstrap, seed=seed, unit="bits per token",
        higher_is_better=False, signature="image_tokens|bits a token|first caption",
        beside=plain, details={**means, "rows": len(known)},
    )  # fmt: skip
