"""A voice taught with one's own recordings: a small flow-matching network that makes spectrograms, and Griffin-Lim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from genwright.core import Settings as Base
from genwright.nn.speech_flow_options import VoiceConfig

objective = "speech"
metrics = ("mel_distance", "heard_words")


class Settings(Base):
    config: VoiceConfig | None = Field(None, description="Random weights by this; {} is the default shape")


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> Any:
    """A `nn.speech_flow.SpeechFlow` from the folder of a finished run, or with random weights by `settings.config`.

    Raises UsageError when both or neither are given, ModelError for a folder that is none of ours or is broken.
    """
    from genwright.nn.keeping import open_kept
    from genwright.nn.speech_flow import SpeechFlow

    return open_kept(SpeechFlow, VoiceConfig, source, settings.config, seed=seed)
