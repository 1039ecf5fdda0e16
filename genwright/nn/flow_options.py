"""Options of the picture models that learn flow matching: light, so that listing the shelf loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .picture_options import AskedOptions, CaptionedConfig


class FlowConfig(CaptionedConfig):
    """The shape of a network, as a recipe gives it and as config.json keeps it."""

    patch: int = Field(8, ge=1, description="Pixels of a side of a patch; each patch is a token")
    head_channels: int = Field(8, ge=0, description="Channels of the 3×3 convolutions that mend the seams; 0 is none")

    fine_width: int = Field(
        0, ge=0, description="Numbers a patch outside an hourglass, whose middle sees four patches as one token of "
        "`width`; 0 is no hourglass",
    )  # fmt: skip
    fine_depth: int = Field(2, ge=1, description="Blocks before and as many after an hourglass's middle")

    @model_validator(mode="after")
    def _patches_fit(self) -> FlowConfig:
        if self.size % self.patch:
            raise ValueError(f"a side of {self.size} pixels is no multiple of patches of {self.patch}")
        if self.fine_width and self.size // self.patch % 2:
            raise ValueError("an hourglass joins two by two patches: the side must be an even count of them")
        if self.fine_width % (2 * self.fine_heads):
            raise ValueError(f"fine_width {self.fine_width} does not divide into {self.fine_heads} heads of even width")
        return self

    @property
    def fine_heads(self) -> int:
        """Heads of the same width as those of the middle, or near it."""
        return max(1, self.fine_width * self.heads // self.width)


class PictureOptions(AskedOptions):
    """What a request to a picture model may ask for."""

    steps: int = Field(20, ge=1, le=1000, description="Steps from noise to picture")
    candidates: int = Field(
        1,
        ge=1,
        le=16,
        description="Pictures painted for each that is wanted; kept is the one that its words explain best",
    )
    sampler: Literal["euler", "heun"] = Field("heun", description="How a step is made; heun asks the network twice")
    interval: tuple[float, float] = Field(
        (0.3, 1.0), description="Times (1 is noise, 0 the picture) between which there is guidance"
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

    @model_validator(mode="after")
    def _sound(self) -> PictureOptions:
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError("interval must be two times between 0 and 1, the smaller one first")
        if min(self.expand) < 0 or max(self.expand) > 4096:
            raise ValueError("expand must be four counts of pixels from 0 to 4096")
        return self
