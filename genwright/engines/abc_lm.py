"""Tunes from words: a small language model of ABC notation, which keeps to whole bars, played by a SoundFont."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from genwright.core import Settings as Base
from genwright.nn.abc_options import AbcConfig


class Settings(Base):
    config: AbcConfig | None = Field(None, description="Random weights by this: {width: 128, depth: 5, heads: 4, …}")


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> Any:
    """A `nn.abc_lm.AbcLM` from the folder of a finished run or of a card, or with random weights by `settings.config`.

    Raises UsageError when both or neither are given, ModelError for a folder that is none of ours or is broken.
    """
    from genwright.nn.abc_lm import AbcLM
    from genwright.nn.keeping import open_kept

    return open_kept(AbcLM, AbcConfig, source, settings.config, seed=seed)
