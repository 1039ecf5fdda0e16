"""Options of a voice that can be taught: its shape, and what a request may ask for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from genwright.core.plugin import Settings


class VoiceConfig(Settings):
    """The shape of a network that makes mel spectrograms of what is to be said."""

    width: int = Field(128, ge=16, description="Numbers of a token's and of a frame's vector")
    reading: int = Field(4, ge=1, description="Blocks that read the tokens")
    speaking: int = Field(6, ge=1, description="Blocks that turn noise into the spectrogram's frames")
    mlp: float = Field(4.0, ge=1, description="Width of a block's inner layer, as a multiple")
    kernel: int = Field(7, ge=3, le=31, description="Tokens or frames that a block sees at once; an odd number")
    reads: Literal["phonemes", "bytes"] = Field(
        "phonemes", description="English and Chinese phonemes by the packaged dictionaries, or the bytes of any script"
    )


class VoiceOptions(Settings):
    """What a request to a voice that was taught may ask for."""

    voice: str | None = Field(None, description="One of the voices that it learned; null is the mean of all")
    speed: float = Field(1.0, ge=0.25, le=4.0, description="How fast: 2 is twice as fast")
    language: str = Field("auto", pattern="^(auto|en|zh)$", description="auto looks at the characters of each sentence")
    normalise: bool = Field(True, description="Say numbers, dates, money, units and signs as words")
    pause: float = Field(0.15, ge=0, le=5, description="Seconds of silence between sentences")
    steps: int = Field(4, ge=1, le=100, description="Steps from noise to spectrogram; 1 is smoothest")
    temperature: float = Field(0.6, ge=0, le=2, description="Spread of the noise; 0 says it the usual way each time")
    partial: bool = Field(False, description="Send each sentence as a file of its own as soon as it is spoken")
