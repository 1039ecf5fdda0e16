"""DiT: a transformer over the patches of a noisy picture that tells the clean one (Peebles & Xie 2023).

Pixels in, pixels out: a patch is a token and no autoencoder stands between (Li & He 2025). Time, caption and style
shift, scale and gate every block through one shared projection (adaLN-single, Chen et al. 2023); the caption also
stands beside the patches as a few tokens. RMSNorm, normed queries and keys (Dehghani et al. 2023), a gated MLP
(Shazeer 2020), and two small convolutions at the end, for patches are painted apart and would show their seams.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .pixels import AUGMENTS


@dataclass(frozen=True)
class Condition:
    """What a picture is painted by, apart from the time: `vector` (B, d) and `tokens` (B, k, d)."""

    vector: Tensor
    tokens: Tensor

    def __getitem__(self, rows: Any) -> Condition:
        return Condition(self.vector[rows], self.tokens[rows])


class Dit(nn.Module):
    """The network. `config` is a `FlowConfig`, `reader_width` that of a caption's vector, `styles` a count."""

    words: nn.Embedding | None
    text_tokens: nn.Linear | None
    seams: Seams | None

    def __init__(self, config: Any, reader_width: int, styles: int):
        super().__init__()
        self.config, d, inputs = config, config.width, 3 * config.patch**2
        tokens = (config.size // config.patch) ** 2
        self.patches = nn.Linear(inputs, d)
        self.places = nn.Embedding(tokens, d)
        self.time = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.caption = nn.Sequential(nn.Linear(reader_width, d), nn.SiLU(), nn.Linear(d, d))
        self.no_caption = nn.Parameter(torch.zeros(reader_width))
        self.styles = nn.Embedding(styles + 1, d)  # 0: any style
        self.augment = nn.Linear(AUGMENTS, d, bias=False)
        self.words = nn.Embedding(config.words + 1, reader_width) if config.text_encoder == "learned" else None
        self.text_tokens = nn.Linear(reader_width, config.text_tokens * d) if config.text_tokens else None
        self.modulation = nn.Linear(d, 6 * d)
        inside = round(config.mlp * d / 32) * 32
        self.blocks = nn.ModuleList(Block(d, config.heads, inside) for _ in range(config.depth))
        self.last_modulation = nn.Linear(d, 2 * d)
        self.out = nn.Linear(d, inputs)
        self.seams = Seams(config.head_channels) if config.head_channels else None
        self._begin()

    def _begin(self) -> None:
        """Small random weights; blocks that pass on what they get, and a grey picture at first."""
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        side = self.config.size // self.config.patch
        self.places.weight.data.copy_(waves_2d(side, self.config.width))
        nn.init.normal_(self.styles.weight, std=0.02)
        if self.words is not None:
            nn.init.normal_(self.words.weight, std=1.0)
        for layer in (self.modulation, self.last_modulation, self.out, self.augment):
            nn.init.zeros_(layer.weight)

    # -- the story ---------------------------------------------------------------------------------------------------

    def forward(self, z: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """x-hat (B, 3, S, S) of `z` (B, 3, S, S) at the times `t` (B,)."""
        c = F.silu(self.time(waves(t, self.config.width)) + condition.vector)
        shared = self.modulation(c).unflatten(1, (6, 1, -1))
        h = self.patches(patchify(z, self.config.patch)) + self.places.weight
        h = torch.cat([condition.tokens.to(h.dtype), h], 1)
        kept = next(self.blocks.parameters()).dtype
        if kept == torch.bfloat16:  # weights kept so: what they work on is too
            h, shared = h.to(kept), shared.to(kept)
        for block in self.blocks:
            h = block(h, shared)
        h = h[:, condition.tokens.shape[1] :].float()
        shift, scale = self.last_modulation(c).unsqueeze(1).chunk(2, -1)
        x = unpatchify(self.out(modulated(h, shift, scale)), self.config.patch)
        return x if self.seams is None else x + self.seams(x)

    def condition(self, captions: Tensor, untold: Tensor, styles: Tensor, augment: Tensor | None = None) -> Condition:
        """Captions as their reader gives them, with `untold` (B,) where there is none; styles (B,) from 1, 0 is any;
        `augment` (B, 5) says how the pictures were changed."""
        words = torch.where(untold[:, None], self.no_caption, self.caption_vectors(captions))
        vector = self.caption(words) + self.styles(styles)
        if augment is not None:
            vector = vector + self.augment(augment)
        if self.text_tokens is None:
            return Condition(vector, vector.new_zeros(len(vector), 0, self.config.width))
        return Condition(vector, self.text_tokens(words).unflatten(1, (self.config.text_tokens, -1)))

    def caption_vectors(self, captions: Tensor) -> Tensor:
        """(B, w) with entries of size 1 or so, from unit vectors (B, w) or from word numbers (B, L)."""
        if self.words is None:
            return captions.float() * math.sqrt(captions.shape[1])
        there = (captions > 0).unsqueeze(2)
        total = (self.words(captions.long()) * there).sum(1)
        return total / there.sum(1).clamp_min(1).sqrt()


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

    def forward(self, h: Tensor, shared: Tensor) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = (shared + self.own_bias.to(shared.dtype)).unbind(1)
        h = h + gate * self.attend(modulated(h, shift, scale))
        a, b = self.up(modulated(h, shift2, scale2)).chunk(2, -1)
        return h + gate2 * self.dropout(self.down(F.silu(a) * b))

    def attend(self, h: Tensor) -> Tensor:
        """Every token looks at every other."""
        q, k, v = self.qkv(h).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(normed(q, self.q_norm), normed(k, self.k_norm), v)
        return self.proj(seen.transpose(1, 2).flatten(2))


class Seams(nn.Module):
    """A small correction that looks across the borders of patches; nothing at first."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, 3, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.second(F.silu(self.first(x)))
        return found


# -- small things ----------------------------------------------------------------------------------------------------


def normed(h: Tensor, weight: Tensor) -> Tensor:
    """RMS-normed and scaled by `weight`, in the precision of `h`."""
    return F.rms_norm(h, h.shape[-1:], eps=1e-6) * weight.to(h.dtype)


def modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """RMS-normed, then scaled and shifted by (B, 1, d)."""
    return torch.addcmul(shift, F.rms_norm(h, h.shape[-1:], eps=1e-6), 1 + scale)


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
