"""SFT: the cross-entropy of the answer's tokens, the prompt unsupervised."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from genwright.core import Encoded, Example, Learner, Loss
from genwright.core import Settings as Options


class Settings(Options):
    """Options of supervised fine-tuning."""

    supervise: Literal["answer", "assistant"] = Field(
        "answer", description="Learn from the last answer, or from every turn of the assistant"
    )


def encode(learner: Learner, example: Example, settings: Settings) -> Encoded:
    """The example with its targets where `supervise` says."""
    return learner.encode(example, supervise=settings.supervise)


def loss(learner: Any, batch: Any, settings: Settings) -> Loss:
    """Sum of the token losses; the weight is the number of supervised tokens."""
    total = learner.loss(batch, label_smoothing=getattr(learner, "label_smoothing", 0.0))
    return Loss(total, float((batch.targets != -100).sum()))
