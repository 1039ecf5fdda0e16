"""DiT: a transformer over the patches of a noisy picture that tells the clean one (Peebles & Xie 2023).

Pixels in, pixels out: a patch is a token and no autoencoder stands between (Li & He 2025). Time, caption and style
shift, scale and gate every block through one shared projection (adaLN-single, Chen et al. 2023); the caption also
stands beside the patches as a few tokens. RMSNorm, normed queries and keys (Dehghani et al. 2023), a gated MLP
(Shazeer 2020), and two small convolutions at the end, for patches are painted apart and would show their seams.

With a `fine_width` it is an hourglass (Crowson et al. 2024): a few narrow blocks see every patch, the others, which do
most of the work, see two by two patches as one token; what the narrow blocks saw before is added to what comes after.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dit_fused import gated, looked, modulated
from .int8 import Int8Linear
from .told import Condition, Told

Look = Callable[[Tensor, Tensor, Tensor, int], Tensor]  # of queries, keys and values; see `dit_fused.looked`


class Dit(Told):
    """The network. `config` is a `FlowConfig`, `reader_width` that of a caption's vector, `styles` a count."""

    blocks: Any  # nn.ModuleList of Block
    fine: Fine | None
    seams: Seams | None

    def __init__(self, config: Any, reader_width: int, styles: int):
        super().__init__()
        self.shape, d, inputs = config, config.width, 3 * config.patch**2
        tokens, outside = (config.size // config.patch) ** 2, config.fine_width or d
        self.patches = nn.Linear(inputs, outside)
        self.places = nn.Embedding(tokens, outside)
        self.time = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.hear(config, reader_width, styles)
        self.modulation = nn.Linear(d, 6 * d)
        inside = round(config.mlp * d / 32) * 32
        self.blocks = nn.ModuleList(Block(d, config.heads, inside) for _ in range(config.depth))
        self.fine = Fine(config) if config.fine_width else None
        self.last_modulation = nn.Linear(d, 2 * outside)
        self.out = nn.Linear(outside, inputs)
        self.seams = Seams(config.head_channels) if config.head_channels else None
        self._begin()

    def _begin(self) -> None:
        """Small random weights; blocks that pass on what they get, and a grey picture at first."""
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        side = self.shape.size // self.shape.patch
        self.places.weight.data.copy_(waves_2d(side, self.places.embedding_dim))
        self.begin_hearing()
        for layer in (self.modulation, self.last_modulation, self.out, *([self.fine.modulation] if self.fine else [])):
            nn.init.zeros_(layer.weight)

    # -- the story ---------------------------------------------------------------------------------------------------

    def forward(self, z: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """x-hat (B, 3, S, S) of `z` (B, 3, S, S) at the times `t` (B,)."""
        c = F.silu(self.time(waves(t, self.shape.width)) + condition.vector)
        z = patchify(z, self.shape.patch).to(self.patches.weight.dtype)
        h = self.patches(z) + self.places.weight
        h = self.middle(h, c, condition) if self.fine is None else self.fine(h, c, condition, self.middle)
        shift, scale = self.last_modulation(c).float().unsqueeze(1).chunk(2, -1)
        x = unpatchify(self.out(modulated(h, shift, scale, h.dtype)), self.shape.patch).float()
        return x if self.seams is None else x + self.seams(x)

    def middle(self, h: Tensor, c: Tensor, condition: Condition) -> Tensor:
        """The blocks, over tokens `h` (B, T, d) with the caption's beside them; `c` (B, d) is what they are told."""
        shared, dtype = self.modulation(c).unflatten(1, (6, 1, -1)).float(), inside(self.patches.weight)
        h = torch.cat([condition.tokens.float(), h.float()], 1)
        for block in self.blocks:
            h = block(h, shared, dtype)
        return h[:, condition.tokens.shape[1] :]

    def in_dtype(self, dtype: torch.dtype) -> None:
        """Keep the large weights in `dtype`, for answering: what autocast would do at every call, done once. With int8
        the blocks multiply whole numbers (nn/int8.py)."""
        if dtype != torch.int8:
            self.patches.to(dtype)
        for block in self.blocks:
            block.in_dtype(dtype)
        if self.fine is not None:
            self.fine.in_dtype(dtype)


class Fine(nn.Module):
    """The wide ends of an hourglass: narrow blocks over all patches, before and after a middle over joined ones."""

    def __init__(self, config: Any):
        super().__init__()
        w, d = config.fine_width, config.width
        self.modulation = nn.Linear(d, 6 * w)
        hidden = round(config.mlp * w / 32) * 32
        self.before, self.after = (
            nn.ModuleList(Block(w, config.fine_heads, hidden) for _ in range(config.fine_depth)) for _ in "ba"
        )
        self.join, self.part = nn.Linear(4 * w, d), nn.Linear(d, 4 * w)

    def forward(self, h: Tensor, c: Tensor, condition: Condition, middle: Callable[..., Tensor]) -> Tensor:
        """(B, T, w) -> the same; `middle` makes (B, T/4, d) of (B, T/4, d), `c` and `condition`."""
        shared, dtype = self.modulation(c).unflatten(1, (6, 1, -1)).float(), inside(self.join.weight)
        h = h.float()
        for block in self.before:
            h = block(h, shared, dtype)
        h = h + parted(self.part(middle(self.join(joined(h).to(dtype)), c, condition).to(dtype)).float())
        for block in self.after:
            h = block(h, shared, dtype)
        return h

    def in_dtype(self, dtype: torch.dtype) -> None:
        """As `Dit.in_dtype`."""
        if dtype != torch.int8:
            self.join.to(dtype), self.part.to(dtype)
        for block in (*self.before, *self.after):
            block.in_dtype(dtype)


class Block(nn.Module):
    """Attention and a gated MLP over (B, T, d), each shifted, scaled and gated."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm, self.k_norm = (nn.Parameter(torch.ones(width // heads)) for _ in "qk")
        self.proj = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(0.0)  # set by train.dropout
        self.own_bias = nn.Parameter(torch.zeros(6, 1, width))  # of the shared modulation, in this block

    def in_dtype(self, dtype: torch.dtype) -> None:
        """The layers that multiply, for answering; after int8 they learn nothing more."""
        for name in ("qkv", "proj", "up", "down"):
            layer = getattr(self, name)
            setattr(self, name, Int8Linear(layer) if dtype == torch.int8 else layer.to(dtype))

    def forward(self, h: Tensor, shared: Tensor, dtype: torch.dtype, look: Look = looked) -> Tensor:
        """`h` and the modulation stay in float32; the products are made in `dtype`. `look` is who sees what."""
        shift, scale, gate, shift2, scale2, gate2 = (shared + self.own_bias).unbind(1)
        seen = look(self.qkv(modulated(h, shift, scale, dtype)), self.q_norm, self.k_norm, self.heads)
        h = torch.addcmul(h, gate, self.proj(seen).float())
        inside = gated(self.up(modulated(h, shift2, scale2, dtype)))
        return torch.addcmul(h, gate2, self.dropout(self.down(inside)).float())


class Seams(nn.Module):
    """A small correction that looks across the borders of patches; nothing at first."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, 3, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)  # three times as fast with so few channels
        found: Tensor = self.second(F.silu(self.first(x)))
        return found


# -- small things ----------------------------------------------------------------------------------------------------


def inside(weight: Tensor) -> torch.dtype:
    """The precision of matrix products: autocast's, else that of the weights."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def patchify(x: Tensor, patch: int) -> Tensor:
    """(B, C, S, S) -> (B, (S/p)², C p²), row by row."""
    b, c, s, _ = x.shape
    x = x.reshape(b, c, s // patch, patch, s // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * patch * patch)


def unpatchify(tokens: Tensor, patch: int) -> Tensor:
    """The inverse of `patchify`, for three channels."""
    b, n, _ = tokens.shape
    side = math.isqrt(n)
    x = tokens.reshape(b, side, side, 3, patch, patch)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(b, 3, side * patch, side * patch)


def joined(h: Tensor) -> Tensor:
    """(B, n², w) -> (B, n²/4, 4 w): two by two neighbours become one token."""
    b, n, w = h.shape
    side = math.isqrt(n)
    h = h.reshape(b, side // 2, 2, side // 2, 2, w)
    return h.permute(0, 1, 3, 2, 4, 5).reshape(b, n // 4, 4 * w)


def parted(h: Tensor) -> Tensor:
    """The inverse of `joined`."""
    b, n, w = h.shape
    side = math.isqrt(n)
    h = h.reshape(b, side, side, 2, 2, w // 4)
    return h.permute(0, 1, 3, 2, 4, 5).reshape(b, 4 * n, w // 4)


def waves(t: Tensor, width: int) -> Tensor:
    """(B, width) cosines and sines of a time in [0, 1] (Vaswani et al. 2017)."""
    half = width // 2
    rates = torch.exp(-math.log(1000.0) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = 1000.0 * t.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], 1)


def waves_2d(side: int, width: int) -> Tensor:
    """(side², width) where a patch lies: half of it by row, half by column."""
    at = torch.arange(side, dtype=torch.float32)
    quarter = width // 4
    rates = 100.0 ** (-torch.arange(quarter, dtype=torch.float32) / max(1, quarter))
    line = torch.cat([torch.sin(at[:, None] * rates), torch.cos(at[:, None] * rates)], 1)
    grid = torch.cat([line[:, None].expand(side, side, -1), line[None].expand(side, side, -1)], 2).flatten(0, 1)
    return F.pad(grid, (0, width - grid.shape[1]))
