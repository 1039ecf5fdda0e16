"""What BLEU, chrF and TER share: sacreBLEU's own counts a row, its own score of their sums, its own signature."""

from __future__ import annotations

from typing import Any

import numpy as np

from genwright.core import MissingExtra, Pairs

from .intervals import Summed, score_of_sums
from .words import cjk_share, has_kana


def sacre_metrics() -> Any:
    """The module sacrebleu.metrics. Raises MissingExtra."""
    try:
        import sacrebleu.metrics as metrics
    except ImportError:
        raise MissingExtra("sacrebleu", "text") from None
    return metrics


def is_cjk(pairs: Pairs) -> bool:
    """Whether the references are mostly Chinese or Japanese: decided by the references, so the same for all models."""
    return cjk_share(pair.wanted for pair in pairs) >= 0.3


def cjk_tokenizer(pairs: Pairs) -> str:
    """sacreBLEU's Chinese tokenizer, or single characters when there is kana (its Japanese one needs MeCab)."""
    return "char" if has_kana(pair.wanted for pair in pairs) else "zh"


def sacre_score(metric: Any, pairs: Pairs, *, each: Any = None, bootstrap: int, seed: int, **facts: Any) -> Summed:
    """Score `pairs` with a sacreBLEU metric. `each(row counts) -> float` scores one row (default: like the corpus)."""
    rows = metric._extract_corpus_statistics([p.said for p in pairs], [[p.wanted for p in pairs]])

    def one(counts: Any) -> float:
        return float(metric._compute_score_from_stats([_number(c) for c in counts]).score)

    def combine(sums: np.ndarray) -> np.ndarray:
        return np.array([one(line) for line in sums])

    return score_of_sums(
        rows, combine, bootstrap=bootstrap, seed=seed, each=tuple((each or one)(row) for row in rows),
        signature=f"{metric.__class__.__name__}|{metric.get_signature()}", **facts,
    )  # fmt: skip


def _number(value: float) -> float:
    """sacreBLEU expects counts to be whole numbers where they are."""
    return int(value) if float(value).is_integer() else float(value)
