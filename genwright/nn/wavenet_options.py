"""Options of a WaveNet: its shape, and what a request may ask for. Light, so that listing the shelf loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from genwright.core.plugin import Settings
from genwright.media import mel, pitches

HOP = mel.HOP  # samples between two frames of what steers the network


class WaveNetConfig(Settings):
    """The shape of a WaveNet, as a recipe gives it and as config.json keeps it."""

    rate: int = Field(16_000, ge=1_000, le=96_000, description="Samples a second; sounds are resampled to it")
    channels: int = Field(48, ge=4, description="Numbers of a sample's vector in every layer")
    skip: int = Field(64, ge=4, description="Numbers that each layer hands to the output")
    depth: int = Field(10, ge=1, le=16, description="Layers of a cycle; each looks back twice as far as the one before")
    cycles: int = Field(2, ge=1, description="How often the layers begin anew with the sample before")
    local: Literal["none", "mel", "notes"] = Field(
        "none", description="What steers every moment: nothing, mel bands of a sound (a vocoder), or notes"
    )
    told: int = Field(32, ge=4, description="Numbers that steer a moment, and that tell who speaks or what plays")
    crop: int = Field(8192, ge=256, description="Samples of a row that are learned at once, from a random place on")

    styles: tuple[str, ...] = Field((), description="Speakers or instruments; those of the rows are found and added")

    @model_validator(mode="after")
    def _fits(self) -> WaveNetConfig:
        if self.local == "mel" and self.rate != mel.RATE:
            raise ValueError(f"local: mel needs a rate of {mel.RATE}")
        return self

    @property
    def dilations(self) -> list[int]:
        """How far back each layer looks beside the sample itself."""
        return [2**number for _ in range(self.cycles) for number in range(self.depth)]

    @property
    def sees(self) -> int:
        """How many samples one prediction sees."""
        return 1 + sum(self.dilations)

    @property
    def bands(self) -> int:
        """Numbers of a frame of what steers."""
        return {"none": 0, "mel": mel.BANDS, "notes": pitches.WIDTH}[self.local]


class SoundOptions(Settings):
    """What a request to a WaveNet may ask for."""

    n: int = Field(1, ge=1, le=64, description="Sounds")
    seconds: float | None = Field(
        None, gt=0, le=120, description="Length; null is as long as what steers it, or else two seconds"
    )
    temperature: float = Field(1.0, ge=0, le=4, description="How freely samples are drawn; 0 takes the likeliest")
    style: str | None = Field(None, description="One of the speakers or instruments learned; null leaves it open")
