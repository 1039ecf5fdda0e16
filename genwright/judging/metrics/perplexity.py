"""Perplexity of the held-out answers: how surprised the model is, per token. Token-weighted over all held-out rows.

Tokens differ between tokenizers, so compare perplexity between models of one tokenizer only; bits per character
(in the details) compares across tokenizers.
"""

import math
from typing import Any

import numpy as np

from genwright.core import Pairs, Score, Settings, UsageError
from genwright.judging.intervals import RESAMPLES, score_of_sums

needs = frozenset({"likelihood"})


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """Raises UsageError when no row has a likelihood."""
    known = [p.likelihood for p in pairs if p.likelihood is not None]
    if not sum(one.tokens for one in known):
        raise UsageError(
            "No held-out row has a likelihood.", "Choose a model that can tell one, or leave perplexity out."
        )
    rows = np.array([(one.nll, one.tokens, one.chars) for one in known], dtype=np.float64)
    nll, tokens, chars = rows.sum(0)
    return score_of_sums(
        rows, _perplexity, bootstrap=bootstrap, seed=seed, each=tuple(_perplexity(rows).tolist()),
        higher_is_better=False, unit="per token", signature="perplexity|token-weighted|answer tokens",
        details={"nats_per_token": nll / tokens, "bits_per_char": nll / math.log(2) / chars if chars else None,
                 "tokens": int(tokens), "chars": int(chars), "rows": len(known)},
    )  # fmt: skip


def _perplexity(sums: np.ndarray) -> np.ndarray:
    """exp(nats per token), bounded so that it stays a number."""
    return np.exp(np.minimum(sums[:, 0] / np.maximum(sums[:, 1], 1), 700.0))
