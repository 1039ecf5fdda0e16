"""Adversarial: a painter and its critic taught together, by pairs, with small slopes (R3GAN; pictures of style_gan)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from genwright.core import Loss, UsageError
from genwright.core import Settings as Options


class Settings(Options):
    penalty: float = Field(
        1.0, ge=0, description="Weight of the critic's squared slopes at true and painted pictures (R1 and R2)"
    )
    penalised: float = Field(
        0.25, gt=0, le=1, description="Share of pictures that meet the penalty, counted so much the more"
    )
    mixing: float = Field(0.5, ge=0, le=1, description="Share of pictures painted from two styles, coarse and fine")
    untold: float = Field(0.1, ge=0, lt=1, description="Share of pictures without words, and as many without style")
    augment: float = Field(
        0.3, ge=0, lt=1,
        description="Share mirrored, moved or recoloured, the true and the painted picture of a row alike, so that "
        "nothing leaks",
    )  # fmt: skip


def loss(learner: Any, batch: Any, settings: Settings) -> Loss:
    """The sum of both players' losses over the pictures; see `nn.adversarial.play`.

    A game's loss says nothing of how good its pictures are. So a look at held-out rows has another measure: the sliced
    Wasserstein distance between these and what is painted for their words. Raises UsageError for a learner without
    two players.
    """
    from genwright.nn.adversarial import play, sliced_distance

    if not hasattr(learner, "game"):
        raise UsageError("This model has no two players to teach.", "Use `engine: style_gan`, or another objective.")
    game = learner.game(batch, mixing=settings.mixing, untold=settings.untold, augment=settings.augment)
    count = float(len(batch))
    if not learner.module.training:
        return Loss(sliced_distance(game.true, game.painted) * count, count)
    total, figures = play(game, penalty=settings.penalty, penalised=settings.penalised)
    return Loss(total, count, figures)
