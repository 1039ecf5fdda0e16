"""KID-effnetlite0: how far the answers' pictures, as a set, lie from true ones (kernel distance of features, × 1000).

Bińkowski et al. 2018 with the features of EfficientNet-Lite0: no paper's KID, and no FID. Unbiased, so few pictures
make it unsure but not larger; it may fall below zero. Beside it stands what the true pictures of the same rows get,
the floor: who reaches it cannot be told from true by these features. Slight noise on white grounds costs much. The
interval is a jackknife over answers and reference (drawing a picture twice would lie).
"""

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from genwright.core import Example, Pairs, Score
from genwright.core import Settings as Base
from genwright.judging.mmd import mmd_score, polynomial
from genwright.nn.picture_features import CARDS

needs = frozenset({"answers", "train"})
cards = CARDS


class Settings(Base):
    reference: int = Field(2000, ge=4, description="Most true pictures of other rows to compare with")


def score(
    pairs: Pairs, settings: Settings, *, train: Iterable[Example] = (), held_out: Iterable[Example] = (), seed: int = 0,
    **context: Any,
) -> Score:  # fmt: skip
    """Raises UsageError for too few pictures, ModelError when the network's card has not been fetched."""
    return mmd_score(
        pairs, lambda reference: (polynomial, "kernel:(xy/d+1)^3"), name="kid-effnetlite0", most=settings.reference,
        seed=seed, train=train, held_out=held_out,
    )  # fmt: skip
