"""Looks: whether a drawing looks like its words, so that of several the one that does is kept (as DALL-E did by CLIP,
Ramesh et al. 2021).

EfficientNet-Lite0 sees the drawing, and a ridge regression, fitted on what was taught, says where among the captions'
vectors it belongs. It has seen many hands draw a thing, and so knows it by a hand that it has not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .picture_features import CARDS, WIDTH, Probe, features, looked_at

__all__ = ["CARDS", "SIDE", "Looks"]

SIDE = 128  # pixels
_RIDGE = 0.2


class Looks(nn.Module):
    """Three constants that are kept with a model: weights (1280, width), what is added, and the captions' mean."""

    weights: Tensor
    added: Tensor
    mean: Tensor

    def __init__(self, width: int):
        super().__init__()
        for name, shape in (("weights", (WIDTH, width)), ("added", (width,)), ("mean", (width,))):
            self.register_buffer(name, torch.zeros(shape))

    def fit(self, files: Sequence[Path], captions: np.ndarray) -> None:
        """From drawings and the vectors of what they show (rows, width). Raises ModelError when the network's card has
        not been fetched."""
        probe = Probe(features(files, SIDE), _unit(captions), _RIDGE)
        for name, found in zip(("weights", "added", "mean"), (*probe.as_layer(), probe.words), strict=True):
            getattr(self, name).copy_(torch.from_numpy(found))

    def likeness(self, pictures: Sequence[Any], captions: np.ndarray) -> np.ndarray:
        """(B,) cosines, of pictures with a caption each. Raises ModelError as `fit` does."""
        seen = torch.from_numpy(looked_at(pictures, SIDE)).to(self.weights)
        guessed = (seen @ self.weights + self.added).float()
        wanted = torch.from_numpy(_unit(captions)).to(guessed) - self.mean.float()
        found: np.ndarray = nn.functional.cosine_similarity(guessed, wanted).cpu().numpy()
        return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-6)
