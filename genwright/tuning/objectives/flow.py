"""Flow matching: the error of the velocity from picture to noise, at random times (pictures)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from genwright.core import Loss
from genwright.core import Settings as Options


class Settings(Options):
    time_mean: float = Field(1.1, description="Mean of the times' logits; above 0 leans towards noise")
    time_spread: float = Field(1.3, gt=0, description="Spread of the times' logits")
    smallest_time: float = Field(0.05, gt=0, lt=1, description="Times below count as this one")
    untold: float = Field(
        0.1, ge=0, lt=1, description="Share of pictures taught without words, so that guidance is possible"
    )
    augment: float = Field(
        0.0, ge=0, le=1, description="Share of pictures mirrored, moved or recoloured; the model is told, nothing leaks"
    )


def loss(learner: Any, batch: Any, settings: Settings) -> Loss:
    """Sum over pictures of the mean squared error of their velocity; the weight is the number of pictures."""
    total = learner.loss(
        batch, time_mean=settings.time_mean, time_spread=settings.time_spread, smallest_time=settings.smallest_time,
        untold=settings.untold, augment=settings.augment,
    )  # fmt: skip
    return Loss(total, float(len(batch)))
