"""Flow: a learner that turns noise into the picture that words describe, and paints over pictures that it is given.

It is taught by the one loop: a row is a caption (or several) and a picture, a pass costs as many slots as the pictures
have patches. Everything random is drawn from torch's generator, which the loop saves, so that a killed training goes on
bit-equal, and which it sets back for every look at the held-out rows: noise, times and captions are the same each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from genwright.core.content import Message, Part
from genwright.core.data import Example
from genwright.core.model import Request

from . import diffusion
from .answers import AT_ONCE
from .dit import Dit
from .flow_options import PictureOptions
from .gathering import Gathered
from .painting import gathered, paint, paint_many
from .picture_learner import PictureLearner
from .picture_rows import Pictures
from .pixels import augmented, from_bytes, noise_of

MEASURED = (0.2, 0.5, 0.8)  # times at which held-out pictures are denoised


class FlowImage(PictureLearner):
    """Learner, Batched and Measurer of the floor's contracts."""

    engine = "flow_image"
    options = PictureOptions  # what a request may ask for
    network = Dit

    @property
    def slots(self) -> int:
        """A picture's patches."""
        return int(self.config.size // self.config.patch) ** 2

    def loss(
        self, batch: Pictures, *, label_smoothing: float = 0.0, time_mean: float = 1.1, time_spread: float = 1.3,
        smallest_time: float = diffusion.SMALLEST, untold: float = 0.1, augment: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """Velocity error summed over the pictures (a mean over each one's pixels), at random times and noise.

        In training a share `untold` is told nothing (so that there is something to guide away from) and as many no
        style; a share `augment` is changed and told how.
        """
        x, styles, device = from_bytes(batch.pixels), batch.styles, batch.pixels.device
        gone, changes = torch.zeros(2, len(x), dtype=torch.bool, device=device), None
        if self.module.training:
            gone = torch.rand(2, len(x), device=device) < untold
            styles = styles.masked_fill(gone.any(0), 0)
            if augment:
                x, changes = augmented(x, augment)
        t = diffusion.logit_normal(len(x), time_mean, time_spread, device)
        z = diffusion.mix(x, torch.randn_like(x), t)
        told = self.module.condition(batch.captions, gone[0], styles, changes)
        return diffusion.velocity_loss(self.module(z, t, told), x, t, smallest_time).sum()

    def measure(self, examples: Sequence[Example]) -> Iterator[Mapping[str, float]]:
        """Mean squared error of x-hat at the times MEASURED (pixels from -1 to 1), by the first caption, with noise
        that follows from the row. Raises UsageError for a row without picture."""
        for start in range(0, len(examples), AT_ONCE):
            some = examples[start : start + AT_ONCE]
            batch = self.fixed(some)
            x = from_bytes(batch.pixels)
            noise = torch.cat([noise_of(int(one.digest()[:12], 16), self.config.size) for one in some]).to(self.device)
            with self.answering() as module:
                told = module.condition(batch.captions, torch.zeros_like(batch.styles, dtype=torch.bool), batch.styles)
                errors = [
                    (module(diffusion.mix(x, noise, t), x.new_full((len(x),), t), told) - x).square().flatten(1).mean(1)
                    for t in MEASURED
                ]
            for row in torch.stack(errors, 1).tolist():
                yield {f"t={t}": error for t, error in zip(MEASURED, row, strict=True)}

    def generate(self, request: Request) -> Iterator[Part]:
        """Pictures as files, step by step: see `painting.paint`."""
        return paint(self, request)

    def generate_many(self, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
        """Answers of many requests, those that ask for the same steps painted together."""
        return paint_many(self, requests)

    def shared(self) -> Gathered:
        """For many threads that ask at once: see `gathering`."""
        return gathered(self)
