"""Pictures: PNG when saved, read from PNG, JPEG, WebP, GIF, BMP or TIFF within limits of bytes and pixels."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from genwright.core import DataError, Modality, Part
from genwright.media.apart import look_given
from genwright.media.picture import (
    contact_sheet,
    encoded,
    open_picture,
    rgb,
    save_picture,
    squared,
    thumbnail,
)
from genwright.media.terminal import for_terminal

_SIDES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_SMALL = 32  # pixels of a drawing (SVG) that is only looked at whether it is sound, or for its thumbnail
_SHOWN = 256  # pixels of the longer side on a page
SHEET = "pictures.png"


def save(content: Any, path: Path) -> Part:
    """Write a PIL image or an array uint8 (height, width, 3 or 4) as the path's suffix says, whole or not at all."""
    return Part("image", path=save_picture(content, path))


def read(part: Part) -> Any:
    """A PIL image, RGB or RGBA. Raises DataError when it is not there, no picture, damaged or beyond the limits."""
    if part.path is None:
        raise DataError("This part is no picture: it has no file.", "Give it a path.")
    return open_picture(part.path)


def check(file: Path | bytes) -> dict[str, str]:
    """Decodes it whole and apart, so that what is damaged is known before anything is learned. Raises DataError."""
    facts = look_given(file, drawn=_SMALL)
    short, long = sorted((facts["width"], facts["height"]))
    most = next((side for side in _SIDES if short < side), None)
    least = max((side for side in _SIDES if side <= short), default=1)
    shape = "square" if long <= 1.1 * short else "up to 2:1" if long <= 2 * short else "longer than 2:1"
    return {
        "suffix": facts["suffix"],
        "shorter side": f"{least}–{most - 1} px" if most else f"{least} px and more",
        "shape": shape,
        "transparency": "yes" if facts["mode"] == "RGBA" else "no",
    }


def html(part: Part) -> str:
    """The picture itself, small, inside the page; a picture that cannot be read is named."""
    words = escape(part.text or (part.path.name if part.path else ""), quote=True)
    try:
        image = read(part)
    except DataError as error:
        return f"<em>{escape(error.message)}</em>"
    image.thumbnail((_SHOWN, _SHOWN))
    data = b64encode(encoded(image, ".png")).decode()
    return f'<img src="data:image/png;base64,{data}" width="{image.width}" height="{image.height}" alt="{words}">'


def overview(parts: Sequence[Part], captions: Sequence[str], folder: Path) -> Path | None:
    """A contact sheet."""
    if not parts:
        return None
    small = [squared(rgb(read(part)), 96) for part in parts]
    return contact_sheet(small, captions, folder / SHEET)


def terminal(part: Part, environment: Mapping[str, str], width: int) -> str:
    """In pixels where the terminal has a protocol for them, else in coloured half blocks."""
    return for_terminal(part.path, environment, width) if part.path else ""


def views(part: Part) -> Any:
    """Its thumbnail and that of its mirror image, (2, 768)."""
    import numpy as np

    if part.path is None:
        raise DataError("This part is no picture: it has no file.", "Give it a path.")
    small = thumbnail(open_picture(part.path, drawn=_SMALL))
    return np.stack([small, small[:, ::-1]]).reshape(2, -1)


modality = Modality("image", ".png", save, read, check, html, overview, terminal, views, near=0.6)
