"""R-Drop: two passes with different dropout should say the same (Liang et al. 2021)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from genwright.core import Loss, UsageError
from genwright.core import Settings as Options
from genwright.tuning.steps import Step


class Settings(Options):
    """Options of R-Drop."""

    alpha: float = Field(1.0, ge=0, description="Weight of the disagreement between the two passes")


def regularize(step: Step, learner: Any, settings: Settings, *, context: Any) -> Step:
    """Add α/2 · (KL(p₁‖p₂) + KL(p₂‖p₁)) of two passes at the supervised positions (arXiv 2106.14448).

    Raises UsageError when the model has no dropout: both passes would be the same.
    """
    if not settings.alpha:
        return step
    from genwright.nn.losses import kl_sum

    if not any(_drops(module) for module in learner.module.modules()):
        raise UsageError("R-Drop needs dropout, and the model has none.", "Set train.dropout or method.dropout to 0.1.")

    def agreeing(batch: Any) -> Loss:
        loss = step(batch)
        one, two = learner.logits(batch), learner.logits(batch)
        apart = (kl_sum(one, two) + kl_sum(two, one)) / 2
        each = loss.weight / max(len(one), 1)  # 1 where the weight counts the supervised positions
        logs = loss.logs | {"disagreement": apart.detach().item() / max(len(one), 1)}
        return Loss(loss.total + settings.alpha * each * apart, loss.weight, logs)

    return agreeing


def _drops(module: Any) -> bool:
    from torch import nn

    if isinstance(module, nn.Dropout):
        return module.p > 0
    named = (getattr(module, name, 0) for name in ("attention_dropout", "dropout", "activation_dropout"))
    return any(isinstance(p, float) and p > 0 for p in named)
