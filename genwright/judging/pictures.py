"""Pictures for metrics: which one a message holds, as thumbnails, and how far these lie apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from genwright.core import Message


def picture_of(message: Message | None) -> Path | None:
    """The first picture of a message."""
    return next((part.path for part in message.parts if part.kind == "image" and part.path), None) if message else None


def distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Euclidean, (len(some), len(others)).

    >>> distances(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[5.0, 0.0]]
    """
    squares = (some**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2 * some @ others.T
    return np.sqrt(np.maximum(squares, 0))


def thumbnails(paths: Iterable[Path]) -> Iterator[np.ndarray]:
    """16 × 16 mean colours of each picture, (768,), float64."""
    from genwright.media.picture import open_picture, thumbnail

    for path in paths:
        yield thumbnail(open_picture(path)).reshape(-1).astype(np.float64)
