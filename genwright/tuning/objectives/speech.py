"""Speech: the error of a spectrogram's flow, of what its words' sounds expect, and of how long each lasts (voices)."""

from __future__ import annotations

from typing import Any

from genwright.core import Loss, Settings


def loss(learner: Any, batch: Any, settings: Settings) -> Loss:
    """Sum over frames of the learner's own loss, each of its parts told apart; the weight is the frames."""
    logs: dict[str, float] = {}
    return Loss(learner.loss(batch, logs=logs), float(batch.weight), logs)
