"""L2-SP: pull every trained weight towards where it started (Li et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from genwright.core import Loss
from genwright.core import Settings as Options
from genwright.tuning.steps import Step, added, learning_parameters

if TYPE_CHECKING:
    from torch import Tensor


class Settings(Options):
    """Options of the pull."""

    strength: float = Field(0.01, ge=0, description="Weight of half the squared distance")


class _Pulled:
    """A step that remembers where the weights were when it was first taken."""

    def __init__(self, step: Step, learner: Any, strength: float):
        self.step, self.learner, self.strength = step, learner, strength
        self.start: dict[str, Tensor] = {}

    def __call__(self, batch: Any) -> Loss:
        import torch

        now = learning_parameters(self.learner.module)
        if not self.start:
            self.start = {name: weight.detach().clone() for name, weight in now.items()}
        loss = self.step(batch)
        distance = torch.stack([(now[name] - start).square().sum() for name, start in self.start.items()]).sum() / 2
        return added(loss, "l2_sp", distance, self.strength)

    def state(self) -> dict[str, Tensor]:
        return dict(self.start)

    def restore(self, state: dict[str, Tensor]) -> None:
        self.start = dict(state)


def regularize(step: Step, learner: Any, settings: Settings, *, context: Any) -> Step:
    """Add strength/2 · ‖θ − θ₀‖² over the trained weights (arXiv 1802.01483)."""
    return _Pulled(step, learner, settings.strength) if settings.strength else step
