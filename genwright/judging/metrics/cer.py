"""CER: character errors of a transcript: insertions, deletions and substitutions per character said, spaces aside."""

from typing import Any

from pydantic import Field

from genwright.core import Pairs, Score
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES
from genwright.judging.spoken import error_rate
from genwright.judging.words import spelt


class Settings(Base):
    normalize: bool = Field(True, description="Ignore case and punctuation; false compares every character but spaces")
    by: str = Field("", description="Also told apart for each value of this field of the rows: style, lang")


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """Errors per character; above 1 when more is invented than was said."""

    def cut(text: str) -> str:
        return "".join(spelt(text)) if settings.normalize else "".join(text.split())

    kind = "case+punctuation" if settings.normalize else "none"
    return error_rate(pairs, cut, by=settings.by, bootstrap=bootstrap, seed=seed, signature=f"cer|norm:{kind}")
