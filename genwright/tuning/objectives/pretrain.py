"""Pretrain: the cross-entropy of every token, as a language model is trained from text."""

from __future__ import annotations

from typing import Any

from genwright.core import Encoded, Example, Learner, Loss, Settings


def encode(learner: Learner, example: Example, settings: Settings) -> Encoded:
    """The example with every token as a target."""
    return learner.encode(example, supervise="all")


def loss(learner: Any, batch: Any, settings: Settings) -> Loss:
    """Sum of the token losses; the weight is the number of tokens."""
    total = learner.loss(batch, label_smoothing=getattr(learner, "label_smoothing", 0.0))
    return Loss(total, float((batch.targets != -100).sum()))
