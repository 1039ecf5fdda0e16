"""The schedule: which rows make each step, and how fast each step learns. Pure functions, so a resumed run agrees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count, takewhile

import numpy as np

from genwright.core.recipe import Train


class Plan:
    """Rows, shuffled anew each epoch, filled in that order into steps.

    A step holds at most `tokens_per_batch` slots (one row at least), or `rows_per_batch` rows. Everything follows from
    (sizes, seed, settings); nothing is remembered from step to step.
    """

    def __init__(self, sizes: Sequence[int] | np.ndarray, settings: Train, *, seed: int):
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.settings, self.seed = settings, seed
        self._epoch = -1
        self._order = self._cuts = np.empty(0, dtype=np.int64)
        self.starts = self._count()  # the first step of each epoch, and the end of the last

    @property
    def steps(self) -> int:
        return self.starts[-1]

    @property
    def slots_per_step(self) -> float:
        """How many slots a step takes, about."""
        if rows := self.settings.rows_per_batch:
            return rows * float(self.sizes.mean())
        return min(self.settings.tokens_per_batch, float(self.sizes.sum()))

    def rows(self, step: int) -> np.ndarray:
        """The rows of a step, in the order in which they were drawn."""
        epoch = int(np.searchsorted(self.starts, step, side="right")) - 1
        self._open(epoch)
        place = step - self.starts[epoch]
        return self._order[self._cuts[place] : self._cuts[place + 1]]

    def epoch(self, step: int) -> float:
        """How many times through the data `step` steps have gone."""
        epoch = min(int(np.searchsorted(self.starts, step, side="right")) - 1, len(self.starts) - 2)
        self._open(epoch)
        return epoch + (step - self.starts[epoch]) / (len(self._cuts) - 1)

    def _count(self) -> list[int]:
        starts, limit = [0], self.settings.max_steps or math.inf
        epochs = epochs_wanted(self.settings)
        for epoch in takewhile(lambda epoch: epoch < epochs, count()):
            self._open(epoch)
            steps = len(self._cuts) - 1
            share = min(1.0, epochs - epoch)
            starts.append(int(min(starts[-1] + max(1, round(steps * share)), limit)))
            if starts[-1] >= limit:
                break
        return starts

    def _open(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self.seed, epoch)).permutation(len(self.sizes))
            self._cuts = self._fill(self.sizes[self._order])

    def _fill(self, sizes: np.ndarray) -> np.ndarray:
        """Where each step begins, and where the last ends."""
        if rows := self.settings.rows_per_batch:
            return np.append(np.arange(0, len(sizes), rows), len(sizes))
        upto = np.concatenate([[0], np.cumsum(sizes)])
        cuts = [0]
        while cuts[-1] < len(sizes):
            here = cuts[-1]
            end = int(np.searchsorted(upto, upto[here] + self.settings.tokens_per_batch, side="right")) - 1
            cuts.append(max(end, here + 1))
        return np.array(cuts)


def epochs_wanted(settings: Train) -> float:
    """`max_steps` alone repeats the data as often as it takes; beside `epochs` it only ends them sooner."""
    given = "epochs" in settings.model_fields_set or settings.max_steps is None
    return settings.epochs if given else math.inf


def learning_rate(step: int, steps: int, settings: Train) -> float:
    """The rate of step `step` (from 0) of `steps`: a linear warm-up, then the schedule's shape down to its floor.

    `wsd` is warm-up, stable, then a decay by 1 - sqrt over the last fifth (Hägele et al. 2024).
    """
    warm = round(settings.warmup * steps) if settings.warmup < 1 else int(settings.warmup)
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)  # [0, 1)
    match settings.schedule:
        case "constant":
            shape = 1.0
        case "linear":
            shape = 1 - done
        case "cosine":
            shape = (1 + math.cos(math.pi * done)) / 2
        case "inverse_sqrt":
            shape = math.sqrt(max(warm, 1) / (step + 1))
        case "wsd":
            shape = 1.0 if done < 0.8 else 1 - math.sqrt((done - 0.8) / 0.2)
    floor = settings.min_learning_rate
    return settings.learning_rate * (floor + (1 - floor) * shape)
