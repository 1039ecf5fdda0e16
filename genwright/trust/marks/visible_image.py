"""A label that people see, in a corner of every picture: AI生成 or AI GENERATED, legible on any ground."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from genwright.core import Part, Provenance
from genwright.core import Settings as Options
from genwright.media.stamp import Corner

WORDS = {"en": "AI GENERATED", "zh": "AI生成"}


class Settings(Options):
    language: Literal["zh", "en"] = Field("zh", description="Of the label; AI生成 is short enough for small pictures")
    corner: Corner = Field("bottom right", description="Where it stands")
    height: float = Field(
        0.06, ge=0.05, le=0.5, description="Height of its letters as a share of the shorter side (GB 45438-2025: 0.05)"
    )


def apply(part: Part, provenance: Provenance, settings: Settings) -> Part:
    """The part with the label in its picture's pixels. A second time changes nothing in a PNG.

    Raises DataError for a picture that is too small for it, or none.
    """
    if part.kind != "image" or part.path is None:
        return part
    from genwright.media.picture import open_picture, save_picture
    from genwright.media.stamp import stamped

    picture = open_picture(part.path)
    words = WORDS[settings.language]
    save_picture(stamped(picture, words, corner=settings.corner, share=settings.height), part.path, quality=95)
    return part
