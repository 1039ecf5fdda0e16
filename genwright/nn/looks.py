"""Looks: whether a drawing looks like its words, and whether it is one that was taught, so that of several drawings the
one is kept that is the first and not the second (the first as DALL-E did by CLIP, Ramesh et al. 2021).

EfficientNet-Lite0 sees the drawing, and a ridge regression, fitted on what was taught, says where among the captions'
vectors it belongs. It has seen many hands draw a thing, and so knows it by a hand that it has not. A near copy is what
lies nearer to a taught drawing than 95 of 100 taught drawings lie to another hand's, by 16 × 16 mean greys, mirrored
or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genwright.media.picture import open_picture, thumbnail

from .picture_features import CARDS, WIDTH, Probe, features, looked_at

__all__ = ["CARDS", "DRAWN", "SIDE", "Looks"]

SIDE = 128  # pixels
_RIDGE = 0.2
DRAWN = 32  # pixels of what becomes a thumbnail
_THUMB = 16 * 16
_NEAR = 5.0  # per cent
_AT_ONCE = 1024


class Looks(nn.Module):
    """Constants that are kept with a model of `taught` drawings: the regression, the captions' mean, thumbnails, and
    how near is a copy."""

    weights: Tensor
    added: Tensor
    mean: Tensor
    taught: Tensor
    near: Tensor

    def __init__(self, width: int, taught: int = 0):
        super().__init__()
        for name, shape in (("weights", (WIDTH, width)), ("added", (width,)), ("mean", (width,)), ("near", ())):
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("taught", torch.zeros((taught, _THUMB), dtype=torch.uint8))

    def fit(self, files: Sequence[Path], captions: np.ndarray, hands: Sequence[str]) -> None:
        """From drawings, the vectors of what they show (rows, width) and who drew each. Raises ModelError when the
        network's card has not been fetched."""
        probe = Probe(features(files, SIDE), _unit(captions), _RIDGE)
        for name, found in zip(("weights", "added", "mean"), (*probe.as_layer(), probe.words), strict=True):
            getattr(self, name).copy_(torch.from_numpy(found))
        self.taught = _thumbs(open_picture(path, drawn=DRAWN) for path in files).to(self.taught.device)
        _, who = np.unique(np.array(hands), return_inverse=True)
        apart = self._apart(self.taught, torch.from_numpy(who).to(self.taught.device))
        there = apart[apart.isfinite()]  # nobody's drawings are too near to those of others where there is one hand
        self.near.fill_(float(np.percentile(there.cpu().numpy(), _NEAR)) if len(there) else 0.0)

    def likeness(self, pictures: Sequence[Any], captions: np.ndarray) -> np.ndarray:
        """(B,) cosines, of pictures with a caption each. Raises ModelError as `fit` does."""
        seen = torch.from_numpy(looked_at(pictures, SIDE)).to(self.weights)
        guessed = (seen @ self.weights + self.added).float()
        wanted = torch.from_numpy(_unit(captions)).to(guessed) - self.mean.float()
        found: np.ndarray = nn.functional.cosine_similarity(guessed, wanted).cpu().numpy()
        return found

    def newness(self, pictures: Sequence[Any]) -> np.ndarray:
        """(B,) distances to the nearest drawing that was taught, of which `near` is the least that is no copy."""
        found: np.ndarray = self._apart(_thumbs(pictures).to(self.taught.device)).cpu().numpy()
        return found - float(self.near)

    def _apart(self, thumbs: Tensor, hands: Tensor | None = None) -> Tensor:
        """(B,) distances of thumbnails, or of their mirror images, to the nearest taught one; where `hands` are told,
        of another's hand (infinite where there is none)."""
        known = self.taught.float() / 255
        views = torch.stack([thumbs, thumbs.unflatten(1, (16, 16)).flip(2).flatten(1)]).float() / 255
        found = []
        for start in range(0, len(thumbs), _AT_ONCE):
            apart = torch.cdist(views[:, start : start + _AT_ONCE], known).amin(0)
            if hands is not None:
                apart = apart.masked_fill(hands[start : start + _AT_ONCE, None] == hands, torch.inf)
            found.append(apart.amin(1) if len(known) else apart.new_full((len(apart),), torch.inf))
        return torch.cat(found)


def _thumbs(pictures: Any) -> Tensor:
    """(B, 256) bytes."""
    greys = np.stack([thumbnail(one).mean(2).reshape(-1) for one in pictures])
    return torch.from_numpy(np.round(greys * 255).astype(np.uint8))


def _unit(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-6)
