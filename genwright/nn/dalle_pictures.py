"""Pictures as tokens: a small convolutional autoencoder whose middle is a grid of whole numbers, and back to pixels.

Finite scalar quantisation (Mentzer et al. 2023): each cell of the grid has a few numbers, each rounded to one of a few
levels; which levels they are is the token. There is no codebook, so none can collapse. The decoder's picture is judged
as a distribution over the 256 values of every colour (a discretised logistic, Salimans et al. 2017), so the loss is an
honest count: bits to write the picture down once its tokens are known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dit import Seams
from .pixels import from_bytes

SEAM_CHANNELS = 8
SCALE, PACE = 16.0, 8.0  # of 256 values; how much faster than a weight it learns, which it must to keep up


class Autoencoder(nn.Module):
    """`config` is a `DalleConfig`. Everything heavy happens on a grid of cells, not on pixels."""

    def __init__(self, config: Any):
        super().__init__()
        fine, coarse, depth = config.picture_width, 2 * config.picture_width, config.picture_depth
        cell = config.size // config.grid // 2  # pixels of a side at the finer scale
        self.levels: tuple[int, ...] = tuple(config.levels)
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(cell), nn.Conv2d(3 * cell**2, fine, 3, padding=1), *_blocks(fine, depth),
            nn.Conv2d(fine, coarse, 2, stride=2), *_blocks(coarse, depth), nn.Conv2d(coarse, len(self.levels), 1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(len(self.levels), coarse, 1), *_blocks(coarse, depth), nn.Conv2d(coarse, 4 * fine, 1),
            nn.PixelShuffle(2), *_blocks(fine, depth), nn.Conv2d(fine, 3 * cell**2, 3, padding=1),
            nn.PixelShuffle(cell),
        )  # fmt: skip
        self.seams = Seams(SEAM_CHANNELS)
        self.spread = nn.Parameter(torch.zeros(3, 1, 1))  # of the logistics: their scale is SCALE · exp(PACE · spread)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Of pictures (B, S, S, 3) from 0 to 255: bits (B,), mean over the numbers of each, and tokens (B, g²)."""
        cells = self.cells(from_bytes(pixels))
        bits = self.bits(self.picture(quantised(cells, self.levels)), pixels)
        return bits, numbers(cells, self.levels)

    def cells(self, x: Tensor) -> Tensor:
        """(B, c, g, g) numbers from -1 to 1, not rounded, of pictures (B, 3, S, S) from -1 to 1."""
        return torch.tanh(self.encoder(x.contiguous(memory_format=torch.channels_last)).float())

    def tokens(self, x: Tensor) -> Tensor:
        """(B, g²) numbers of the tokens, row by row."""
        return numbers(self.cells(x), self.levels)

    def picture(self, cells: Tensor) -> Tensor:
        """(B, 3, S, S) from -1 to 1, and a little beyond, of rounded cells (B, c, g, g)."""
        x: Tensor = self.decoder(cells.contiguous(memory_format=torch.channels_last))
        x = x.float()
        return x + self.seams(x).float()

    def painted(self, tokens: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) of tokens (B, g²)."""
        return self.picture(cells_of(tokens, self.levels))

    def bits(self, picture: Tensor, pixels: Tensor) -> Tensor:
        """(B,) mean bits of the true `pixels` (B, S, S, 3) uint8 under logistics around `picture`."""
        true = pixels.permute(0, 3, 1, 2).float()
        off, scale = true - (picture + 1) * 127.5, SCALE * (PACE * self.spread).clamp(-6, 3).exp()
        above, below = (off + 0.5) / scale, (off - 0.5) / scale
        inside = torch.log(-torch.expm1(-1 / scale))
        found = torch.where(true < 255, F.logsigmoid(above), 0.0) + torch.where(true > 0, F.logsigmoid(-below), 0.0)
        found = found + inside * ((true > 0) & (true < 255))
        return found.flatten(1).mean(1) / -math.log(2)


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)  # the block passes on what it gets at first, so it needs no norm
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.second(F.silu(self.first(F.silu(x))))
        return found


def _blocks(width: int, depth: int) -> list[nn.Module]:
    return [_Residual(width) for _ in range(depth)]


# -- finite scalar quantisation --------------------------------------------------------------------------------------


def quantised(cells: Tensor, levels: Sequence[int]) -> Tensor:
    """Numbers from -1 to 1, (B, c, g, g), each in the middle of its level; the slope goes through as if unrounded."""
    count = _beside(levels, cells)
    middles = (2 * _digits(cells, count) + 1) / count - 1
    return cells + (middles - cells).detach()


def numbers(cells: Tensor, levels: Sequence[int]) -> Tensor:
    """(B, g²) which token each cell is: its levels as the digits of one number."""
    places = [math.prod(levels[i + 1 :]) for i in range(len(levels))]
    digits = _digits(cells.detach(), _beside(levels, cells)).long()
    return (digits * torch.tensor(places, device=cells.device)[:, None, None]).sum(1).flatten(1)


def cells_of(tokens: Tensor, levels: Sequence[int]) -> Tensor:
    """The rounded cells (B, c, g, g) of tokens (B, g²)."""
    side, cells = math.isqrt(tokens.shape[1]), []
    for count in reversed(levels):
        cells.append((2.0 * (tokens % count) + 1) / count - 1)
        tokens = tokens // count
    return torch.stack(cells[::-1], 1).unflatten(2, (side, side))


def _digits(cells: Tensor, count: Tensor) -> Tensor:
    """Which level, from 0: all are equally wide."""
    return ((cells + 1) / 2 * count).floor().clamp_min(0).minimum(count - 1)


def _beside(levels: Sequence[int], cells: Tensor) -> Tensor:
    return torch.tensor(levels, dtype=cells.dtype, device=cells.device)[:, None, None]
