"""Pictures from words, token by token: an autoencoder with whole numbers in its middle, and a transformer (DALL-E)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genwright.core import Settings as Base
from genwright.nn.dalle_options import DalleConfig

objective, metrics = "image_tokens", ("image_tokens",)  # when a recipe names none


class Settings(Base):
    config: DalleConfig | None = Field(
        None, description="Random weights by this: {size: 64, grid: 8, levels: [8, 5, 5, 5], width: 256, depth: 8, …}"
    )
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto", description="Precision of painting; auto is bfloat16 where the machine has it, else float32; or int8"
    )


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> Any:
    """A `nn.dalle.VqImage` from the folder of a finished run, or with random weights by `settings.config`.

    Raises UsageError when both or neither are given, ModelError for a folder that is none of ours or is broken.
    """
    from genwright.nn.dalle import VqImage
    from genwright.nn.picture_learner import open_learner

    return open_learner(VqImage, DalleConfig, source, settings, seed)
