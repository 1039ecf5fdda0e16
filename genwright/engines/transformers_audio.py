"""Sound from words by text-to-audio models of transformers (MusicGen, VITS), from a folder in their layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genwright.core import Settings as Base
from genwright.core import UsageError

known_types = ("musicgen", "vits")  # model_type of a config.json that is opened by this engine


class Settings(Base):
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Precision of the weights; bfloat16 halves memory"
    )


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> Any:
    """A `nn.hub_sound.HubSound` from a model's folder with its tokenizer.

    Raises UsageError without a source, ModelError for a folder that cannot be opened, wants code run or is of another
    kind.
    """
    from genwright.nn.hub_sound import open_hub_sound

    if source is None:
        raise UsageError("A model of the hub needs a source.", "Name a folder, or hf:org/name@revision.")
    return open_hub_sound(source, known_types, bfloat16=settings.dtype == "bfloat16")
