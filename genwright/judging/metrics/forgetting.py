"""Loss on a fixed set of general text: what the model unlearns while it learns. Tuned minus base is the forgetting.

Nats per token of the answers of the general set (McCloskey & Cohen 1989 for the effect). Judged in every run of a
model that can tell likelihoods. The details hold perplexity and bits per character.
"""

import math
from typing import Any

import numpy as np

from genwright.core import Pairs, Score, Settings, UsageError
from genwright.judging.intervals import RESAMPLES, ratio, score_of_sums

needs = frozenset({"general"})


def score(
    pairs: Pairs, settings: Settings, *, general: Pairs = (), general_name: str = "own",
    bootstrap: int = RESAMPLES, seed: int = 0, **context: Any,
) -> Score:  # fmt: skip
    """`general` are judged rows with likelihoods. Raises UsageError without any."""
    known = [p.likelihood for p in general if p.likelihood is not None]
    rows = np.array([(one.nll, one.tokens, one.chars) for one in known], dtype=np.float64).reshape(-1, 3)
    nll, tokens, chars = rows.sum(0)
    if not tokens:
        raise UsageError("There are no likelihoods of general text, so forgetting cannot be told.")
    return score_of_sums(
        rows, ratio, bootstrap=bootstrap, seed=seed, higher_is_better=False, unit="nats per token",
        signature=f"forgetting|nll|general:{general_name}|rows:{len(known)}",
        details={"perplexity": math.exp(min(nll / tokens, 700)), "tokens": int(tokens),
                 "bits_per_char": nll / math.log(2) / chars if chars else None},
    )  # fmt: skip
