"""Image tokens: the bits of a picture's pixels when its tokens are known, and of its tokens when its caption is."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from genwright.core import Loss, UsageError
from genwright.core import Settings as Options


class Settings(Options):
    teach: Literal["both", "pictures", "words"] = Field(
        "both",
        description="The autoencoder alone, the transformer alone, or both at once, which is slower",
    )
    untold: float = Field(
        0.1, ge=0, lt=1, description="Share of pictures taught without words, so that guidance is possible"
    )
    augment: float = Field(
        0.0, ge=0, le=1, description="Share of pictures mirrored, moved or recoloured; the model is told, nothing leaks"
    )


def loss(learner: Any, batch: Any, settings: Settings) -> Loss:
    """Sum over pictures of both kinds of bits; the weight is the number of pictures. Raises UsageError for a model
    that is taught otherwise."""
    if not hasattr(learner, "losses"):
        raise UsageError("This model has no picture tokens to teach.", "Use `engine: vq_image`, or another objective.")
    pictures, words = learner.losses(
        batch, teach=settings.teach, untold=settings.untold, augment=settings.augment,
        label_smoothing=getattr(learner, "label_smoothing", 0.0),
    )  # fmt: skip
    count = float(len(batch))
    both = {"pictures": pictures, "words": words}
    logs = {
        f"{name} bits": float(bits.detach()) / count for name, bits in both.items() if settings.teach in ("both", name)
    }
    return Loss(pictures + words, count, logs)
