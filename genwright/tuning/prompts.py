"""Virtual tokens: what prefix, prompt and P-tuning share."""

from __future__ import annotations

from typing import Any

from genwright.core import UsageError
from genwright.tuning.adapters import bare

FRAGILE = (
    "Virtual tokens are fragile at the usual settings: expect less than LoRA, and try a learning rate 10 to 100 times "
    "higher and more epochs before judging them."
)


def check_decoder(module: Any, what: str) -> None:
    """Raise UsageError for models with an encoder and a decoder."""
    if getattr(bare(module).config, "is_encoder_decoder", False):
        raise UsageError(f"{what} of encoder–decoder models is not supported.", "Use `method: lora` or `ia3`.")
