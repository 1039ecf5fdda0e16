"""Likeness of meaning between answer and reference: cosine of sentence embeddings (USE multilingual v3, 16 languages).

A packaged encoder (Yang et al. 2019), numpy only. Floor: in the details stands the likeness of each answer to a
reference of another row.
"""

from typing import Any

import numpy as np

from genwright.core import Pairs, Score, Settings
from genwright.judging.intervals import RESAMPLES, mean_score
from genwright.nn.sentences import Sentences


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """Raises MissingExtra without the extra `embeddings`."""
    encoder = Sentences()
    said, wanted = (encoder(texts).astype(np.float64) for texts in ([p.said for p in pairs], [p.wanted for p in pairs]))
    others = (said * np.roll(wanted, 1, axis=0)).sum(1)
    return mean_score(
        (said * wanted).sum(1).tolist(), bootstrap=bootstrap, seed=seed, unit="cosine",
        signature=f"similarity|{encoder.signature}",
        details={"other_rows": float(others.mean()) if len(pairs) > 1 else None},
    )  # fmt: skip
