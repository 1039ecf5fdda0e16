"""Classify: the cross-entropy of the right label."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from genwright.core import Loss, UsageError, did_you_mean
from genwright.core import Settings as Options


class Settings(Options):
    """Options of classification."""

    label_weights: dict[str, float] = Field(
        {}, description="How much a row with that label counts, e.g. {rare: 5.0}; others count 1"
    )


def prepare(learner: Any, settings: Settings) -> None:
    """Raises UsageError when a weighted label is none of the model's."""
    for label in settings.label_weights:
        if label not in learner.labels:
            raise UsageError(f"`label_weights` names {label!r}, no label here.", did_you_mean(label, learner.labels))


def loss(learner: Any, batch: Any, settings: Settings) -> Loss:
    """Sum over rows of w · cross-entropy; the weight is the number of rows, whatever w is."""
    import torch
    from torch.nn import functional as F

    logits, targets = learner.logits(batch).float(), learner.targets(batch)
    weights = None
    if settings.label_weights:
        each = [settings.label_weights.get(label, 1.0) for label in learner.labels]
        weights = torch.tensor(each, device=logits.device)
    smoothing = getattr(learner, "label_smoothing", 0.0)
    total = F.cross_entropy(logits, targets, weights, reduction="sum", label_smoothing=smoothing)
    right = (logits.detach().argmax(1) == targets).float().mean().item()
    return Loss(total, float(len(targets)), {"accuracy": right})
