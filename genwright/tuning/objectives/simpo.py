"""SimPO: prefer the better answer by its likelihood per token, with a margin and no reference (Meng et al. 2024)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from genwright.core import Encoded, Example, Learner, Loss
from genwright.core import Settings as Options
from genwright.tuning.preferences import encode_pair, pair_logprobs, preference_loss


class Settings(Options):
    """Options of SimPO."""

    beta: float = Field(2.0, gt=0, description="Scale of the log-probabilities per token")
    gamma: float = Field(1.0, ge=0, description="Margin by which the better answer should lead")


def encode(learner: Learner, example: Example, settings: Settings) -> Encoded:
    """A row with `rejected` as a pair of sequences."""
    return encode_pair(learner, example)


def loss(learner: Any, batch: Any, settings: Settings) -> Loss:
    """−log σ(β (log p(y⁺)/|y⁺| − log p(y⁻)/|y⁻|) − γ), summed over pairs (arXiv 2405.14734)."""
    from torch.nn import functional as F

    better, worse = pair_logprobs(learner, batch, average=True)
    lead = settings.beta * (better - worse)
    return preference_loss(-F.logsigmoid(lead - settings.gamma), lead)
