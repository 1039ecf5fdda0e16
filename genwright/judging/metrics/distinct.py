"""Distinct-n: different n-grams among all n-grams of the answers; low means the model repeats itself (Li et al. 2016).

It falls with the amount of text, so compare it at equal numbers of answers. The interval is a jackknife: a bootstrap
draws rows twice, which alone would lower the figure.
"""

from collections import Counter
from typing import Any

from pydantic import Field

from genwright.core import Pairs, Score
from genwright.core import Settings as Base
from genwright.judging.intervals import jackknife
from genwright.judging.words import ngrams, units


class Settings(Base):
    n: int = Field(2, ge=1, le=8, description="Length of the n-grams of the value; 1 to 3 are shown too")


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = 1, **context: Any) -> Score:
    """Share of different n-grams; in the details for n of 1 to 3, and for the references."""
    texts = [units(p.said) for p in pairs]
    value, low, high = _distinct(texts, settings.n, bootstrap > 0)
    others = {f"distinct_{n}": _distinct(texts, n, False)[0] for n in (1, 2, 3)}
    references = _distinct([units(p.wanted) for p in pairs], settings.n, False)[0]
    return Score(
        value, low=low, high=high, unit="share", signature=f"distinct-{settings.n}|tok:words+cjk-chars",
        details=others | {"references": references},
    )  # fmt: skip


def _distinct(texts: list[list[str]], n: int, interval: bool) -> tuple[float, float | None, float | None]:
    """
    >>> _distinct([["a", "b", "a", "b"]], 2, False)[0]  # ab, ba, ab
    0.6666666666666666
    """
    rows = [Counter(ngrams(text, n)) for text in texts]
    whole: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        whole.update(row)
    total = whole.total()
    value = len(whole) / total if total else 0.0
    if not interval:
        return value, None, None
    without = []
    for row in rows:
        alone = sum(whole[gram] == count for gram, count in row.items())
        left = total - row.total()
        without.append((len(whole) - alone) / left if left else 0.0)
    low, high = jackknife(value, without)
    return value, None if low is None else max(0.0, low), None if high is None else min(1.0, high)
