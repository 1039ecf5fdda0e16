"""ORPO: learn the better answer and shun the worse one in one go, without a reference (Hong et al. 2024)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from genwright.core import Encoded, Example, Learner, Loss
from genwright.core import Settings as Options
from genwright.tuning.preferences import encode_pair, pair_logprobs, preference_loss


class Settings(Options):
    """Options of ORPO."""

    strength: float = Field(0.1, ge=0, description="Weight of the odds ratio beside the better answer's loss")


def encode(learner: Learner, example: Example, settings: Settings) -> Encoded:
    """A row with `rejected` as a pair of sequences."""
    return encode_pair(learner, example)


def loss(learner: Any, batch: Any, settings: Settings) -> Loss:
    """−p̄⁺ − λ log σ(log odds⁺/odds⁻), p̄ the log-probability per token, odds = p/(1−p); arXiv 2403.07691.

    Summed over pairs; the weight is their number.
    """
    from torch.nn import functional as F

    better, worse = pair_logprobs(learner, batch, average=True)
    ratio = _log_odds(better) - _log_odds(worse)
    return preference_loss(-better - settings.strength * F.logsigmoid(ratio), settings.strength * ratio)


def _log_odds(log_p: Any) -> Any:
    import torch

    log_p = log_p.clamp(max=-1e-6)
    return log_p - torch.log(-torch.expm1(log_p))
