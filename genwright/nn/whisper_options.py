"""Options of what listens: light, so that listing the shelf loads nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from genwright.core.plugin import Settings


class ListenOptions(Settings):
    """What a request to transcribe may ask for."""

    language: str = Field(
        "auto", pattern=r"^([a-z]{2,3}|auto)$", description="Of the speech, as two letters; auto listens first"
    )
    translate: bool = Field(False, description="Write English, whatever is spoken")
    prompt: str = Field("", max_length=2_000, description="Names and words that may come up, or what was said before")
    script: Literal["simplified", "traditional", "as_heard"] = Field("simplified", description="Of Chinese characters")
    words: bool = Field(False, description="Tell the times of words too")
    gate: float = Field(
        0.5, ge=0, le=1, description="How sure of speech the detector must be; 0 listens to everything, noise too"
    )
    beams: int = Field(5, ge=1, le=16, description="Beams of the search; 1 is fastest")


class ScribeOptions(Settings):
    """What a request to a Whisper that was taught here may ask for."""

    language: str = Field(
        "auto", pattern=r"^([a-z]{2,3}|auto)$", description="Of the speech, as two letters; auto is the engine's"
    )
    translate: bool = Field(False, description="Write English, where the checkpoint learned to")
