"""chrF: character n-gram F-score against the reference, by sacreBLEU (Popović 2015). Good for any language."""

from typing import Any

from pydantic import Field

from genwright.core import Pairs, Score
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES
from genwright.judging.sacre import sacre_metrics, sacre_score


class Settings(Base):
    char_order: int = Field(6, ge=1, le=10, description="Longest character n-gram")
    word_order: int = Field(0, ge=0, le=4, description="Longest word n-gram; 2 is chrF++")
    beta: int = Field(2, ge=1, description="How much more recall weighs than precision")
    lowercase: bool = Field(False, description="Ignore case")


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    metric = sacre_metrics().CHRF(**settings.model_dump())
    return sacre_score(metric, pairs, bootstrap=bootstrap, seed=seed, unit="0–100")
