"""Pictures from words: a transformer over patches that learns flow matching in pixels, with styles and guidance."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genwright.core import Settings as Base
from genwright.nn.flow_options import FlowConfig


class Settings(Base):
    config: FlowConfig | None = Field(
        None, description="Random weights by this: {size: 64, patch: 8, width: 256, depth: 8, …}"
    )
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto", description="Precision of painting; auto is bfloat16 where the machine has it, else float32; or int8"
    )


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> Any:
    """A `nn.flow.FlowImage` from the folder of a finished run, or with random weights by `settings.config`.

    Raises UsageError when both or neither are given, ModelError for a folder that is none of ours or is broken.
    """
    from genwright.nn.flow import FlowImage
    from genwright.nn.picture_learner import open_learner

    return open_learner(FlowImage, FlowConfig, source, settings, seed)
