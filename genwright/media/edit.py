"""Edit: a picture that is given, and where it may change. What may not change stays as it is, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genwright.core.content import Message
from genwright.core.errors import UsageError

from .design import Design, designed

LARGEST = 24_000_000  # pixels of a canvas with what is added to it


@dataclass(frozen=True)
class Canvas:
    """`picture` (h, w, 3 or 4) uint8 and `free` (h, w) bool: where it may be painted over."""

    picture: np.ndarray
    free: np.ndarray

    @property
    def is_free(self) -> bool:
        """Nothing has to stay."""
        return bool(self.free.all())

    def small(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """The picture as a model sees it, (size, size, 3) uint8 in the middle of a white square, and where it may
        change, (size, size) bool: a pixel that is free in part is free."""
        from PIL import Image

        from .picture import rgb

        square = Image.fromarray(_squared(np.asarray(rgb(Image.fromarray(self.picture))), 255))
        free = Image.fromarray(_squared(self.free.astype(np.uint8) * 255, 0))
        seen = np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))
        return seen.copy(), np.asarray(free.resize((size, size), Image.Resampling.BOX)) > 0

    def filled(self, painted: np.ndarray) -> Any:
        """The picture with what a model painted (size, size, 3) where it may change, in its own resolution."""
        from PIL import Image

        height, width = self.free.shape
        side = max(height, width)
        left, top = (side - width) // 2, (side - height) // 2
        large = np.asarray(Image.fromarray(painted).resize((side, side), Image.Resampling.LANCZOS))
        large = large[top : top + height, left : left + width]
        if self.picture.shape[2] == 4:
            large = np.dstack([large, np.full((height, width), 255, np.uint8)])
        return Image.fromarray(np.where(self.free[:, :, None], large, self.picture))


def canvas_of(messages: Sequence[Message], expand: tuple[int, int, int, int] = (0, 0, 0, 0)) -> list[Canvas]:
    """The pictures of the last user's message, each with its mask (a part whose text is "mask") or free.

    A mask allows changes where it is transparent; one without transparency, where it is white. `expand` adds room
    (left, top, right, bottom, in pixels) that is free while the rest stays. Raises UsageError: a mask without picture
    or of another size, room without picture, too much of it; DataError for what is no picture.
    """
    parts = next((m.parts for m in reversed(messages) if m.role == "user"), ())
    paths = [(part.text.strip().lower() == "mask", part.path) for part in parts if part.kind == "image" and part.path]
    pictures = [path for is_mask, path in paths if not is_mask]
    masks = [path for is_mask, path in paths if is_mask]
    if (masks or any(expand)) and len(pictures) != 1:
        raise UsageError(f"A mask or added room needs one picture, and there are {len(pictures)}.", "Give one picture.")
    if len(pictures) > 2 or len(masks) > 1:
        raise UsageError("At most two pictures, or one with one mask, can be given.", "Leave the others out.")
    canvases = [_opened(path, masks[0] if masks else None) for path in pictures]
    return [_expanded(canvases[0], expand, bool(masks))] if any(expand) else canvases


def finished(painted: np.ndarray, size: int | None, network: Any = None, design: Design | None = None) -> Any:
    """What a model painted, made larger by a network (`media.enlarge`), brought to a size, made into a design: as far
    as asked for."""
    from PIL import Image

    from .enlarge import enlarged

    picture = Image.fromarray(painted)
    if network:
        picture = enlarged(picture, network)
    if size not in (None, picture.width):
        picture = picture.resize((size, size), Image.Resampling.LANCZOS)
    return designed(picture, design) if design else picture


def _opened(path: Path, mask: Path | None) -> Canvas:
    from .apart import open_given

    picture = np.array(open_given(path))
    free = np.ones(picture.shape[:2], dtype=bool)
    if mask is not None:
        allowed = np.array(open_given(mask))
        if allowed.shape[:2] != picture.shape[:2]:
            sizes = " and ".join(f"{one.shape[1]}×{one.shape[0]}" for one in (allowed, picture))
            raise UsageError(f"The mask and the picture differ in size: {sizes} pixels.", "Make the mask as large.")
        seen_through = allowed.shape[2] == 4 and bool((allowed[:, :, 3] < 255).any())
        free = allowed[:, :, 3] < 128 if seen_through else allowed[:, :, :3].mean(2) > 127
        if not free.any():
            raise UsageError("The mask allows no change anywhere.", "Make it transparent, or white, where it may.")
    return Canvas(picture, free)


def _expanded(canvas: Canvas, expand: tuple[int, int, int, int], masked: bool) -> Canvas:
    left, top, right, bottom = expand
    height, width = canvas.free.shape
    if (height + top + bottom) * (width + left + right) > LARGEST:
        raise UsageError(f"With that much room the picture has more than {LARGEST:,} pixels.", "Add less.")
    room = ((top, bottom), (left, right))
    free = canvas.free if masked else np.zeros_like(canvas.free)
    picture = np.pad(canvas.picture, (*room, (0, 0)), constant_values=255)
    return Canvas(picture, np.pad(free, room, constant_values=True))


def _squared(values: np.ndarray, outside: int) -> np.ndarray:
    height, width = values.shape[:2]
    side = max(height, width)
    down, across = side - height, side - width
    room = [(down // 2, down - down // 2), (across // 2, across - across // 2)]
    return np.pad(values, room + [(0, 0)] * (values.ndim - 2), constant_values=outside)
