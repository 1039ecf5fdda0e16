"""BLEU: n-gram precision against the reference, by sacreBLEU (Papineni et al. 2002; Post 2018).

The tokenizer is part of the score: figures with different signatures are different figures. Corpus BLEU is the value;
`each` is sentence BLEU with effective order, for looking at single answers only.
"""

from typing import Any, Literal

from pydantic import Field

from genwright.core import Pairs, Score
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES
from genwright.judging.sacre import cjk_tokenizer, is_cjk, sacre_metrics, sacre_score


class Settings(Base):
    tokenize: Literal["auto", "13a", "intl", "zh", "char", "none"] = Field(
        "auto", description="sacreBLEU's tokenizer; auto is 13a, for Chinese references zh, for Japanese char"
    )  # fmt: skip
    lowercase: bool = Field(False, description="Ignore case")
    max_order: int = Field(4, ge=1, le=8, description="Longest n-gram")


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """Corpus BLEU, 0–100. Raises MissingExtra without sacrebleu."""
    BLEU = sacre_metrics().BLEU
    tokenize = settings.tokenize
    if tokenize == "auto":
        tokenize = cjk_tokenizer(pairs) if is_cjk(pairs) else "13a"  # type: ignore[assignment]
    metric = BLEU(tokenize=tokenize, lowercase=settings.lowercase, max_ngram_order=settings.max_order, force=True)

    def sentence(counts: list[int]) -> float:
        n = settings.max_order
        found = BLEU.compute_bleu(
            correct=list(counts[2 : 2 + n]), total=list(counts[2 + n :]), sys_len=counts[0], ref_len=counts[1],
            smooth_method="exp", effective_order=True, max_ngram_order=n,
        )  # fmt: skip
        return float(found.score)

    return sacre_score(metric, pairs, each=sentence, bootstrap=bootstrap, seed=seed, unit="0–100")
