"""Replay: mix rows of older data into the training data, so that it is not forgotten."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field

from genwright.core import Dataset, Example, FilePath
from genwright.core import Settings as Options
from genwright.tuning.steps import Step, read_examples


class Settings(Options):
    """Options of replay."""

    data: FilePath = Field(description="A .jsonl file of older rows, in any shape that training data may have")
    ratio: float = Field(0.1, ge=0, description="Older rows for each training row; above what there is, all are taken")


def mix(train: Dataset, settings: Settings, *, seed: int) -> Dataset:
    """The training rows and `ratio` times as many of the older ones; the loop's shuffle mixes them.

    Raises DataError when the file has no rows.
    """
    count = round(settings.ratio * len(train))
    if not count:
        return train
    older = read_examples(settings.data)
    order = random.Random(f"replay {seed}").sample(range(len(older)), min(count, len(older)))
    return _Together(train, [older[i] for i in sorted(order)])


def regularize(step: Step, learner: Any, settings: Settings, *, context: Any) -> Step:
    """The step as it is: all is done by `mix` before training."""
    return step


class _Together(Dataset):
    """Rows that stay where they are (on disk, maybe) and more rows behind them."""

    def __init__(self, first: Dataset, more: Sequence[Example]):
        super().__init__()
        self._examples = _Chain(first, more)
        marks = [first.fingerprint, Dataset(more).fingerprint]
        self._fingerprint = hashlib.sha256("".join(marks).encode()).hexdigest()


class _Chain(Sequence[Example]):
    def __init__(self, first: Sequence[Example], more: Sequence[Example]):
        self.first, self.more = first, more

    def __len__(self) -> int:
        return len(self.first) + len(self.more)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return self.first[index] if index < len(self.first) else self.more[index - len(self.first)]

    def __iter__(self) -> Iterator[Example]:
        yield from self.first
        yield from self.more
