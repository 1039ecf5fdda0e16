"""A real, very small learner for the tests of the loop: letters in, next letter out, through one hidden layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from genwright.core import Dataset, Encoded, Example, Loss, Unlearnable, assistant, user
from genwright.core.recipe import Train

LETTERS = 64


class Net(nn.Module):
    """Each letter is predicted from the three before it."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.letters = nn.Embedding(LETTERS, width)
        self.inner = nn.Linear(3 * width, 2 * width)
        self.norm = nn.LayerNorm(2 * width)
        self.dropout = nn.Dropout(0.1)
        self.out = nn.Linear(2 * width, LETTERS)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        seen = self.letters(windows).flatten(1)
        return self.out(self.dropout(self.norm(torch.tanh(self.inner(seen)))))


@dataclass
class Batch:
    windows: torch.Tensor
    targets: torch.Tensor


class Tiny:
    """A Learner of letters. The prompt is not supervised."""

    def __init__(self, seed: int = 0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.module = Net()
        self.encoded = 0
        self.heard: list[float] = []

    def encode(self, example: Example, *, supervise: str = "answer") -> Encoded:
        self.encoded += 1
        asked, told = example.prompt[0].text, example.answer.text
        if not told:
            raise Unlearnable("the answer is empty")
        tokens = np.array([ord(c) % LETTERS for c in asked + told], dtype=np.int32)
        targets = np.append(tokens[1:], -100).astype(np.int32)
        targets[: len(asked) - 1] = -100
        return Encoded(({"tokens": tokens, "targets": targets},), len(tokens), float((targets >= 0).sum()))

    def collate(self, items: Sequence[Encoded]) -> Batch:
        windows, targets = [], []
        for item in items:
            tokens = np.concatenate([[0, 0], item.sequences[0]["tokens"]])
            windows.append(np.lib.stride_tricks.sliding_window_view(tokens, 3))
            targets.append(item.sequences[0]["targets"])
        return Batch(torch.tensor(np.concatenate(windows)).long(), torch.tensor(np.concatenate(targets)).long())

    def loss(self, batch: Batch, *, label_smoothing: float = 0.0) -> torch.Tensor:
        self.heard.append(label_smoothing)
        logits = self.module(batch.windows).float()
        return F.cross_entropy(logits, batch.targets, reduction="sum", label_smoothing=label_smoothing)

    @contextmanager
    def untuned(self) -> Iterator[None]:
        yield

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({n: t.contiguous() for n, t in self.module.state_dict().items()}, folder / "model.safetensors")

    def clone(self) -> Tiny:
        return copy.deepcopy(self)


class Objective:
    """What a Chosen from the shelf of objectives offers, for letters."""

    name, shelf = "letters", "objectives"

    def __init__(self, loss: Any = None, **members: Any):
        self.module = SimpleNamespace(**members)
        self.settings = None
        self._loss = loss or plain_loss

    def __call__(self, learner: Any, batch: Any) -> Loss:
        return self._loss(learner, batch)

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name}


def plain_loss(learner: Any, batch: Batch) -> Loss:
    total = learner.loss(batch, label_smoothing=learner.label_smoothing)
    return Loss(total, float((batch.targets >= 0).sum()), {"rows": 1.0})


class Regularizer(Objective):
    """Wraps the step with a function of (step, learner, context)."""

    name = "wrapped"

    def __init__(self, wrap: Any):
        super().__init__()
        self.wrap = wrap

    def __call__(self, step: Any, learner: Any, *, context: Any) -> Any:  # type: ignore[override]
        return self.wrap(step, learner, context)


def rows(count: int, seed: int = 0) -> Dataset:
    """Counting upwards from a random letter, some longer than others."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        start, length = int(random.integers(0, 20)), int(random.integers(4, 20))
        text = "".join(chr(65 + (start + i) % 26) for i in range(length))
        found.append(Example((user(text[:3]), assistant(text[3:]))))
    return Dataset(found)


SETTINGS = Train(tokens_per_batch=64, tokens_per_pass=64, learning_rate=0.01, epochs=2, dtype="float32", threads=1)


def settings(**changes: Any) -> Train:
    return SETTINGS.model_copy(update=changes)


class Log:
    """Where events go in a test: a list, and the run's own file."""

    def __init__(self, folder: Path):
        from genwright.core import Run

        folder.mkdir(parents=True, exist_ok=True)
        self.run = Run(folder)

    def __call__(self, event: str, **facts: Any) -> None:
        self.run.log(event, **facts)

    def __getitem__(self, event: str) -> list[dict[str, Any]]:
        return list(self.run.events(event))

    @property
    def losses(self) -> list[str]:
        """Every step's loss, to the last bit."""
        return [float(event["loss"]).hex() for event in self["step"]]


def digest(module: nn.Module) -> str:
    import hashlib

    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in module.state_dict().values())).hexdigest()


class Killed(BaseException):
    """Stands for kill -9 in one process: nothing in the loop may catch it."""


def goes_on_bit_equal(
    teach: Callable[[str, Any], Log], whole: Any, broken: Any, again: Any, *, dies_in: str = "loss", after: int = 9,
    resumes: int = 2,
) -> Log:  # fmt: skip
    """Three models with the same weights but for the last, whose weights must not count: one is taught without a break,
    one dies in its call of `dies_in` number `after`, and the last goes on from there, to the same bits. `teach` takes a
    folder's name and a model. Returns the unbroken log."""
    import pytest

    log, called, calls = teach("whole", whole), getattr(broken, dies_in), list[Any]()

    def dies(batch: Any, **more: Any) -> Any:
        calls.append(batch)
        if broken.module.training and len(calls) > after:
            raise Killed
        return called(batch, **more)

    setattr(broken, dies_in, dies)
    with pytest.raises(Killed):
        teach("broken", broken)
    resumed = teach("broken", again)
    assert resumed["tune.resume"][0]["step"] >= resumes
    assert digest(again.module) == digest(whole.module)
    assert resumed.losses == log.losses
    assert [e["held_out_loss"] for e in resumed["look"]] == [e["held_out_loss"] for e in log["look"]]
    return log
