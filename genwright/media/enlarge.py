"""Enlarge: pictures made four times as large by a super-resolution network, tile by tile, on the CPU (ncnn).

The networks are Real-ESRGAN's (Wang et al. 2021), in ncnn's form, from cards. They shift colours a little; so what is
enlarged is corrected until, made small again, it is the picture that was given (one step of back-projection, Irani and
Peleg 1991): edges are the network's, colours the picture's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from genwright.core.card import find_card
from genwright.core.errors import MissingExtra, ModelError, UsageError

FACTOR = 4
LARGEST = 24_000_000  # pixels of what is made
_EDGE = 10  # pixels around a tile that the network sees too, so that no seam shows
CARDS = {"drawing": "upscale-drawing", "fast": "upscale-fast"}


class Network:
    """A network from a folder with `network.param` and `network.ncnn`. Raises ModelError when it cannot be read."""

    def __init__(self, folder: Path, *, threads: int = 1):
        try:
            import ncnn
        except ImportError:
            raise MissingExtra("ncnn", "upscale") from None
        self._ncnn, self._net = ncnn, ncnn.Net()
        self._net.opt.num_threads, self._net.opt.use_vulkan_compute = threads, False
        param, weights = folder / "network.param", folder / "network.ncnn"
        for path in (param, weights):
            if not path.is_file():
                raise ModelError(f"{path} is not there.", "Name a card of a network that makes pictures larger.")
        if self._net.load_param(str(param)) or self._net.load_model(str(weights)):
            raise ModelError(f"The network in {folder} cannot be read.", "Fetch it again: `genwright models pull`.")

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """(h, w, 3) float32 from 0 to 1, four times as high and wide."""
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))  # kept until it has been copied
        extractor = self._net.create_extractor()
        extractor.input("data", self._ncnn.Mat(planes).clone())
        failed, out = extractor.extract("output")
        if failed:
            raise ModelError("The network that makes pictures larger failed.", "Use a smaller `tile`.")
        made = np.array(out).transpose(1, 2, 0)
        if made.shape != (pixels.shape[0] * FACTOR, pixels.shape[1] * FACTOR, 3):
            raise ModelError(f"The network does not make pictures {FACTOR} times as large.", "Use another card.")
        return made


def enlarged(picture: Any, network: Network, *, tile: int = 64, colours: bool = True) -> Any:
    """A PIL image (RGB or RGBA) four times as large. `tile` bounds the memory; `colours` corrects them (see above).

    Raises UsageError for more than 24 million pixels.
    """
    *_, made = enlarging(picture, network, tile=tile, colours=colours)
    return made


def enlarging(picture: Any, network: Network, *, tile: int = 64, colours: bool = True) -> Iterator[Any]:
    """The same, yielding None after every tile and the picture at last."""
    from PIL import Image

    width, height = picture.size
    if width * height * FACTOR**2 > LARGEST:
        raise UsageError(
            f"A picture of {width} × {height} would get more than {LARGEST:,} pixels.", "Enlarge a smaller one."
        )
    layers = [np.asarray(_on_white(picture), np.float32) / 255]
    if picture.mode == "RGBA":
        layers.append(np.asarray(picture.getchannel("A").convert("RGB"), np.float32) / 255)
    made = []
    for layer in layers:
        large = np.empty((height * FACTOR, width * FACTOR, 3), np.float32)
        for top, left in ((y, x) for y in range(0, height, tile) for x in range(0, width, tile)):
            bottom, right = min(top + tile, height), min(left + tile, width)
            large[top * FACTOR : bottom * FACTOR, left * FACTOR : right * FACTOR] = _tile(
                layer, network, (top, left, bottom, right)
            )
            yield None
        made.append(_bytes(corrected(large, layer) if colours else large))
    yield Image.fromarray(made[0] if len(made) == 1 else _clear_again(*made))


def network_of(kind: str) -> Network:
    """The network of one of `CARDS`, checked. Raises ModelError when its card has not been fetched or was altered."""
    return _opened(CARDS[kind], find_card(CARDS[kind]).folder)


@cache
def _opened(name: str, folder: Path) -> Network:
    return Network(find_card(name).checked_folder)


def _tile(layer: np.ndarray, network: Network, box: tuple[int, int, int, int]) -> np.ndarray:
    """A tile, enlarged, seen with what is around it; beyond the picture's edge its own mirror image."""
    top, left, bottom, right = box
    height, width = layer.shape[:2]
    rows = _mirrored(np.arange(top - _EDGE, bottom + _EDGE), height)
    columns = _mirrored(np.arange(left - _EDGE, right + _EDGE), width)
    made = network(layer[rows[:, None], columns[None]])
    edge = _EDGE * FACTOR
    return made[edge:-edge, edge:-edge]


def _mirrored(places: np.ndarray, size: int) -> np.ndarray:
    """Places outside 0 … size - 1 folded back in."""
    folded = np.abs(places) % max(1, 2 * size - 2)
    return np.where(folded < size, folded, 2 * size - 2 - folded)


def corrected(large: np.ndarray, small: np.ndarray) -> np.ndarray:
    """(4h, 4w, 3) with what it has lost or gained, made small again, against (h, w, 3) added back smoothly."""
    from PIL import Image

    height, width = small.shape[:2]
    again = large.reshape(height, FACTOR, width, FACTOR, 3).mean((1, 3))
    error = [
        np.asarray(Image.fromarray(plane).resize((width * FACTOR, height * FACTOR), Image.Resampling.BICUBIC))
        for plane in np.ascontiguousarray((small - again).transpose(2, 0, 1))
    ]
    return large + np.stack(error, 2)


def _clear_again(seen: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """RGBA from the picture on white and its transparency: white is taken out of what is half clear."""
    opaque = alpha[:, :, :1].astype(np.float32) / 255
    ink = (seen - 255.0 * (1 - opaque)) / np.maximum(opaque, 1 / 255)
    return np.dstack([_bytes(ink / 255), alpha[:, :, 0]])


def _on_white(picture: Any) -> Any:
    from .picture import rgb

    return rgb(picture)


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
