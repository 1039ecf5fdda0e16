"""Gaussian MMD: as `kid`, with a Gaussian kernel that looks at likeness nearby, as CMMD does with CLIP's features.

Jayasumana et al. 2024 for the idea. Here the features are EfficientNet-Lite0's, so it is no paper's CMMD. The
kernel's width is the middle distance between the reference's own pictures times `width`; the signature holds it.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from pydantic import Field

from genwright.core import Example, Pairs, Score
from genwright.core import Settings as Base
from genwright.judging.mmd import Kernel, gaussian, mmd_score
from genwright.judging.pictures import distances
from genwright.nn.picture_features import CARDS

needs = frozenset({"answers", "train"})
cards = CARDS


class Settings(Base):
    reference: int = Field(2000, ge=4, description="Most true pictures of other rows to compare with")
    width: float = Field(1.0, gt=0, description="Width of the kernel in middle distances of the reference")


def score(
    pairs: Pairs, settings: Settings, *, train: Iterable[Example] = (), held_out: Iterable[Example] = (), seed: int = 0,
    **context: Any,
) -> Score:  # fmt: skip
    """Raises UsageError for too few pictures, ModelError when the network's card has not been fetched."""

    def kernel_of(reference: np.ndarray) -> tuple[Kernel, str]:
        apart = distances(reference, reference)[np.triu_indices(len(reference), 1)]
        width = settings.width * float(np.median(apart)) or 1.0
        return gaussian(width), f"kernel:gaussian {width:.3g}"

    return mmd_score(
        pairs, kernel_of, name="gaussian_mmd-effnetlite0", most=settings.reference, seed=seed, train=train,
        held_out=held_out,
    )  # fmt: skip
