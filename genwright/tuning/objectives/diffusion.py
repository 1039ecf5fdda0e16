"""Diffusion: the error of the noise, velocity or flow that a pipeline's network tells, at random times (pictures)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from genwright.core import Loss
from genwright.core import Settings as Options


class Settings(Options):
    untold: float = Field(
        0.1, ge=0, lt=1, description="Share of pictures taught without words, so that guidance stays possible"
    )
    time_spread: float | None = Field(
        None, gt=0, description="Spread of the times' logits (1 suits flow matching); null is all times alike"
    )
    time_mean: float = Field(0.0, description="Mean of the times' logits, with `time_spread`; above 0 leans to noise")


def loss(learner: Any, batch: Any, settings: Settings) -> Loss:
    """Sum over pictures of their mean squared error; the weight is the number of pictures."""
    total = learner.loss(batch, untold=settings.untold, time_spread=settings.time_spread, time_mean=settings.time_mean)
    return Loss(total, float(len(batch)))
