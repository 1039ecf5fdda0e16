"""Self-BLEU: how much each answer looks like the others; low means variety (Zhu et al. 2018). By sacreBLEU."""

import random
from typing import Any

from pydantic import Field

from genwright.core import Pairs, Score, UsageError
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES, mean_score
from genwright.judging.sacre import cjk_tokenizer, is_cjk, sacre_metrics


class Settings(Base):
    rows: int = Field(
        100, ge=2, description="Answers compared, each with all others (a random choice if there are more)"
    )


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """Raises UsageError for fewer than two answers."""
    if len(pairs) < 2:
        raise UsageError("self_bleu compares answers with each other and needs at least two.")
    chosen = random.Random(f"self_bleu {seed}").sample(range(len(pairs)), min(settings.rows, len(pairs)))
    said = [pairs[i].said for i in sorted(chosen)]
    tokenize = cjk_tokenizer(pairs) if is_cjk(pairs) else "13a"
    metric = sacre_metrics().BLEU(tokenize=tokenize, effective_order=True, force=True)
    each = [metric.sentence_score(one, said[:i] + said[i + 1 :]).score for i, one in enumerate(said)]
    return mean_score(
        each, bootstrap=bootstrap, seed=seed, higher_is_better=False, unit="0–100",
        signature=f"self_bleu|answers:{len(said)}|{metric.get_signature()}",
    )  # fmt: skip
