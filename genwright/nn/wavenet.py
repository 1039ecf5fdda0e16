"""A WaveNet as a learner: raw sound, level by level, alone or steered by notes, mel bands and speakers.

It is taught by the one loop and the text objectives: a row is a sound (with what steers it), a slot is a sample. Which
window of a sound is learned is drawn from torch's generator, which the loop keeps: a killed training goes on bit-equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from genwright.core.content import Message, Part
from genwright.core.data import Example
from genwright.core.model import Encoded, Likelihood, Request, Unlearnable

from .keeping import Keeping
from .packing import IGNORE
from .picture_rows import new_styles, style_number, style_of, with_room
from .wavenet_net import WaveNet
from .wavenet_options import HOP, SoundOptions, WaveNetConfig
from .wavenet_rows import Waves, collate, encode, hops_of, windows
from .wavenet_sounding import sound, sound_many

_AT_ONCE = 64 * HOP  # samples whose likelihood is told together


class WaveNetLearner(Keeping):
    """Learner, Batched and Scorer of the floor's contracts."""

    engine, gives = "wavenet", "audio"
    options = SoundOptions  # what a request may ask for
    goes_on = False  # it writes no text
    untold = 0.1  # share of the rows that are taught without their style, so that a request need not name one

    def __init__(self, config: WaveNetConfig, *, seed: int = 0, runner: str = "auto"):
        super().__init__()
        self.config, self.runner = config, runner
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module = WaveNet(config).eval()

    # -- learning ----------------------------------------------------------------------------------------------------

    def survey(self, examples: Sequence[Example]) -> None:
        """Learn of the speakers that the training rows name; those that are known keep their place."""
        known = self.config.styles
        if new := new_styles(examples, known):
            self.module.styles = with_room(self.module.styles, len(new))
            self.config = self.config.model_copy(update={"styles": (*known, *new)})

    def encode(self, example: Example, *, supervise: str = "answer") -> Encoded:
        """A row as `wavenet_rows.encode` has it. There is one answer, so `supervise` changes nothing."""
        style = style_number(self.options_of(example).get("style", ""), self.config.styles)
        return encode(example, self.config, style)

    def collate(self, items: Sequence[Encoded]) -> Waves:
        """A window of each sound, from a place that is drawn at random."""
        return collate(items, self.config)

    def loss(self, batch: Waves, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy summed over the samples."""
        styles = batch.styles
        if self.module.training and self.config.styles:
            styles = styles.masked_fill(torch.rand(len(styles), device=styles.device) < self.untold, 0)
        logits = self.module(batch.levels, batch.frames, styles).flatten(0, 1)
        return F.cross_entropy(
            logits, batch.targets.flatten(), ignore_index=IGNORE, reduction="sum", label_smoothing=label_smoothing
        )

    def likelihood(self, examples: Sequence[Example]) -> Iterator[Likelihood]:
        """What the model makes of each sound, whole; its tokens are samples. A row that cannot be learned from counts
        nothing."""
        for example in examples:
            try:
                row = self.encode(example).sequences[0]
            except Unlearnable:
                yield Likelihood(0.0, 0, 0)
                continue
            total, last = 0.0, hops_of(row) * HOP
            for start in range(0, last, _AT_ONCE):
                end = min(last, start + _AT_ONCE)
                batch = windows([row], [end], end - start, self.config).to(self.device)
                with self.answering():
                    total += float(self.loss(batch).double())
            yield Likelihood(total, len(row["levels"]), len(row["levels"]))

    def options_of(self, example: Example) -> dict[str, str]:
        """The options of a request that a row names: its speaker, where it is one of those that were learned."""
        return style_of(example, self.config.styles)

    # -- answering ---------------------------------------------------------------------------------------------------

    def generate(self, request: Request) -> Iterator[Part]:
        """Sounds as files: see `wavenet_sounding.sound`."""
        return sound(self, request)

    def generate_many(self, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
        """Answers of many requests, drawn together."""
        return sound_many(self, requests)
