"""Share of answers equal to the reference, after SQuAD's normalisation or to the letter (Rajpurkar et al. 2016)."""

from typing import Any

from pydantic import Field

from genwright.core import Pairs, Score
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES, mean_score
from genwright.judging.words import plain


class Settings(Base):
    normalize: bool = Field(True, description="Ignore case, punctuation and English articles; false compares letters")


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    form = plain if settings.normalize else str.strip
    each = [float(form(p.said) == form(p.wanted)) for p in pairs]
    kind = "squad" if settings.normalize else "none"
    return mean_score(each, bootstrap=bootstrap, seed=seed, unit="share", signature=f"exact_match|norm:{kind}")
