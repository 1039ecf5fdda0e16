"""rsLoRA: LoRA scaled by the square root of its rank, so that high ranks learn too (Kalajdzievski 2023)."""

from __future__ import annotations

from genwright.core import Learner
from genwright.tuning.adapters import LoraSettings, lora_config, wrap


class Settings(LoraSettings):
    """Options of rsLoRA."""


def attach(learner: Learner, settings: Settings, *, seed: int = 0) -> Learner:
    """y = Wx + alpha/√rank · B(A x) (arXiv 2312.03732)."""
    return wrap(learner, lora_config(learner, settings, use_rslora=True), "rslora", seed=seed)
