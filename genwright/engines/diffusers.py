"""Pictures from words by any pipeline of the diffusers library: painted, and tuned by LoRA, in full or by new words."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genwright.core import MissingExtra, UsageError
from genwright.core import Settings as Base

known_by = "model_index.json"  # a folder that holds it is opened by this engine
objective = "diffusion"  # by which it is taught when a recipe names none


class Settings(Base):
    size: int | None = Field(
        None, ge=8, le=4096, description="Pixels of a side in training and painting; null is the pipeline's own"
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Precision of the weights; bfloat16 halves memory, for LoRA, new words and painting"
    )


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> Any:
    """A `nn.diffusers_learner.DiffusersPipeline` from a pipeline's folder, or from a run that was learned on one.

    Raises MissingExtra, UsageError without a source, ModelError for a folder that cannot be opened or wants code run.
    """
    if source is None:
        raise UsageError("A pipeline needs a source.", "Name a folder with model_index.json, or hf:org/name@revision.")
    if find_spec("diffusers") is None:
        raise MissingExtra("diffusers", "diffusers")
    import torch

    from genwright.nn.diffusers_files import open_learner

    return open_learner(source, dtype=getattr(torch, settings.dtype), size=settings.size)
