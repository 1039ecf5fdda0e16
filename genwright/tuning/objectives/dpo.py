"""DPO: prefer the better of two answers, without a reward model (Rafailov et al. 2023)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from genwright.core import Encoded, Example, Learner, Loss
from genwright.core import Settings as Options
from genwright.tuning.preferences import encode_pair, keep_start, pair_logprobs, preference_loss, reference


class Settings(Options):
    """Options of direct preference optimisation."""

    beta: float = Field(0.1, gt=0, description="How closely the model is held to its start; larger is closer")
    loss_type: Literal["sigmoid", "ipo"] = Field("sigmoid", description="DPO's own loss, or IPO's square")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Share of pairs believed to be labelled wrongly")
    average_log_prob: bool | None = Field(
        None, description="Compare log-probabilities per token, not whole answers; null is yes for ipo only"
    )


def encode(learner: Learner, example: Example, settings: Settings) -> Encoded:
    """A row with `rejected` as a pair of sequences."""
    return encode_pair(learner, example)


def prepare(learner: Any, settings: Settings) -> None:
    """Keep the model as it is now: the reference."""
    keep_start(learner)


def loss(learner: Any, batch: Any, settings: Settings) -> Loss:
    """With h = log π(y⁺)/π₀(y⁺) − log π(y⁻)/π₀(y⁻), π₀ the model before tuning:

    sigmoid −(1−ε) log σ(βh) − ε log σ(−βh) (arXiv 2305.18290; ε as in cDPO); ipo (h − 1/2β)² (arXiv 2310.12036).
    Summed over pairs; the weight is their number.
    """
    import torch
    from torch.nn import functional as F

    average = settings.loss_type == "ipo" if settings.average_log_prob is None else settings.average_log_prob
    with reference(learner):
        start_better, start_worse = pair_logprobs(learner, batch, average=average)
    better, worse = pair_logprobs(learner, batch, average=average)
    gain, slip = better - start_better, worse - start_worse
    h = gain - slip
    if settings.loss_type == "ipo":
        losses = torch.square(h - 1 / (2 * settings.beta))
    else:
        slack = settings.label_smoothing
        losses = -(1 - slack) * F.logsigmoid(settings.beta * h) - slack * F.logsigmoid(-settings.beta * h)
    return preference_loss(
        losses, settings.beta * h, reward_chosen=settings.beta * gain, reward_rejected=settings.beta * slip
    )
