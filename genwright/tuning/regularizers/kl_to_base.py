"""KL to base: stay near what the model said before tuning, so that less is forgotten."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from genwright.core import Loss
from genwright.core import Settings as Options
from genwright.tuning.preferences import keep_start, reference
from genwright.tuning.steps import Step


class Settings(Options):
    """Options of the pull."""

    strength: float = Field(0.1, ge=0, description="Weight of the divergence, in nats a supervised token")


def regularize(step: Step, learner: Any, settings: Settings, *, context: Any) -> Step:
    """Add strength · KL(p ‖ p₀) at the supervised positions, p₀ the model before tuning (as in Ziegler et al. 2019)."""
    if not settings.strength:
        return step
    from genwright.nn.losses import kl_sum

    keep_start(learner)

    def near(batch: Any) -> Loss:
        with reference(learner):
            before = learner.logits(batch)
        loss = step(batch)
        now = learner.logits(batch)
        apart = kl_sum(now, before)
        each = loss.weight / max(len(now), 1)  # 1 where the weight counts the supervised positions
        logs = loss.logs | {"kl_to_base": apart.detach().item() / max(len(now), 1)}
        return Loss(loss.total + settings.strength * each * apart, loss.weight, logs)

    return near
