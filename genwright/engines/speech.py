"""Words said aloud in English and Chinese by packaged voices (Kokoro, Hibari), on a CPU, sentence by sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from genwright.core import Settings as Base
from genwright.core import UsageError


class Settings(Base):
    threads: int = Field(0, ge=0, description="CPU threads; 0 leaves the runtime's choice")


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> Any:
    """A `nn.voices.Speaker` from the folder of the card kokoro-82m or hibari.

    Raises UsageError without a source, ModelError for a folder that holds neither, MissingExtra without the libraries.
    """
    from genwright.nn.voices import open_speaker

    if source is None:
        raise UsageError("A voice cannot begin from random weights.", "Name the card kokoro-82m or hibari.")
    return open_speaker(source, settings.threads)
