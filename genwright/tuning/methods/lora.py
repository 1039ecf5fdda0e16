"""LoRA: a low-rank change beside each linear layer, the base frozen (Hu et al. 2021)."""

from __future__ import annotations

from genwright.core import Learner
from genwright.tuning.adapters import LoraSettings, lora_config, wrap


class Settings(LoraSettings):
    """Options of LoRA."""


def attach(learner: Learner, settings: Settings, *, seed: int = 0) -> Learner:
    """y = Wx + alpha/rank · B(A x), A random, B zero: nothing is changed before the first step (arXiv 2106.09685)."""
    return wrap(learner, lora_config(learner, settings), "lora", seed=seed)
