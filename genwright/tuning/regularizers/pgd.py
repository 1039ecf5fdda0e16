"""PGD: train on embeddings pushed the way that hurts most, in several small steps (Madry et al. 2018)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from genwright.core import Loss
from genwright.core import Settings as Options
from genwright.tuning.nudges import norms, nudged, segments_of, unit
from genwright.tuning.steps import Step


class Settings(Options):
    """Options of projected gradient descent."""

    epsilon: float = Field(1.0, ge=0, description="Longest push, per sequence")
    steps: int = Field(3, ge=1, description="Steps to find it; each costs a pass forwards and backwards")
    step_size: float = Field(0.5, gt=0, description="Length of a step, as a share of epsilon")
    strength: float = Field(1.0, ge=0, description="Weight of the pushed loss beside the plain one")


def regularize(step: Step, learner: Any, settings: Settings, *, context: Any) -> Step:
    """Add the loss at the worst embeddings found within ε of the true ones, sequence by sequence (arXiv 1706.06083)."""
    if not settings.epsilon or not settings.strength:
        return step

    def attacked(batch: Any) -> Loss:
        pushes: list[Any] = []
        plain = None
        for _ in range(settings.steps):
            loss, slopes = _slopes(step, learner, batch, pushes, keep=plain is None)
            plain = plain or loss
            pushes = [_further(push, slope, batch, settings) for push, slope in zip(pushes, slopes, strict=True)]
        with nudged(learner, lambda rows, call: rows + pushes[call]):
            pushed = step(batch)
        assert plain is not None
        logs = plain.logs | {"adversarial_loss": pushed.total.detach().item() / max(pushed.weight, 1e-12)}
        return Loss(plain.total + settings.strength * pushed.total, plain.weight, logs)

    return attacked


def _slopes(step: Step, learner: Any, batch: Any, pushes: list[Any], *, keep: bool) -> tuple[Loss, Any]:
    """The loss at the pushed embeddings and its gradients there. The first time `pushes` is filled with zeros."""
    import torch

    first = not pushes

    def trace(rows: Any, call: int) -> Any:
        if first:
            pushes.append(torch.zeros_like(rows))
        pushes[call].requires_grad_()
        return rows + pushes[call]

    with nudged(learner, trace):
        loss = step(batch)
    return loss, torch.autograd.grad(loss.total, pushes, retain_graph=keep, materialize_grads=True)


def _further(push: Any, slope: Any, batch: Any, settings: Settings) -> Any:
    lengths = segments_of(batch, slope)
    push = push.detach() + settings.step_size * settings.epsilon * unit(slope, lengths)
    return push * (settings.epsilon / norms(push, lengths).clamp_min(1e-12)).clamp(max=1)
