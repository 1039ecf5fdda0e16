"""Icons from words, as SVG that can be edited: a small language model of strokes, which keeps to their grammar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from genwright.core import Settings as Base
from genwright.nn.svg_options import SvgConfig


class Settings(Base):
    config: SvgConfig | None = Field(None, description="Random weights by this: {width: 128, depth: 5, heads: 4, …}")


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> Any:
    """A `nn.svg_lm.SvgLM` from the folder of a finished run, or with random weights by `settings.config`.

    Raises UsageError when both or neither are given, ModelError for a folder that is none of ours or is broken.
    """
    from genwright.nn.keeping import open_kept
    from genwright.nn.svg_lm import SvgLM

    return open_kept(SvgLM, SvgConfig, source, settings.config, seed=seed)
