"""Pictures from words in one pass: a style-based generator (StyleGAN), with mixing, truncation and interpolation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genwright.core import Settings as Base
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
    from genwright.nn.picture_learner import open_learner
    from genwright.nn.style_gan import StyleGan

    return open_learner(StyleGan, StyleConfig, source, settings, seed)
