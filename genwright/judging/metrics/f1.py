"""F1 of the words shared by answer and reference, as for SQuAD; Chinese by character (Rajpurkar et al. 2016)."""

from collections import Counter
from typing import Any

from genwright.core import Pairs, Score, Settings
from genwright.judging.intervals import RESAMPLES, mean_score
from genwright.judging.words import plain, units


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    each = [_f1(units(plain(p.said)), units(plain(p.wanted))) for p in pairs]
    return mean_score(each, bootstrap=bootstrap, seed=seed, unit="share", signature="f1|norm:squad|tok:words+cjk-chars")


def _f1(said: list[str], wanted: list[str]) -> float:
    """
    >>> _f1(["big", "cat"], ["cat"])
    0.6666666666666666
    """
    if not said or not wanted:
        return float(said == wanted)
    shared = sum((Counter(said) & Counter(wanted)).values())
    return 2 * shared / (len(said) + len(wanted))
