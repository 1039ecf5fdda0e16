"""EWC: hold back the weights that mattered for older data (Kirkpatrick et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from genwright.core import Dataset, FilePath, Loss
from genwright.core import Settings as Options
from genwright.tuning.steps import Step, added, learning_parameters, read_examples, some_batches

if TYPE_CHECKING:
    from torch import Tensor


class Settings(Options):
    """Options of elastic weight consolidation."""

    strength: float = Field(1.0, ge=0, description="Weight of the pull; the importances are scaled to a mean of 1")
    data: FilePath | None = Field(
        None, description="A .jsonl file of what must not be forgotten; null takes the training rows"
    )
    rows: int = Field(64, ge=1, description="Rows from which the importances are estimated")


class _Elastic:
    """A step that knows how much each weight mattered, and where it was, before the first step."""

    def __init__(self, step: Step, learner: Any, settings: Settings, context: Any):
        self.step, self.learner, self.settings, self.context = step, learner, settings, context
        self.start: dict[str, Tensor] = {}
        self.importance: dict[str, Tensor] = {}

    def __call__(self, batch: Any) -> Loss:
        import torch

        now = learning_parameters(self.learner.module)
        if not self.start:
            self.start = {name: weight.detach().clone() for name, weight in now.items()}
            self.importance = self._estimate(now)
        loss = self.step(batch)
        pulls = [(self.importance[n] * (now[n] - start).square()).sum() for n, start in self.start.items()]
        return added(loss, "ewc", torch.stack(pulls).sum() / 2, self.settings.strength)

    def state(self) -> dict[str, Tensor]:
        return {f"start.{n}": t for n, t in self.start.items()} | {f"fisher.{n}": t for n, t in self.importance.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.start = {n.removeprefix("start."): t for n, t in state.items() if n.startswith("start.")}
        self.importance = {n.removeprefix("fisher."): t for n, t in state.items() if n.startswith("fisher.")}

    def _estimate(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        """Diagonal of the empirical Fisher information: the mean of squared gradients, a row at a time."""
        import torch

        totals = {name: torch.zeros_like(p) for name, p in parameters.items()}
        module, was_training = self.learner.module, self.learner.module.training
        module.eval()
        for batch in some_batches(self._older(), self.settings.rows, self.learner, self.context):
            loss: Loss = self.context.objective(self.learner, batch)
            mean = loss.total / max(loss.weight, 1e-12)
            slopes = torch.autograd.grad(mean, list(parameters.values()), materialize_grads=True)
            for total, slope in zip(totals.values(), slopes, strict=True):
                total += slope.square()
        module.train(was_training)
        count = sum(t.numel() for t in totals.values())
        mean_of_all = sum(float(t.sum()) for t in totals.values()) / count
        return {name: total / max(mean_of_all, 1e-30) for name, total in totals.items()}

    def _older(self) -> Dataset:
        if self.settings.data is not None:
            return read_examples(self.settings.data)
        return getattr(self.context, "general", None) or self.context.train


def regularize(step: Step, learner: Any, settings: Settings, *, context: Any) -> Step:
    """Add strength/2 · Σ F·(θ − θ₀)² over the trained weights (arXiv 1612.00796), F from before the first step.

    With an adapter, F and θ are those of the adapter.
    """
    return _Elastic(step, learner, settings, context) if settings.strength else step
