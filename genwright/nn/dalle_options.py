"""Options of the picture models that paint token by token: light, so that listing the shelf loads no torch."""

from __future__ import annotations

import math

from pydantic import Field, model_validator

from .picture_options import AskedOptions, CaptionedConfig

MOST_CODES = 65_536


class DalleConfig(CaptionedConfig):
    """The shape of both networks, as a recipe gives it and as config.json keeps it."""

    grid: int = Field(8, ge=2, le=64, description="Tokens of a side: a picture is grid × grid of them")
    levels: tuple[int, ...] = Field(
        (8, 5, 5, 5), min_length=1, max_length=8,
        description="Levels of each of a token's few numbers; their product is how many different tokens there are",
    )  # fmt: skip
    picture_width: int = Field(64, ge=8, description="Channels of the autoencoder; at the tokens' scale twice as many")
    picture_depth: int = Field(2, ge=0, description="Residual blocks of the autoencoder at each scale, on either side")

    @property
    def codes(self) -> int:
        """How many different tokens there are."""
        return math.prod(self.levels)

    @model_validator(mode="after")
    def _tokens_fit(self) -> DalleConfig:
        if self.size % (2 * self.grid):
            raise ValueError(
                f"a side of {self.size} pixels is no multiple of 2 × {self.grid}: each token stands for an even number"
            )
        if min(self.levels) < 2 or self.codes > MOST_CODES:
            raise ValueError(f"levels must be 2 or more each, and at most {MOST_CODES:,} together, not {self.levels}")
        return self


class TokenOptions(AskedOptions):
    """What a request to such a model may ask for."""

    temperature: float = Field(1.0, ge=0, le=10, description="How freely tokens are drawn; 0 takes the likeliest")
    top_k: int = Field(0, ge=0, description="Draw among so many of the likeliest tokens; 0 is all")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw among the likeliest tokens that have this share together")
    candidates: int = Field(
        1, ge=1, le=64,
        description="Draw so many of each picture and keep the one that the words make likelier than no words do",
    )  # fmt: skip
