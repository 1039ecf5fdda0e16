"""Prior: a transformer that tells a picture's tokens one after the other, row by row, from what it is told (DALL-E,
Ramesh et al. 2021).

The blocks are those of `dit.py`, looking only back. The caption stands before the picture as a few tokens, and with
the style it also shifts, scales and gates every block. Answering keeps keys and values, so a token costs one position.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dit import Block, waves_2d
from .dit_fused import gated, looked, modulated, rms
from .told import Condition, Told


class Prior(Told):
    """`config` is a `DalleConfig`, `reader_width` the width of a caption's vector, `styles` a count."""

    blocks: Any  # nn.ModuleList of Block
    dtype = torch.float32  # what the blocks are given without autocast

    def __init__(self, config: Any, reader_width: int, styles: int):
        super().__init__()
        self.shape, d = config, config.width
        self.tokens = nn.Embedding(config.codes + 1, d)  # the last is what stands before the first
        self.places = nn.Embedding(config.grid**2, d)  # of the token that is to be told
        self.hear(config, reader_width, styles)
        self.modulation = nn.Linear(d, 6 * d)
        hidden = round(config.mlp * d / 32) * 32
        self.blocks = nn.ModuleList(Block(d, config.heads, hidden) for _ in range(config.depth))
        self.last_modulation = nn.Linear(d, 2 * d)
        self.out = nn.Linear(d, config.codes)
        self._begin()

    def _begin(self) -> None:
        """Small random weights; blocks that pass on what they get, and every token equally likely."""
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        nn.init.normal_(self.tokens.weight, std=0.5)
        self.places.weight.data.copy_(waves_2d(self.shape.grid, self.shape.width))
        self.begin_hearing()
        for layer in (self.modulation, self.last_modulation, self.out):
            nn.init.zeros_(layer.weight)

    def forward(self, tokens: Tensor, condition: Condition) -> Tensor:
        """Logits (B, L, codes) of each of the `tokens` (B, L) from those before it."""
        first = tokens.new_full((len(tokens), 1), self.shape.codes)
        h = torch.cat([condition.tokens.float(), self._seen(torch.cat([first, tokens[:, :-1]], 1), 0)], 1)
        shared, last = self._steered(condition)
        dtype = self._inside(h)
        ahead = torch.full((h.shape[1], h.shape[1]), float("-inf"), dtype=dtype, device=h.device).triu(1)
        for block in self.blocks:
            h = block(h, shared, dtype, partial(looked, mask=ahead))
        return self._logits(h[:, condition.tokens.shape[1] :], last)

    def telling(self, condition: Condition) -> Telling:
        """What tells token after token for these rows, with keys and values kept."""
        return Telling(self, condition)

    def in_dtype(self, dtype: torch.dtype) -> None:
        """Keep the large weights in `dtype`, for answering; with int8 the blocks multiply whole numbers."""
        self.dtype = torch.float32 if dtype == torch.int8 else dtype
        for block in self.blocks:
            block.in_dtype(dtype)

    def _inside(self, h: Tensor) -> torch.dtype:
        """The precision of matrix products: autocast's, else that of the weights."""
        kind = h.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.dtype

    def _seen(self, tokens: Tensor, place: int) -> Tensor:
        """(B, t, d) of the tokens (B, t) that stand before the places from `place` on."""
        h: Tensor = self.tokens(tokens) + self.places.weight[place : place + tokens.shape[1]]
        return h

    def _steered(self, condition: Condition) -> tuple[Tensor, Tensor]:
        """How the blocks are shifted, scaled and gated, (B, 6, 1, d), and the last norm, (B, 2, 1, d)."""
        c = F.silu(condition.vector)
        blocks, last = self.modulation(c).float(), self.last_modulation(c).float()
        return blocks.unflatten(1, (6, 1, -1)), last.unflatten(1, (2, 1, -1))

    def _logits(self, h: Tensor, last: Tensor) -> Tensor:
        shift, scale = last.unbind(1)
        found: Tensor = self.out(modulated(h, shift, scale, h.dtype))
        return found.float()


class Telling:
    """Pictures under way: `step` takes the tokens drawn last and gives the logits of the next."""

    def __init__(self, prior: Prior, condition: Condition):
        self.prior, self.place = prior, 0
        self.shared, self.last = prior._steered(condition)
        self.before = condition.tokens.float()
        room = self.before.shape[1] + prior.shape.grid**2
        self.steps = [_Step(block, self.shared, room) for block in prior.blocks]

    def step(self, tokens: Tensor | None = None) -> Tensor:
        """Logits (B, codes); `tokens` (B,) are None the first time."""
        if tokens is None:
            tokens = torch.full((len(self.shared),), self.prior.shape.codes, device=self.shared.device)
        h = self.prior._seen(tokens[:, None], self.place)
        if self.place == 0:
            h = torch.cat([self.before, h], 1)
        dtype = self.prior._inside(h)
        for step in self.steps:
            h = step(h, dtype)
        self.place += 1
        return self.prior._logits(h[:, -1:], self.last)[:, 0]


class _Step:
    """One `Block` asked token by token, as it answers itself: how it is steered is worked out once, its keys and values
    are kept, and there are half as many operations, which is what a step of a few rows costs."""

    def __init__(self, block: Any, shared: Tensor, room: int):
        shift, scale, self.gate, shift2, scale2, self.gate2 = (shared + block.own_bias).unbind(1)
        self.first, self.second = (shift, 1 + scale), (shift2, 1 + scale2)
        self.block, self.room, self.end = block, room, 0
        self.sharp = block.q_norm * block.k_norm * len(block.q_norm) ** -0.5  # on the queries it does for both
        self.kept: Tensor | None = None

    def __call__(self, h: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, t, d) of the t places that come next -> the same."""
        block = self.block
        h = torch.addcmul(h, self.gate, block.proj(self._seen(block.qkv(_steered(h, *self.first, dtype)))).float())
        inside = gated(block.up(_steered(h, *self.second, dtype)))
        return torch.addcmul(h, self.gate2, block.down(inside).float())

    def _seen(self, qkv: Tensor) -> Tensor:
        b, t, _ = qkv.shape
        parts = qkv.view(b, t, 3, self.block.heads, -1)
        both = parts[:, :, :2].float()
        q, k = (both * rms(both)).unbind(2)
        q, k, v = ((q * self.sharp).to(qkv.dtype).transpose(1, 2), k.transpose(1, 2), parts[:, :, 2].transpose(1, 2))
        if self.kept is None:
            self.kept = v.new_empty(2, *v.shape[:2], self.room, v.shape[3])
        begin, self.end = self.end, self.end + t
        self.kept[0, :, :, begin : self.end], self.kept[1, :, :, begin : self.end] = k, v
        keys, values = self.kept[:, :, :, : self.end]
        if t > 1:
            seen = F.scaled_dot_product_attention(q, keys, values, is_causal=begin == 0, scale=1.0)
        else:  # one row looks at all: two products, which take a third of the time
            seen = (q @ keys.transpose(2, 3)).softmax(-1) @ values
        return seen.transpose(1, 2).flatten(2)


def _steered(h: Tensor, shift: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.addcmul(shift, h * rms(h), scale).to(dtype)
