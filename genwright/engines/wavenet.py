"""Raw sound sample by sample (WaveNet), alone or steered by notes, speakers or mel bands (a vocoder), trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genwright.core import Settings as Base
from genwright.nn.wavenet_options import WaveNetConfig


class Settings(Base):
    config: WaveNetConfig | None = Field(
        None, description="Random weights by this: {channels: 48, cycles: 2, local: mel, …}"
    )
    runner: Literal["auto", "torch", "compiled"] = Field(
        "auto", description="Who draws samples: torch, or loops compiled by numba; auto is these where numba is"
    )


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> Any:
    """A `nn.wavenet.WaveNetLearner` from the folder of a finished run, or with random weights by `settings.config`.

    Raises UsageError when both or neither are given, ModelError for a folder that is none of ours or is broken.
    """
    from genwright.nn.keeping import open_kept
    from genwright.nn.wavenet import WaveNetLearner

    return open_kept(WaveNetLearner, WaveNetConfig, source, settings.config, seed=seed, runner=settings.runner)
