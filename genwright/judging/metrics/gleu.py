"""GLEU: n-grams shared with the reference, by the longer of the two texts (Wu et al. 2016); fit for single answers."""

from collections import Counter
from typing import Any

from pydantic import Field

from genwright.core import Pairs, Score
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES, ratio, score_of_sums
from genwright.judging.words import ngrams, units


class Settings(Base):
    max_order: int = Field(4, ge=1, le=8, description="Longest n-gram")
    lowercase: bool = Field(False, description="Ignore case")


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """The lower of n-gram precision and recall over all rows together, 0–100; words are cut at spaces, Chinese and
    Japanese characters stand by themselves."""
    rows = [(100 * shared, most) for shared, most in (_counts(p.said, p.wanted, settings) for p in pairs)]
    return score_of_sums(
        rows or [(0, 0)], ratio, bootstrap=bootstrap, seed=seed, unit="0–100",
        each=tuple(shared / most if most else 0.0 for shared, most in rows),
        signature=f"gleu|n:{settings.max_order}|case:{'lc' if settings.lowercase else 'mixed'}|unit:word or han",
    )  # fmt: skip


def _counts(said: str, wanted: str, settings: Settings) -> tuple[int, int]:
    """(n-grams that both have, n-grams of the text that has more)."""
    texts = (text.lower() if settings.lowercase else text for text in (said, wanted))
    ours, theirs = (
        Counter(gram for n in range(1, settings.max_order + 1) for gram in ngrams(words, n))
        for words in map(units, texts)
    )
    return (ours & theirs).total(), max(ours.total(), theirs.total())
