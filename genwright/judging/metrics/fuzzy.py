"""Fuzzy match: how many characters of answer and reference stand in both in the same order, by RapidFuzz (Indel)."""

from typing import Any

from pydantic import Field

from genwright.core import MissingExtra, Pairs, Score
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES, mean_score


class Settings(Base):
    lowercase: bool = Field(False, description="Ignore case")


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """Mean likeness, 0–100: 100 are equal texts, 0 share no character. Raises MissingExtra without rapidfuzz."""
    try:
        from rapidfuzz.fuzz import ratio
    except ImportError:
        raise MissingExtra("rapidfuzz", "text") from None
    from importlib.metadata import version

    def cut(text: str) -> str:
        return text.lower() if settings.lowercase else text

    return mean_score(
        [ratio(cut(p.said), cut(p.wanted)) for p in pairs], bootstrap=bootstrap, seed=seed, unit="0–100",
        signature=f"fuzzy|ratio|case:{'lc' if settings.lowercase else 'mixed'}|rapidfuzz:{version('rapidfuzz')}",
    )  # fmt: skip
