"""Speech written down, with times, in ninety-nine languages, or translated to English: Whisper by CTranslate2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from genwright.core import Settings as Base
from genwright.core import UsageError


class Settings(Base):
    threads: int = Field(0, ge=0, description="CPU threads; 0 leaves the runtime's choice")


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> Any:
    """A `nn.whisper.Listener` from the folder of the card whisper-base.

    Raises UsageError without a source, ModelError for another folder, MissingExtra without the libraries.
    """
    from genwright.nn.whisper import Listener

    if source is None:
        raise UsageError("This engine does not begin from random weights.", "Name the card whisper-base.")
    return Listener(source, settings.threads)
