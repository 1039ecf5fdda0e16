"""Seq2seq: the cross-entropy of the target text, given the source, in an encoder–decoder."""

from __future__ import annotations

from typing import Any

from genwright.core import Loss, Settings


def loss(learner: Any, batch: Any, settings: Settings) -> Loss:
    """Sum of the token losses of the decoder; the weight is the number of target tokens."""
    total = learner.loss(batch, label_smoothing=getattr(learner, "label_smoothing", 0.0))
    return Loss(total, float((batch.targets != -100).sum()))
