"""QLoRA: LoRA on a base whose weights are kept in 4 or 8 bits (Dettmers et al. 2023)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from genwright.core import Learner, UsageError
from genwright.tuning.adapters import LoraSettings, lora_config, set_method, wrap


class Settings(LoraSettings):
    """Options of QLoRA: those of LoRA, and how the base is kept."""

    bits: Literal[4, 8] = Field(4, description="4 is NF4 in blocks; 8 is one scale per output")
    block: int = Field(64, ge=16, multiple_of=2, description="Weights that share a scale (4 bits only)")

    @model_validator(mode="after")
    def _of_four_bits(self) -> Any:
        if self.bits == 8 and "block" in self.model_fields_set:
            raise ValueError("block belongs to 4 bits; with 8 bits every output has its own scale")
        return self


def attach(learner: Learner, settings: Settings, *, seed: int = 0) -> Learner:
    """Quantise the linear layers of the frozen base, then add LoRA in full precision (arXiv 2305.14314).

    Works on any machine: a quantised layer is restored when it is used, forwards and backwards, and thrown away.
    Embeddings and the output head stay as they are. Raises UsageError when there is nothing to quantise.
    """
    from genwright.nn.quantised import QuantisedLinear, quantise_layers

    before, after = quantise_layers(learner.module, bits=settings.bits, block=settings.block)
    if not any(isinstance(layer, QuantisedLinear) for layer in learner.module.modules()):
        raise UsageError(f"{type(learner.module).__name__} has no linear layers to quantise.", "Use `method: lora`.")
    wrap(learner, lora_config(learner, settings), "qlora", seed=seed)
    if before:
        note = f"The linear layers of the base take {after / 2**20:.1f} MB instead of {before / 2**20:.1f} MB."
        set_method(learner, "qlora", note)
    return learner
