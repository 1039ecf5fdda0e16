"""Drop pictures that are too small, too long or of one colour; make large ones smaller, or square."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from genwright.core import Example, Part
from genwright.core import Settings as Base
from genwright.media.picture import encoded, open_picture, rgb, save_picture, squared


class Settings(Base):
    min_side: int = Field(16, ge=1, description="Fewest pixels of the shorter side")
    max_ratio: float = Field(4.0, ge=1, description="Most times that the longer side may have the shorter one")
    keep_blank: bool = Field(False, description="Keep pictures of a single colour too")
    max_side: int | None = Field(
        None, ge=8, description="Pictures with a longer side are made smaller, once, so that training reads less"
    )
    crop: bool = Field(False, description="Cut the edges off what is not square, instead of white beside it later on")


def refine(examples: Iterator[Example], settings: Settings, *, report: Any) -> Iterator[Example]:
    """Looks at every picture of a row. What is changed is written beside the files of the run."""
    for example in examples:
        parts = [part for message in example.messages for part in message.parts if part.kind == "image" and part.path]
        fault = next(filter(None, (_fault(part, settings) for part in parts)), "")
        if fault:
            report.drop(example, fault)
            continue
        fitted = {part.path: _fitted(part, settings) for part in parts}
        if any(path != new for path, new in fitted.items()):
            report.change(example, "made smaller or square")
            example = _with(example, fitted)
        yield example


def _with(example: Example, fitted: dict[Path | None, Path]) -> Example:
    def changed(part: Part) -> Part:
        return replace(part, path=fitted.get(part.path, part.path))

    return example.with_messages(lambda message: message.with_files(changed))


def _fault(part: Part, settings: Settings) -> str:
    image = open_picture(Path(str(part.path)))
    short, long = sorted(image.size)
    if short < settings.min_side:
        return f"the shorter side has fewer than {settings.min_side} pixels (min_side)"
    if long > settings.max_ratio * short:
        return f"longer than {settings.max_ratio:g}:1 (max_ratio)"
    plain = not settings.keep_blank and all(low == high for low, high in rgb(image).getextrema())
    return "of one colour (keep_blank)" if plain else ""


def _fitted(part: Part, settings: Settings) -> Path:
    """The picture's path, or that of its smaller copy."""
    path = Path(str(part.path))
    image = open_picture(path)
    side = min(min(image.size) if settings.crop else max(image.size), settings.max_side or max(image.size))
    if max(image.size) <= side:
        return path
    if settings.crop:
        image = squared(rgb(image), side, fit="crop")
    else:
        image.thumbnail((side, side), reducing_gap=3.0)
    suffix = ".jpg" if path.suffix == ".jpg" and image.mode == "RGB" else ".png"
    digest = hashlib.sha256(encoded(image, suffix, quality=95)).hexdigest()
    target = path.parent.parent / digest[:2] / f"{digest}{suffix}"
    return target if target.is_file() else save_picture(image, target, quality=95)
