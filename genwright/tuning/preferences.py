"""Preferences: pairs of a better and a worse answer, and the model's own past to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from genwright.core import Encoded, Example, Learner, Loss, Message, Unlearnable

if TYPE_CHECKING:
    from torch import Tensor


def encode_pair(learner: Learner, example: Example) -> Encoded:
    """The better answer and the worse one as two sequences, weight one pair.

    Raises Unlearnable when the row names no worse answer, both are the same, or one is too long.
    """
    rejected = example.meta.get("rejected")
    if not isinstance(rejected, Message):
        raise Unlearnable("no rejected answer")
    better = learner.encode(example)
    worse = learner.encode(Example((*example.prompt, rejected)))
    if len(better.sequences) != 1 or len(worse.sequences) != 1:
        raise Unlearnable("an answer is too long to be compared in one piece")
    if _same(better.sequences[0], worse.sequences[0]):
        raise Unlearnable("chosen and rejected are the same")
    return Encoded(better.sequences + worse.sequences, better.size + worse.size, 1.0, better.cut + worse.cut)


def pair_logprobs(learner: Any, batch: Any, *, average: bool) -> tuple[Tensor, Tensor]:
    """Log-probability of the better and of the worse answers, (pairs,) each: summed, or per token."""
    found = learner.logprobs(batch)
    if average:
        found = found / answer_lengths(batch).to(found)
    better, worse = found.view(-1, 2).unbind(1)
    return better, worse


def answer_lengths(batch: Any) -> Tensor:
    """How many supervised tokens each sequence of a batch has, (S,), in the order in which they were collated."""
    import torch

    if hasattr(batch, "groups"):  # an encoder–decoder's rows, sorted by length
        counts = torch.cat([(group.targets != -100).sum(1) for group in batch.groups])
        return counts[torch.tensor(batch.order, device=counts.device).argsort()]
    taught = (batch.targets != -100).long()
    return torch.stack([part.sum() for part in taught.split(list(batch.lengths))])


def keep_start(learner: Any) -> None:
    """Let the learner keep what it says now, before the first step, so that it can be asked as a reference later."""
    getattr(learner, "keep_base", lambda: None)()


@contextmanager
def reference(learner: Learner) -> Iterator[None]:
    """The learner as it was before tuning: no dropout, no gradient. Leaves every module's mode as it found it."""
    import torch

    training = [module for module in learner.module.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.no_grad(), learner.untuned():
            yield
    finally:
        for module in training:
            module.training = True


def preference_loss(losses: Tensor, margins: Tensor, **figures: Tensor) -> Loss:
    """A loss over pairs from one loss and one reward margin a pair."""
    logs = {"margin": margins, "accuracy": (margins > 0).float(), **figures}
    return Loss(losses.sum(), float(len(losses)), {name: value.detach().mean().item() for name, value in logs.items()})


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    import numpy as np

    return all(np.array_equal(a[key], b[key]) for key in a)
