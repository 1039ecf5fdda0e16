"""StyleGAN: a learner of two players that paints what words describe in one pass, with styles to mix and to lead over.

It is taught by the one loop with the objective `adversarial`. A row is a picture with its captions, or with none. All
chance of a row (noise, mixing, augmentation, which caption) follows from one number drawn for it, so passes of any size
add up to the same step. What paints is saved as model.safetensors; the discriminator stands beside it for learning on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genwright.core.content import Message, Part
from genwright.core.data import Example
from genwright.core.errors import UsageError
from genwright.core.model import Encoded, Request

from .adversarial import Game, play
from .answers import answer, answer_many
from .captions import Meaning, Reader, Words
from .device import passes_in
from .keeping import WEIGHTS, Keeping
from .picture_rows import Pictures, collate, encode, new_styles, style_number, style_of, with_room
from .pixels import changed, from_bytes
from .style_net import StyleNet
from .style_options import StyleConfig, StyleOptions
from .style_painting import painted, planned

_NUMBERS = 11  # of chance for each row, beside noise


@dataclass(frozen=True)
class Dealt:
    """A batch: pictures, and for each a number (B,) from which all its chance follows."""

    pictures: Pictures
    seeds: Tensor

    def __len__(self) -> int:
        return len(self.seeds)

    def to(self, device: torch.device | str) -> Dealt:
        return Dealt(self.pictures.to(device), self.seeds)


class StyleGan(Keeping):
    """Learner and Batched of the floor's contracts, and the two players of `nn.adversarial`."""

    engine, gives = "style_gan", "image"
    options = StyleOptions  # what a request may ask for
    goes_on = False  # it writes no text

    def __init__(self, config: StyleConfig, styles: Sequence[str] = (), *, seed: int = 0, dtype: Any = torch.float32):
        super().__init__()
        self.config, self.styles, self.dtype = config, tuple(map(str, styles)), dtype
        words = Words(config.words, config.latent)
        self.reader: Reader = words if config.text_encoder == "learned" else Meaning()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module: Any = StyleNet(config, self.reader.width, len(self.styles)).eval()

    # -- learning ----------------------------------------------------------------------------------------------------

    @property
    def part_to_compile(self) -> Any:
        """The generator: torch.compile cannot differentiate twice, as the discriminator's penalty asks."""
        return self.module.generator

    def survey(self, examples: Sequence[Example]) -> None:
        """Learn of the styles that the training rows name; those that are known keep their place."""
        if new := new_styles(examples, self.styles):
            for player in (self.module.generator, self.module.discriminator):
                player.told.styles = with_room(player.told.styles, len(new))
            self.styles = (*self.styles, *new)

    def encode(self, example: Example, *, supervise: str = "answer") -> Encoded:
        """A row as `picture_rows.encode` has it, with words or without; raises Unlearnable as that does. A slot is 64
        pixels."""
        style = self.style_number(self.options_of(example).get("style", ""))
        size = self.config.size
        return encode(example, self.reader, size=size, slots=size**2 // 64, style=style, wordless=True)

    def collate(self, items: Sequence[Encoded]) -> Dealt:
        """A number for each row, in the order of the rows, and the caption that follows from it."""
        seeds = [int(torch.randint(1 << 62, ())) for _ in items]
        return Dealt(collate(items, seeds), torch.tensor(seeds))

    def game(self, batch: Dealt, *, mixing: float = 0.5, untold: float = 0.1, augment: float = 0.3) -> Game:
        """What both players learn from. In training a share `mixing` has two styles; a share `untold` no words, and as
        many no style; a share `augment` is changed, the true and the painted picture of a row in the same way."""
        net, config, pictures = self.module, self.config, batch.pictures
        true, device = from_bytes(pictures.pixels), pictures.pixels.device
        if not net.training:
            mixing = untold = augment = 0.0
        z, luck, noise = self._chance(batch.seeds, device)
        gone = luck[:, :2] < untold
        styles = pictures.styles.masked_fill(gone.any(1), 0)
        told = net.generator.told(pictures.captions, gone[:, 0], styles)
        w, second = (net.generator.styles_of(one, told)[:, None] for one in z.unbind(1))
        place = torch.where(luck[:, 2] < mixing, 1 + (luck[:, 3] * (config.layers - 1)).floor(), config.layers)
        fine = torch.arange(config.layers, device=device)[None, :, None] >= place[:, None, None]
        painted = net.generator(torch.where(fine, second, w), noise)
        if augment:
            how = _changes(luck[:, 4:10], config.size, augment)
            true, painted = changed(true, *how), changed(painted, *how)

        def judge(shown: Tensor, rows: Tensor) -> Tensor:
            answers: Tensor = net.discriminator(shown, pictures.captions[rows], gone[rows, 0], styles[rows])
            return answers

        return Game(true, painted, judge, luck[:, 10])

    def loss(self, batch: Dealt, *, label_smoothing: float = 0.0, **other: Any) -> Tensor:
        """Both players' losses, summed over the pictures, with the objective's usual options."""
        if other:
            raise UsageError(
                "A style-based generator is taught by another objective.", "Write `objective: adversarial`."
            )
        return play(self.game(batch), penalty=1.0, penalised=0.25)[0]

    def _chance(self, seeds: Tensor, device: torch.device) -> tuple[Tensor, Tensor, list[Tensor] | None]:
        """Of each row: z (B, 2, latent), numbers from 0 to 1 (B, 11), and noise a layer where there is to be any."""
        z, luck, noise = [], [], []
        for seed in seeds.tolist():
            generator = torch.Generator().manual_seed(seed)
            z.append(torch.randn(2, self.config.latent, generator=generator))
            luck.append(torch.rand(_NUMBERS, generator=generator))
            if self.config.noise:
                noise.append(self.module.generator.noise_of(generator))
        layers = [torch.cat(layer).to(device) for layer in zip(*noise, strict=True)] or None
        return torch.stack(z).to(device), torch.stack(luck).to(device), layers

    # -- answering ---------------------------------------------------------------------------------------------------

    def generate(self, request: Request) -> Iterator[Part]:
        """Pictures as files: see `style_painting.planned`."""
        return answer(request, partial(planned, self), partial(painted, self))

    def generate_many(self, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
        """Answers of many requests, painted together."""
        return answer_many(requests, partial(planned, self), partial(painted, self))

    @contextmanager
    def answering(self) -> Iterator[Any]:
        """The generator to ask, without gradients, in `dtype`."""
        with super().answering() as module, passes_in(self.dtype, self.device):
            yield module.generator

    # -- keeping -----------------------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        return {"styles": list(self.styles)}

    def players(self) -> dict[str, str]:
        """What paints, and the discriminator beside it."""
        return {WEIGHTS: "generator", "discriminator.safetensors": "discriminator"}

    def options_of(self, example: Example) -> dict[str, str]:
        """The options of a request that a row names: its style, where it is one of those that were learned."""
        return style_of(example, self.styles)

    def style_number(self, name: str) -> int:
        """From 1, and 0 for any. Raises UsageError for a style that was not learned."""
        return style_number(name, self.styles)


def _changes(luck: Tensor, side: int, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """What `pixels.changed` takes, of six numbers from 0 to 1 a row: a share is mirrored, one moved, one recoloured.
    Both players see it in true and painted pictures alike, and most of either stay as they are, so no change can pass
    for true (Karras et al. 2020)."""
    mirrored, moved, turned = (luck[:, :3] < share).unbind(1)
    most = max(1, side // 8)
    shift = ((luck[:, 3:5] * (2 * most + 1)).floor() - most) * moved[:, None]
    return mirrored, shift.long(), (luck[:, 5] - 0.5) * math.pi * turned
