"""Pictures from words in one pass: a style-based generator (StyleGAN), with mixing, truncation and interpolation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genwright.core import Settings as Base
from genwright.core import UsageError
from genwright.nn.style_options import StyleConfig


class Settings(Base):
    config: StyleConfig | None = Field(
        None, description="Random weights by this: {size: 32, width: 128, capacity: 1024, latent: 128, …}"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Precision of painting; auto is bfloat16 where the machine has it"
    )


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> Any:
    """A `nn.style_gan.StyleGan` from the folder of a finished run, or with random weights by `settings.config`.

    Raises UsageError when both or neither are given, ModelError for a folder that is none of ours or is broken.
    """
    from genwright.nn.device import choose_device, choose_dtype
    from genwright.nn.style_gan import StyleGan

    dtype = choose_dtype(settings.dtype, choose_device("cpu"))
    if source is None:
        if settings.config is None:
            raise UsageError("A picture model needs a source, or a config.", "E.g. config: {size: 32}.")
        return StyleGan(settings.config, seed=seed, dtype=dtype)
    if settings.config is not None:
        raise UsageError("A model has either a source or a config for random weights, not both.", "Leave one out.")
    return StyleGan.open(source, seed=seed, dtype=dtype)
