"""QLoRA: LoRA on a base whose weights are kept in 4 or 8 bits (Dettmers et al. 2023)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from genwright.core import Learner, UsageError
from genwright.tuning.adapters import LoraSettings, bare, blocks, lora_config, set_method, wrap


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
    Embeddings and the output head stay as they are.
    """
    before, after = quantise(learner, bits=settings.bits, block=settings.block)
    wrap(learner, lora_config(learner, settings), "qlora", seed=seed)
    note = f"The linear layers of the base take {after / 2**20:.1f} MB instead of {before / 2**20:.1f} MB."
    set_method(learner, "qlora", note)
    return learner


def quantise(learner: Learner, *, bits: int = 4, block: int = 64) -> tuple[int, int]:
    """Replace every linear layer inside the blocks by a quantised one. Returns their bytes before and after.

    The same call on the same weights gives the same layers, so a saved adapter meets the base it was trained on.
    Raises UsageError when there is nothing to quantise.
    """
    from genwright.tuning.quantised import QuantisedLinear, plain_linear

    before = after = 0
    inner = bare(learner.module)
    for name, _ in blocks(learner.module):
        block_module = inner.get_submodule(name)
        for path, layer in list(block_module.named_modules()):
            if not plain_linear(layer) or "lora_" in path:
                continue
            owner, _, last = path.rpartition(".")
            small = QuantisedLinear.of(layer, bits=bits, block=block)
            setattr(block_module.get_submodule(owner), last, small)
            before += layer.weight.numel() * layer.weight.element_size()
            after += small.bytes
    if not before:
        raise UsageError(f"{type(inner).__name__} has no linear layers to quantise.", "Use `method: lora`.")
    return before, after
