"""WER: word errors of a transcript: insertions, deletions and substitutions per word said; Chinese by character."""

from typing import Any

from pydantic import Field

from genwright.core import Pairs, Score
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES
from genwright.judging.spoken import error_rate
from genwright.judging.words import spelt, units


class Settings(Base):
    normalize: bool = Field(True, description="Ignore case and punctuation; false compares words as they are written")
    by: str = Field("", description="Also told apart for each value of this field of the rows: style, lang")


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """Errors per word; above 1 when more is invented than was said. Numbers and spellings are not made equal."""
    cut, kind = (spelt, "case+punctuation") if settings.normalize else (units, "none")
    return error_rate(
        pairs, cut, by=settings.by, bootstrap=bootstrap, seed=seed, signature=f"wer|unit:word or han|norm:{kind}"
    )
