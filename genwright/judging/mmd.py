"""MMD: how far two sets of vectors lie apart in the eyes of a kernel, without bias (Gretton et al. 2012)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from genwright.core import Example, Pairs
from genwright.judging.intervals import Jackknifed, jackknife
from genwright.judging.pictures import distances, sets_of
from genwright.nn.picture_features import features, signature

Without = tuple[np.ndarray, np.ndarray]
Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
SCALE = 1000.0


def polynomial(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(x · y / d + 1)³, the kernel of KID (Bińkowski et al. 2018)."""
    kernel: np.ndarray = (some @ others.T / some.shape[1] + 1) ** 3
    return kernel


def gaussian(width: float) -> Kernel:
    """exp(−|x − y|² / 2 width²)."""
    return lambda some, others: np.exp(-(distances(some, others) ** 2) / (2 * width**2))


def mmd(some: np.ndarray, others: np.ndarray, kernel: Kernel) -> tuple[float, Without]:
    """The squared MMD of two sets of vectors, unbiased (so it may fall below zero), and what it would be without each
    row of the first and of the second. At least three rows each."""
    m, n = len(some), len(others)
    inner, first = _off_diagonal(kernel(some, some))
    outer, second = _off_diagonal(kernel(others, others))
    between = kernel(some, others)
    cross = between.sum()
    value = inner / (m * (m - 1)) + outer / (n * (n - 1)) - 2 * cross / (m * n)
    without_first = (
        (inner - 2 * first) / ((m - 1) * (m - 2)) + outer / (n * (n - 1)) - 2 * (cross - between.sum(1)) / ((m - 1) * n)
    )
    without_second = (
        inner / (m * (m - 1))
        + (outer - 2 * second) / ((n - 1) * (n - 2))
        - 2 * (cross - between.sum(0)) / (m * (n - 1))
    )
    return float(value), (without_first, without_second)


def mmd_score(
    pairs: Pairs, kernel_of: Callable[[np.ndarray], tuple[Kernel, str]], *, name: str, most: int, seed: int,
    train: Iterable[Example], held_out: Iterable[Example],
) -> Jackknifed:  # fmt: skip
    """The squared MMD × 1000 between features of the answers and of true pictures of other rows; beside it the same
    of the true pictures and of retrieved ones. `kernel_of` makes the kernel and its words of the reference's
    features."""
    sets = sets_of(pairs, train=train, held_out=held_out, most=most, seed=seed, metric=name)
    reference = features(sets.reference, sets.side)
    kernel, words = kernel_of(reference)
    value, without = _scaled(mmd(features(sets.made, sets.side), reference, kernel))
    found = {label: _scaled(mmd(features(paths, sets.side), reference, kernel)) for label, paths in sets.beside.items()}
    floor, floor_without = found["true pictures"]
    above = [ours - theirs for ours, theirs in zip(without, floor_without, strict=True)]
    low, high = jackknife(value, *without)
    details: dict[str, Any] = {
        label: dict(zip(("value", "low", "high"), (one, *jackknife(one, *lines)), strict=True))
        for label, (one, lines) in (found | {"above true pictures": (value - floor, (above[0], above[1]))}).items()
    }
    return Jackknifed(
        value, low=low, high=high, without=without, higher_is_better=False, unit="× 1000", details=details,
        beside={label: one for label, (one, _) in found.items()},
        signature=f"{name}|{signature(sets.side)}|{words}|unbiased|{sets.said()}",
    )  # fmt: skip


def _scaled(found: tuple[float, Without]) -> tuple[float, Without]:
    return SCALE * found[0], (SCALE * found[1][0], SCALE * found[1][1])


def _off_diagonal(kernel: np.ndarray) -> tuple[float, np.ndarray]:
    """The sum without the diagonal, and that of each row."""
    rows = kernel.sum(1) - np.diagonal(kernel)
    return float(rows.sum()), rows
