"""The two players of a style-based GAN: a generator whose every layer a style scales, and its discriminator.

Generator as Karras et al. 2020: a mapping network makes of noise and words a style w; it scales the input channels of
each convolution, whose output is brought back to unit size; pictures of all sides are summed. The scaling is done on
activations and not on weights, the same to rounding and up to five times as fast on a CPU, for all pictures share one
convolution. Discriminator as Huang et al. 2024 in spirit: residual, no normalisation, no statistics of the batch, so
that a picture's judgement depends on nothing but itself; words enter by projection (Miyato & Koyama 2018).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .picture_rows import caption_vectors

MEAN_OF = 256  # draws of z whose mean style truncation leads to


class StyleNet(nn.Module):
    """Both players, so that the loop teaches, averages and keeps both. `config` is a `StyleConfig`."""

    def __init__(self, config: Any, reader_width: int, styles: int):
        super().__init__()
        self.generator = Generator(config, reader_width, styles)
        self.discriminator = Discriminator(config, reader_width, styles)


class Told(nn.Module):
    """(B, latent) of what a picture is asked by: caption and style. Each player has its own."""

    words: nn.Embedding | None

    def __init__(self, config: Any, reader_width: int, styles: int):
        super().__init__()
        self.words = nn.Embedding(config.words + 1, reader_width) if config.text_encoder == "learned" else None
        self.caption = nn.Linear(reader_width, config.latent)
        self.no_caption = nn.Parameter(torch.zeros(config.latent))
        self.styles = nn.Embedding(styles + 1, config.latent)  # 0: any style
        nn.init.normal_(self.caption.weight, std=1 / math.sqrt(reader_width))
        nn.init.normal_(self.styles.weight, std=0.3)

    def forward(self, captions: Tensor, untold: Tensor, styles: Tensor) -> Tensor:
        """Captions as their reader gives them; those that say nothing count as `untold` (B,) too."""
        untold = (untold | ~captions.bool().any(1))[:, None]
        told = torch.where(untold, self.no_caption, self.caption(caption_vectors(captions, self.words)).float())
        return told + self.styles(styles)


# -- the generator ---------------------------------------------------------------------------------------------------


class Generator(nn.Module):
    """`styles_of` makes w of noise and words, `forward` a picture of w."""

    layers: Any  # nn.ModuleList of Styled
    colours: Any  # one for each side

    def __init__(self, config: Any, reader_width: int, styles: int):
        super().__init__()
        self.shape, latent, sides = config, config.latent, config.sides
        self.told = Told(config, reader_width, styles)
        widths = [2 * latent, *[latent] * config.mapping]
        self.mapping = nn.ModuleList(_linear(a, b) for a, b in pairwise(widths))
        first = config.channels(sides[0])
        self.start = nn.Parameter(torch.randn(1, first, sides[0], sides[0]))
        self.layers = nn.ModuleList([Styled(first, first, latent, noise=config.noise)])
        for side in sides[1:]:
            before, here = config.channels(side // 2), config.channels(side)
            self.layers.append(Styled(before, here, latent, noise=config.noise))
            self.layers.append(Styled(here, here, latent, noise=config.noise))
        self.colours = nn.ModuleList(Styled(config.channels(side), 3, latent, kernel=1) for side in sides)

    def styles_of(self, z: Tensor, told: Tensor) -> Tensor:
        """w (B, latent) of noise z (B, latent) and of what is told (B, latent)."""
        w = torch.cat([_unit(z), _unit(told)], 1)
        for layer in self.mapping:
            w = _leaky(layer(w))
        return w.float()

    def mean_style(self, told: Tensor) -> Tensor:
        """(B, latent): the mean w over noise, for each told (B, latent). Always over the same draws."""
        z = torch.randn(MEAN_OF, self.shape.latent, generator=torch.Generator().manual_seed(0)).to(told.device)
        w = self.styles_of(z.repeat(len(told), 1), told.repeat_interleave(MEAN_OF, 0))
        return w.unflatten(0, (len(told), MEAN_OF)).mean(1)

    def forward(self, w: Tensor, noise: list[Tensor] | None = None) -> Tensor:
        """(B, 3, S, S), about -1 to 1, of a style for each layer, (B, layers, latent). `noise`: (1 or B, 1, s, s) for
        each layer, where the configuration has any."""
        noise = noise or [torch.zeros((), device=w.device)] * len(self.layers)
        x = _leaky(self.layers[0](self.start.expand(len(w), -1, -1, -1), w[:, 0], noise[0]))
        picture = self.colours[0](x, w[:, 0]).float()
        for k, colour in enumerate(self.colours[1:], 1):
            x = _leaky(self.layers[2 * k - 1](x, w[:, 2 * k - 1], noise[2 * k - 1]))
            x = _leaky(self.layers[2 * k](_doubled(x), w[:, 2 * k], noise[2 * k]))
            picture = _doubled(picture) + colour(x, w[:, 2 * k]).float()
        return picture

    def noise_of(self, generator: torch.Generator) -> list[Tensor]:
        """(1, 1, s, s) noise for each layer."""
        first, *others = self.shape.sides
        sides = [first, *(s for side in others for s in (side // 2, side))]
        return [torch.randn(1, 1, side, side, generator=generator) for side in sides]


class Styled(nn.Module):
    """A convolution of (B, in, s, s) whose input channels a style w (B, latent) scales; 3 × 3 ones give unit size."""

    def __init__(self, inputs: int, outputs: int, latent: int, *, kernel: int = 3, noise: bool = False):
        super().__init__()
        self.unit = kernel > 1
        size = 1 if self.unit else 0.3  # the colours of all sides are summed
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel) * size / math.sqrt(inputs * kernel**2))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.style = nn.Linear(latent, inputs)
        self.strength = nn.Parameter(torch.zeros(())) if noise else None
        nn.init.normal_(self.style.weight, std=1 / math.sqrt(latent))
        nn.init.ones_(self.style.bias)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        scale = self.style(w).float()
        x = F.conv2d(x * scale[:, :, None, None].to(x.dtype), self.weight, padding=self.weight.shape[-1] // 2)
        if self.unit:  # what the rectifier will halve is doubled here
            size = F.linear(scale.square(), self.weight.square().sum((2, 3))).float()
            x = x * (2 / (size + 1e-8)).sqrt()[:, :, None, None].to(x.dtype)
        if self.strength is not None and noise is not None:
            x = x + (self.strength * noise).to(x.dtype)
        return x + self.bias.to(x.dtype)[:, None, None]


# -- the discriminator -----------------------------------------------------------------------------------------------


class Discriminator(nn.Module):
    """A number for each picture: more is truer, for what it is said to show."""

    blocks: Any  # nn.ModuleList of Halving

    def __init__(self, config: Any, reader_width: int, styles: int):
        super().__init__()
        latent, sides = config.latent, config.sides[::-1]
        widths = [config.channels(side) for side in sides]
        self.told = Told(config, reader_width, styles)
        self.colours = _conv(3, widths[0], 1)
        self.blocks = nn.ModuleList(Halving(a, b) for a, b in pairwise(widths))
        self.last = _conv(widths[-1], widths[-1], 3)
        self.seen = _linear(widths[-1] * sides[-1] ** 2, latent)
        self.truth = nn.Linear(latent, 1)

    def forward(self, x: Tensor, captions: Tensor, untold: Tensor, styles: Tensor) -> Tensor:
        """(B,) for pictures (B, 3, S, S) said to show this."""
        x = _leaky(self.colours(x))
        for block in self.blocks:
            x = block(x)
        seen = _leaky(self.seen(_leaky(self.last(x)).flatten(1))).float()
        fits = (seen * self.told(captions, untold, styles)).sum(1) / math.sqrt(seen.shape[1])
        return self.truth(seen).float().squeeze(1) + fits


class Halving(nn.Module):
    """(B, in, s, s) -> (B, out, s/2, s/2), with a way around the two convolutions."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first, self.second = _conv(inputs, inputs, 3), _conv(inputs, outputs, 3)
        self.around = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.avg_pool2d(_leaky(self.first(x)), 2)
        h = _leaky(self.second(h))
        return (h + self.around(F.avg_pool2d(x, 2))) * math.sqrt(0.5)


# -- small things ----------------------------------------------------------------------------------------------------


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight, 0.2)
    nn.init.zeros_(layer.bias)
    return layer


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(layer.weight, 0.2)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _unit(x: Tensor) -> Tensor:
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()
