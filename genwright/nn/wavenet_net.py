"""WaveNet (van den Oord et al. 2016): dilated causal convolutions over the levels of a wave, gated, with residuals and
skips; steered at every moment by frames (local conditioning) and as a whole by who speaks (global conditioning).

A convolution of two taps is one product with [then, now]; residual and skip are one product too. What steers is
projected frame by frame and then drawn in straight lines from frame to frame, which costs next to nothing. Nothing is
padded: a layer gives as many samples fewer as it looks back, and what stands before a sound is silence.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from genwright.media.companding import LEVELS

from .wavenet_options import HOP

MARGIN = 2  # frames on either side that the reader of frames sees besides


class WaveNet(nn.Module):
    """`config` is a `WaveNetConfig`."""

    layers: Any  # nn.ModuleList of Layer
    head: Any  # nn.Sequential
    styles: nn.Embedding
    reader: nn.Sequential | None

    def __init__(self, config: Any):
        super().__init__()
        self.shape, d, told = config, config.channels, config.told
        self.levels = nn.Embedding(LEVELS, d)
        self.styles = nn.Embedding(len(config.styles) + 1, told)
        self.reader = None
        if config.bands:
            read = nn.Conv1d(config.bands, told, 2 * MARGIN - 1), nn.GELU(), nn.Conv1d(told, told, 3)
            self.reader = nn.Sequential(*read)
        self.dropout = nn.Dropout(0.0)  # set by train.dropout
        self.layers = nn.ModuleList(Layer(d, config.skip, told, dilation) for dilation in config.dilations)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(config.skip, config.skip), nn.ReLU())
        self.out = nn.Linear(config.skip, LEVELS)
        self._begin()

    def _begin(self) -> None:
        """Levels begin as waves of slower and faster turns, so that neighbours are alike; all are equally likely."""
        d = self.shape.channels
        turns = torch.arange(LEVELS)[:, None] / (LEVELS - 1) * torch.arange(1, d + 1) * math.pi
        self.levels.weight.data.copy_(turns.cos() / torch.arange(1, d + 1).sqrt())
        nn.init.normal_(self.styles.weight, std=0.3)
        for layer in self.layers:
            nn.init.xavier_normal_(layer.gate.weight, gain=5 / 3)
            nn.init.normal_(layer.out.weight[:d], std=1 / math.sqrt(d * len(self.layers)))
            nn.init.normal_(layer.out.weight[d:], std=1 / math.sqrt(d))
            nn.init.zeros_(layer.out.bias)
        nn.init.kaiming_normal_(self.head[1].weight, nonlinearity="relu")
        nn.init.zeros_(self.head[1].bias)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, levels: Tensor, frames: Tensor, styles: Tensor) -> Tensor:
        """Logits (B, L - sees + 1, 256) of the samples that follow the last ones of `levels` (B, L).

        `frames` (B, F, bands) steer: the frame before the last MARGIN ones lies just behind the last sample told.
        `styles` (B,) count from 1; 0 is any.
        """
        h = self.dropout(self.levels(levels))
        told, style = self.read(frames), self.styles(styles)
        skips: Any = 0
        count = levels.shape[1] - self.shape.sees + 1
        for layer in self.layers:
            h, skip = layer(h, drawn_out(layer.local(told), levels.shape[1]) if told is not None else None, style)
            skips = skips + skip[:, -count:]
        return self.logits(skips)

    def read(self, frames: Tensor) -> Tensor | None:
        """(B, F - 2 · MARGIN, told) of frames (B, F, bands); None where nothing steers."""
        if self.reader is None:
            return None
        found: Tensor = self.reader(frames.float().transpose(1, 2)).transpose(1, 2)
        return found

    def logits(self, skips: Tensor) -> Tensor:
        found: Tensor = self.out(self.head(skips))
        return found.float()


class Layer(nn.Module):
    """A gated unit that sees a sample and the one `dilation` before it."""

    def __init__(self, width: int, skip: int, told: int, dilation: int):
        super().__init__()
        self.width, self.dilation = width, dilation
        self.gate = nn.Linear(2 * width, 2 * width)
        self.local = nn.Linear(told, 2 * width, bias=False)
        self.style = nn.Linear(told, 2 * width, bias=False)
        self.out = nn.Linear(width, width + skip)

    def forward(self, h: Tensor, local: Tensor | None, style: Tensor) -> tuple[Tensor, Tensor]:
        """What is handed on, and to the output: (B, L - dilation, width) and (…, skip) of h (B, L, width)."""
        now = h[:, self.dilation :]
        z = self.gate(torch.cat([h[:, : -self.dilation], now], 2)) + self.style(style)[:, None]
        if local is not None:
            z = z + local[:, -z.shape[1] :]
        shape, gate = z.chunk(2, 2)
        out = self.out(shape.tanh() * gate.sigmoid())
        return now + out[..., : self.width], out[..., self.width :]


def drawn_out(frames: Tensor, count: int) -> Tensor:
    """(B, count, k) in straight lines from frame to frame of (B, F, k), HOP apart; the last sample is that just before
    the last frame."""
    share = torch.arange(HOP, device=frames.device, dtype=frames.dtype)[:, None] / HOP
    before, after = frames[:, :-1, None], frames[:, 1:, None]
    return torch.lerp(before, after, share).flatten(1, 2)[:, -count:]
