"""Intervals: how sure a score is, by drawing the judged rows again and again (Efron 1979; Koehn 2004 for pairs).

Every score whose value is a function of sums over rows (a mean, a perplexity, BLEU's counts) hands in one line of
figures a row and the function that makes a value of their sums. Then a thousand resamples are one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genwright.core import Score

RESAMPLES = 1000
_CELLS = 4_000_000  # numbers held at once while resampling: 32 MB

Combine = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Summed(Score):
    """A score that remembers the figures it was summed from, (rows, k), so that two can be compared in pairs.

    `combine` turns sums (b, k) into values (b,).
    """

    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 1)), repr=False, compare=False)
    combine: Combine = field(default=lambda sums: sums[:, 0], repr=False, compare=False)

    def minus(self, base: Score, *, bootstrap: int = RESAMPLES, seed: int = 0) -> Difference:
        """This score less the base's on the same rows, by paired bootstrap."""
        return paired(base, self, bootstrap=bootstrap, seed=seed)


@dataclass(frozen=True)
class Difference:
    """Tuned minus base on the same rows: a 95 % interval, and the two-sided bootstrap p-value of "no difference"."""

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        return {"value": self.value, "low": self.low, "high": self.high, "p": self.p}

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero.

        >>> Difference(2.0, 1.0, 3.0, 0.01).is_clear, Difference(2.0, -1.0, 5.0, 0.2).is_clear
        (True, False)
        """
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def score_of_sums(
    rows: Any, combine: Combine, *, bootstrap: int = RESAMPLES, seed: int = 0, **facts: Any
) -> Summed:  # fmt: skip
    """The score of all rows with its percentile interval. `facts` are further fields of Score.

    >>> score_of_sums([[1, 2], [3, 4]], lambda s: s[:, 0] / s[:, 1]).value == 4 / 6
    True
    """
    rows = np.asarray(rows, dtype=np.float64)
    value = float(combine(rows.sum(0, keepdims=True))[0])
    low, high = _percentiles(resampled(rows, combine, bootstrap, seed))
    return Summed(value, low=low, high=high, rows=rows, combine=combine, **facts)


def mean_score(each: Sequence[float], **facts: Any) -> Summed:
    """The mean of one value a row.

    >>> mean_score([0.0, 1.0]).value
    0.5
    """
    return score_of_sums([(value, 1.0) for value in each], ratio, each=tuple(map(float, each)), **facts)


def ratio(sums: np.ndarray) -> np.ndarray:
    """First sum by second; 0 where the second is 0."""
    return np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] != 0)


def resampled(rows: np.ndarray, combine: Combine, count: int, seed: int) -> np.ndarray:
    """Values of `count` resamples of the rows, (count,). The same seed and number of rows draw the same resamples."""
    if len(rows) == 0 or count == 0:
        return np.zeros(0)
    return np.concatenate([combine(draw @ rows) for draw in _draws(len(rows), count, seed)])


def _draws(rows: int, count: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row is drawn, (b, rows) at a time, `count` lines in all."""
    random = np.random.default_rng([seed, rows, count])
    at_once = max(1, _CELLS // rows)
    for start in range(0, count, at_once):
        block = min(at_once, count - start)
        lines = np.repeat(np.arange(block), rows) * rows
        drawn = np.bincount(lines + random.integers(0, rows, block * rows), minlength=block * rows)
        yield drawn.reshape(block, rows).astype(np.float64)


def paired(base: Score, tuned: Score, *, bootstrap: int = RESAMPLES, seed: int = 0) -> Difference:
    """Tuned minus base. Without row figures for the same rows on both sides, the plain difference alone."""
    value = tuned.value - base.value
    before, after = _summed(base), _summed(tuned)
    if before is None or after is None or len(before.rows) != len(after.rows) or not len(after.rows) or not bootstrap:
        return Difference(value)
    return _from_draws(
        value,
        resampled(after.rows, after.combine, bootstrap, seed) - resampled(before.rows, before.combine, bootstrap, seed),
    )


def paired_means(
    base: Sequence[float], tuned: Sequence[float], *, bootstrap: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Difference of the means of one value a row, for rows kept on disk."""
    return paired(mean_score(base, bootstrap=0), mean_score(tuned, bootstrap=0), bootstrap=bootstrap, seed=seed)


def jackknife(value: float, *without: Sequence[float] | np.ndarray) -> tuple[float | None, float | None]:
    """A 95 % interval from the values with one row left out each (Tukey 1958), where drawing a row twice would lie.

    `without` has one line of values for each set of rows that was drawn by itself.
    """
    error = _jackknife_error(without)
    return (None, None) if error is None else (value - 1.96 * error, value + 1.96 * error)


def _jackknife_error(without: Sequence[Sequence[float] | np.ndarray]) -> float | None:
    if not without or min(map(len, without)) < 2:
        return None
    spreads = [np.asarray(one) - np.mean(one) for one in without]
    return float(np.sqrt(sum((len(one) - 1) / len(one) * np.sum(one**2) for one in spreads)))


@dataclass(frozen=True)
class Jackknifed(Score):
    """A score of whole sets that remembers its values with one row (or one group of rows) left out each, a line for
    each set."""

    without: tuple[np.ndarray, ...] = field(default=(), repr=False, compare=False)

    def minus(self, base: Score, *, bootstrap: int = RESAMPLES, seed: int = 0) -> Difference:
        """This score less the base's, the same rows left out on both sides; without these, the plain difference."""
        value = self.value - base.value
        lines = base.without if isinstance(base, Jackknifed) else ()
        if [len(one) for one in lines] != [len(one) for one in self.without]:
            return Difference(value)
        error = _jackknife_error([ours - theirs for ours, theirs in zip(self.without, lines, strict=True)])
        if error is None:
            return Difference(value)
        p = math.erfc(abs(value) / error / math.sqrt(2)) if error else float(value == 0)
        return Difference(value, value - 1.96 * error, value + 1.96 * error, p)


def _summed(score: Score) -> Summed | None:
    if isinstance(score, Summed):
        return score
    each = np.asarray(score.each, dtype=np.float64)
    if not len(each) or not np.isclose(each.mean(), score.value):
        return None  # the value is no mean of the rows: nothing to resample
    return Summed(score.value, rows=np.stack([each, np.ones(len(each))], 1), combine=ratio)


def _from_draws(value: float, draws: np.ndarray) -> Difference:
    low, high = _percentiles(draws)
    one_side = min(float(np.mean(draws <= 0)), float(np.mean(draws >= 0)))
    return Difference(value, low, high, float(min(1.0, 2 * max(one_side, 1 / (len(draws) + 1)))))


def _percentiles(draws: np.ndarray) -> tuple[float | None, float | None]:
    if not len(draws):
        return None, None
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
