"""TER: edits needed to turn the answer into the reference, per reference word, by sacreBLEU (Snover et al. 2006)."""

from typing import Any

from pydantic import Field

from genwright.core import Pairs, Score
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES
from genwright.judging.sacre import is_cjk, sacre_metrics, sacre_score


class Settings(Base):
    normalized: bool | None = Field(
        None, description="Split off punctuation (and CJK characters); null does so for Chinese or Japanese references"
    )
    case_sensitive: bool = Field(False, description="Mind case")
    no_punct: bool = Field(False, description="Leave punctuation out")


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """Edits per 100 reference words. Raises MissingExtra without sacrebleu."""
    cjk = is_cjk(pairs)
    metric = sacre_metrics().TER(
        normalized=cjk if settings.normalized is None else settings.normalized, asian_support=cjk,
        case_sensitive=settings.case_sensitive, no_punct=settings.no_punct,
    )  # fmt: skip
    return sacre_score(
        metric, pairs, bootstrap=bootstrap, seed=seed, unit="edits per 100 words", higher_is_better=False
    )
