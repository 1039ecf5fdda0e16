"""Copy rate: share of the answers' long n-grams that stand word for word in the training answers (memorisation).

N-grams that stand in the prompt are left out: quoting what was asked is no memorisation. The references' own rate, in
the details, is the floor: stock phrases recur in any data (Carlini et al. 2021 for the concern).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from pydantic import Field

from genwright.core import Example, Judged, Pairs, Score
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES, ratio, score_of_sums
from genwright.judging.words import ngrams, units

needs = frozenset({"answers", "train"})
Grams = set[tuple[str, ...]]


class Settings(Base):
    n: int = Field(12, ge=2, le=50, description="Words (Chinese: characters) in a run that counts as copied")


def score(
    pairs: Pairs, settings: Settings, *, train: Iterable[Example] = (), bootstrap: int = RESAMPLES, seed: int = 0,
    **context: Any,
) -> Score:  # fmt: skip
    """Memory is bounded by the answers: the training rows are streamed past them."""
    n = settings.n
    said = [_grams(p, p.said, n) for p in pairs]
    wanted = [_grams(p, p.wanted, n) for p in pairs]
    known = _seen(set().union(*said, *wanted), train, n)
    rows = np.array([(len(g & known), len(g)) for g in said], dtype=np.float64).reshape(-1, 2)
    floor = np.array([(len(g & known), len(g)) for g in wanted], dtype=np.float64).reshape(-1, 2)
    return score_of_sums(
        rows, ratio, bootstrap=bootstrap, seed=seed, each=tuple(ratio(rows).tolist()), higher_is_better=False,
        unit="share", signature=f"copy_rate|n:{n}|tok:words+cjk-chars|without prompt",
        details={"references": float(ratio(floor.sum(0, keepdims=True))[0]), "ngrams": int(rows[:, 1].sum()),
                 "answers_with_a_copy": int((rows[:, 0] > 0).sum())},
    )  # fmt: skip


def _grams(pair: Judged, text: str, n: int) -> Grams:
    """The different n-grams of a text that are not in its own prompt."""
    asked = {gram for message in pair.example.prompt for gram in ngrams(units(message.text), n)}
    return set(ngrams(units(text), n)) - asked


def _seen(sought: Grams, train: Iterable[Example], n: int) -> Grams:
    found: Grams = set()
    if sought:
        for example in train:
            found.update(gram for gram in ngrams(units(example.answer.text), n) if gram in sought)
    return found
