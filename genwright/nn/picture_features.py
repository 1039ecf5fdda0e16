"""Features of pictures: what a network that learned ImageNet sees in each, kept by the hash of the file; and what
words they are like.

Every picture is first brought to the size of the model's own, so that no detail is asked for that it could not paint.
What was looked at once is read from the store the next time: a thousand training pictures cost 20 seconds, then none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genwright.core.home import locked, store

NAME = "effnetlite0"
CARDS = ("efficientnet-lite0",)
WIDTH = 1280
_VERSION = 1  # of all that lies between a file and its features
_AT_ONCE = 32
_ROW = np.dtype([("sha256", "u1", (32,)), ("features", "<f4", (WIDTH,))])


def features(paths: Sequence[Path], side: int) -> np.ndarray:
    """(len(paths), 1280) float64 from 0 to 6, of the pictures on white at side × side pixels.

    Raises ModelError when the network's card has not been fetched, DataError for a picture that cannot be read.
    """
    from genwright.media.picture import open_picture

    from .weights import sha256_of

    place = store() / "features" / f"{NAME}-{_VERSION}-{side}-{seen_at(side)}.bin"
    hashes = [bytes.fromhex(sha256_of(path)) for path in paths]
    known = _known(place)
    missing = {digest: path for digest, path in zip(hashes, paths, strict=True) if digest not in known}
    for some in _batches(list(missing.items())):
        found = looked_at([open_picture(path) for _, path in some], side)
        rows = np.zeros(len(some), _ROW)
        rows["sha256"] = [np.frombuffer(digest, np.uint8) for digest, _ in some]
        rows["features"] = found
        _keep(place, rows)
        known |= {digest: one for (digest, _), one in zip(some, found, strict=True)}
    return np.stack([known[digest] for digest in hashes]).astype(np.float64)


def seen_at(side: int) -> int:
    """Pixels that the network is shown: twice those of a small picture, never more than it has learned with."""
    return 128 if side <= 128 else 224


def signature(side: int) -> str:
    """What a figure made of features must say."""
    return f"{NAME}|pictures:{side}px|seen:{seen_at(side)}px"


def looked_at(pictures: Sequence[Any], side: int) -> np.ndarray:
    """(len(pictures), 1280) float32 of pictures that lie in no file. Raises ModelError as `features` does."""
    import torch

    from .efficientnet_lite import efficientnet_lite

    network = efficientnet_lite()
    found = [network(torch.from_numpy(np.stack([_pixels(one, side) for one in some]))) for some in _batches(pictures)]
    vectors: np.ndarray = torch.cat(found).numpy()
    return vectors


class Probe:
    """A ridge regression in closed form from features (rows, n) to vectors of words (rows, width); its shrinkage is in
    parts of the standardised features' variance."""

    def __init__(self, features: np.ndarray, words: np.ndarray, ridge: float):
        self.rows = len(features)
        self._middle, self._spread = features.mean(0), np.maximum(features.std(0), 1e-6)
        self.words = words.mean(0)
        inner = (x := self._standard(features)).T @ x / self.rows
        inner[np.diag_indices(len(inner))] += ridge
        self._weights = np.linalg.solve(inner, x.T @ (words - self.words) / self.rows)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(rows, width of the words' vectors), less the words' mean."""
        guessed: np.ndarray = self._standard(features) @ self._weights
        return guessed

    def as_layer(self) -> tuple[np.ndarray, np.ndarray]:
        """The same as weights (n, width) and what is added (width,)."""
        weights = self._weights / self._spread[:, None]
        return weights, -self._middle @ weights

    def _standard(self, features: np.ndarray) -> np.ndarray:
        standard: np.ndarray = (features - self._middle) / self._spread
        return standard


def _pixels(picture: Any, side: int) -> Any:
    """uint8 (S, S, 3) with S of `seen_at`."""
    from PIL import Image

    from genwright.media.picture import rgb, squared

    seen = seen_at(side)
    return np.asarray(squared(rgb(picture), side).resize((seen, seen), Image.Resampling.BICUBIC))


def _known(place: Path) -> dict[bytes, np.ndarray]:
    data = place.read_bytes() if place.is_file() else b""
    whole = len(data) // _ROW.itemsize  # a torn last row is passed over
    rows = np.frombuffer(data, _ROW, whole) if whole else np.zeros(0, _ROW)
    return {row["sha256"].tobytes(): row["features"] for row in rows}


def _keep(place: Path, rows: np.ndarray) -> None:
    """Append, over what a killed process left half-written. A full or closed disk only means looking again."""
    with contextlib.suppress(OSError), locked(place.with_suffix(".lock")), place.open("ab") as file:
        file.truncate(file.tell() // _ROW.itemsize * _ROW.itemsize)
        file.write(rows.tobytes())


def _batches(things: Sequence[Any]) -> list[Sequence[Any]]:
    return [things[i : i + _AT_ONCE] for i in range(0, len(things), _AT_ONCE)]
