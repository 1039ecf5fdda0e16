"""DoRA: LoRA for the direction of each weight, and a learned length beside it (Liu et al. 2024)."""

from __future__ import annotations

from genwright.core import Learner
from genwright.tuning.adapters import LoraSettings, lora_config, wrap


class Settings(LoraSettings):
    """Options of DoRA."""


def attach(learner: Learner, settings: Settings, *, seed: int = 0) -> Learner:
    """W' = m · (W + alpha/rank · BA) / ‖W + alpha/rank · BA‖, column by column (arXiv 2402.09353)."""
    return wrap(learner, lora_config(learner, settings, use_dora=True), "dora", seed=seed)
