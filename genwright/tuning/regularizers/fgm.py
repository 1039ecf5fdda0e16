"""FGM: train on embeddings pushed the way that hurts most, once (Miyato et al. 2017)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from genwright.core import Loss
from genwright.core import Settings as Options
from genwright.tuning.nudges import nudged, segments_of, unit
from genwright.tuning.steps import Step


class Settings(Options):
    """Options of the fast gradient method."""

    epsilon: float = Field(1.0, ge=0, description="Length of the push, per sequence")
    strength: float = Field(1.0, ge=0, description="Weight of the pushed loss beside the plain one")


def regularize(step: Step, learner: Any, settings: Settings, *, context: Any) -> Step:
    """Add the loss at embeddings + ε·g/‖g‖, g the gradient of the plain loss for each sequence (arXiv 1605.07725)."""
    if not settings.epsilon or not settings.strength:
        return step
    import torch

    def attacked(batch: Any) -> Loss:
        places: list[Any] = []

        def trace(rows: Any, call: int) -> Any:
            places.append(torch.zeros_like(rows).requires_grad_())
            return rows + places[-1]

        with nudged(learner, trace):
            plain = step(batch)
        slopes = torch.autograd.grad(plain.total, places, retain_graph=True, materialize_grads=True)
        pushes = [settings.epsilon * unit(slope, segments_of(batch, slope)) for slope in slopes]
        with nudged(learner, lambda rows, call: rows + pushes[call]):
            pushed = step(batch)
        logs = plain.logs | {"adversarial_loss": pushed.total.detach().item() / max(pushed.weight, 1e-12)}
        return Loss(plain.total + settings.strength * pushed.total, plain.weight, logs)

    return attacked
