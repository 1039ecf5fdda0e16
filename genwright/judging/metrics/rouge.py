"""ROUGE: n-gram and subsequence overlap with the reference, by rouge-score (Lin 2004). ROUGE-1 to -5 and -L, F1.

rouge-score's own tokenizer knows only a–z and 0–9. Where the references are written otherwise, letters of every script
are kept and each Chinese character counts by itself; the signature says so.
"""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from genwright.core import MissingExtra, Pairs, Score
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES, score_of_sums
from genwright.judging.words import spelt

KINDS = ("rouge1", "rouge2", "rougeL")


class Settings(Base):
    kind: Literal["rouge1", "rouge2", "rouge3", "rouge4", "rouge5", "rougeL"] = Field(
        "rougeL", description="Which one is the value; ROUGE-1, -2 and -L are shown beside it"
    )
    tokenize: Literal["auto", "rouge", "unicode"] = Field(
        "auto",
        description="rouge is the library's (a–z, 0–9); unicode knows every script; auto looks at the references",
    )
    stem: bool = Field(False, description="Porter stemming (English, tokenizer rouge only)")


class _Spelt:
    def tokenize(self, text: str) -> list[str]:
        return spelt(text)


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """Mean F1 of the chosen ROUGE, 0–100; the usual three in the details. Raises MissingExtra without rouge-score."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise MissingExtra("rouge-score", "text") from None
    from importlib.metadata import version

    tokenize = settings.tokenize
    if tokenize == "auto":
        tokenize = "rouge" if _latin(pairs) else "unicode"
    kinds = list(dict.fromkeys((*KINDS, settings.kind)))
    scorer = RougeScorer(
        kinds, use_stemmer=settings.stem and tokenize == "rouge",
        tokenizer=_Spelt() if tokenize == "unicode" else None,
    )  # fmt: skip
    found = (scorer.score(p.wanted, p.said) for p in pairs)
    rows = np.array([[100 * f[kind].fmeasure for kind in kinds] + [1.0] for f in found]).reshape(-1, len(kinds) + 1)
    main = kinds.index(settings.kind)
    stem = "yes" if settings.stem and tokenize == "rouge" else "no"
    return score_of_sums(
        rows, lambda sums: sums[:, main] / np.maximum(sums[:, -1], 1), bootstrap=bootstrap, seed=seed,
        each=tuple(rows[:, main].tolist()), unit="0–100",
        signature=f"{settings.kind}|f1|tok:{tokenize}|stem:{stem}|rouge-score:{version('rouge-score')}",
        details={kind: float(rows[:, i].mean()) for i, kind in enumerate(kinds)} if len(rows) else {},
    )  # fmt: skip


def _latin(pairs: Pairs) -> bool:
    """Whether nine in ten letters of the references are plain a–z or digits."""
    letters = [c for p in pairs for c in p.wanted if c.isalnum()]
    return sum(c.isascii() for c in letters) >= 0.9 * len(letters)
