"""A small GPT over words of its own (Radford et al. 2019), handed what is known of each place without learning:
where the pen is, how much of a bar is left. Nobody need add up steps to see where a line or a bar would end.

A caption's vector, where there are captions, is added at every place. Which words may stand somewhere is the grammar's
to say (media/strokes.py, media/score.py), and the learner's to keep to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genwright.core.data import Example
from genwright.core.model import Encoded, Likelihood, Unlearnable

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
_AT_ONCE = 64  # rows whose likelihood is told together
_WASTE = 1.25  # slots of a padded run of attention for each real one


class SmallLM(nn.Module):
    """`shape` has width, depth, heads, mlp and longest; `words` is how many there are, `known` how many values each
    fact of a place may have. `reader_width` is that of a caption's vector (0: nothing is told), `bag` the number of its
    words where it is a bag of words that is learned too. `ways` is in how many ways a row may be altered, which it is
    told (Karras et al. 2020): way 0 is unaltered."""

    blocks: Any  # nn.ModuleList of Block
    bag: nn.Embedding | None

    def __init__(self, shape: Any, words: int, known: Sequence[int], *, reader_width: int = 0, bag: int = 0,
                 ways: int = 0):  # fmt: skip
        super().__init__()
        self.shape, d = shape, shape.width
        self.words = nn.Embedding(words + 1, d)  # the last begins a row
        self.known = nn.ModuleList(nn.Embedding(size, d) for size in known)
        self.places = nn.Embedding(shape.longest, d)
        self.bag = nn.Embedding(bag + 1, reader_width) if bag else None
        if reader_width:
            self.caption = nn.Linear(reader_width, d)
            self.no_caption = nn.Parameter(torch.zeros(reader_width))
        self.dropout = nn.Dropout(0.0)  # set by train.dropout
        self.blocks = nn.ModuleList(Block(d, shape.heads, round(shape.mlp * d)) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(d)
        self.out = nn.Linear(d, words)
        if ways:
            self.ways = nn.Embedding(ways, d, padding_idx=0)
        self._begin()

    def _begin(self) -> None:
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=0.02)
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)
        for block in self.blocks:
            for layer in (block.proj, block.down):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * len(self.blocks)))
        if self.bag is not None:
            nn.init.normal_(self.bag.weight, std=1.0)
        if hasattr(self, "ways"):
            nn.init.zeros_(self.ways.weight)

    # -- the story ---------------------------------------------------------------------------------------------------

    def forward(
        self, before: Tensor, known: Sequence[Tensor], place: Tensor, told: Tensor | None, attend: Attend
    ) -> Tensor:
        """Logits (N, words) of N places.

        `before` (N,) is the word before each (`words` where there is none), `known` its facts, each (N,); `place` (N,)
        its number in its row, `told` (N, d) its caption. `attend(layer, q, k, v)`, each (N, heads, d / heads), says who
        sees whom.
        """
        h = self.words(before) + self.places(place)
        for table, fact in zip(self.known, known, strict=True):
            h = h + table(fact)
        if told is not None:
            h = h + told
        h = self.dropout(h)
        for number, block in enumerate(self.blocks):
            h = block(h, lambda q, k, v, number=number: attend(number, q, k, v))
        logits: Tensor = self.out(self.norm(h)).float()
        return logits

    def told(self, captions: Tensor, untold: Tensor) -> Tensor:
        """(B, d) of captions as their reader gives them; `untold` (B,) says where there is none."""
        if self.bag is None:
            words = captions.float() * math.sqrt(captions.shape[1])
        else:
            there = (captions > 0).unsqueeze(2)
            words = (self.bag(captions.long()) * there).sum(1) / there.sum(1).clamp_min(1).sqrt()
        told: Tensor = self.caption(torch.where(untold[:, None], self.no_caption, words))
        return told


class Block(nn.Module):
    """Attention and an inner layer over (N, d), normed before."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(0.0)

    def forward(self, h: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        q, k, v = self.qkv(self.norm1(h)).unflatten(1, (3, self.heads, -1)).unbind(1)
        h = h + self.dropout(self.proj(attend(q, k, v).flatten(1)))
        return h + self.dropout(self.down(F.gelu(self.up(self.norm2(h)))))


def end_to_end(lengths: Sequence[int], device: torch.device) -> Attend:
    """Who sees whom where rows lie end to end: each place what stands before it in its own row.

    Neighbours of like length are padded to one batch; what is padded stands last, where nobody sees it.
    """
    runs, done, begin = [], 0, 0
    for count, longest in _runs(lengths):
        sizes = torch.tensor(lengths[done : done + count])
        starts = begin + sizes.cumsum(0) - sizes
        steps = torch.arange(longest)
        real = steps < sizes[:, None]
        index = torch.where(real, starts[:, None] + steps, begin)
        runs.append((index.to(device), real.flatten().nonzero()[:, 0].to(device)))
        done, begin = done + count, begin + int(sizes.sum())

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        found = []
        for index, real in runs:
            asked, keys, values = (one[index].transpose(1, 2) for one in (q, k, v))
            seen = F.scaled_dot_product_attention(asked, keys, values, is_causal=True)
            found.append(seen.transpose(1, 2).flatten(0, 1)[real])
        return torch.cat(found)

    return attend


def _runs(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbours that are padded together: [(how many, longest), …]."""
    found: list[tuple[int, int]] = []
    count = real = longest = 0
    for length in lengths:
        if count and max(longest, length) * (count + 1) > _WASTE * (real + length):
            found.append((count, longest))
            count = real = longest = 0
        count, real, longest = count + 1, real + length, max(longest, length)
    return [*found, (count, longest)]


class Cache:
    """Rows that are written together, a place at a time: their keys and values, and the net to ask."""

    def __init__(self, net: SmallLM, rows: int, device: torch.device):
        self.net, shape = unwrapped(net), net.shape
        size = (2, rows, shape.heads, shape.longest, shape.width // shape.heads)
        self.layers = [torch.zeros(size, device=device) for _ in net.blocks]
        self.place = 0

    def next(self, before: Tensor, known: Sequence[Tensor], told: Tensor | None) -> Tensor:
        """Logits (B, words) of the next place of each row: see `SmallLM.forward`."""
        logits: Tensor = self.net(before, known, torch.full_like(before, self.place), told, self.attend)
        self.place += 1
        return logits

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Each row sees its own places up to this one."""
        keys, values = self.layers[layer]
        keys[:, :, self.place], values[:, :, self.place] = k, v
        seen = slice(self.place + 1)
        found = F.scaled_dot_product_attention(q.unsqueeze(2), keys[:, :, seen], values[:, :, seen])
        return found.squeeze(2)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        self.layers = [layer[:, rows] for layer in self.layers]


def unwrapped(part: nn.Module) -> Any:
    """What `part` does, without the bookkeeping of modules, which is a fifth of the time of a small step. Its weights
    are those of `part`; what is not known here (an adapter) stays as it is."""
    if type(part) is nn.Dropout and not part.training:
        return lambda x: x
    if type(part) is nn.Linear:
        return partial(F.linear, weight=part.weight, bias=part.bias)
    if type(part) is nn.LayerNorm:
        norm = partial(F.layer_norm, weight=part.weight, bias=part.bias, eps=part.eps)
        return lambda x, shape=part.normalized_shape: norm(x, shape)
    if type(part) is nn.Embedding:
        return lambda index, table=part.weight: table[index]
    if type(part) is nn.ModuleList:
        return [unwrapped(one) for one in part]
    if isinstance(part, SmallLM | Block):
        inside = {name: unwrapped(one) for name, one in part.named_children()}
        stands_for: Any = SimpleNamespace(**inside, heads=getattr(part, "heads", 0))
        return partial(type(part).forward, stands_for)
    return part


def likelihood_of(
    examples: Sequence[Example], encode: Callable[[Example], Encoded], each: Callable[[Sequence[Any]], list[Likelihood]]
) -> Iterator[Likelihood]:
    """What a model makes of the answer of each example: `each` tells it of encoded rows, some together. A row that
    cannot be learned from counts nothing: its likelihood is of no words."""
    for start in range(0, len(examples), _AT_ONCE):
        rows: list[Any] = []
        for example in examples[start : start + _AT_ONCE]:
            try:
                rows.append(encode(example).sequences[0])
            except Unlearnable:
                rows.append(None)
        there = [row for row in rows if row is not None]
        found = iter(each(there) if there else ())
        yield from (next(found) if row is not None else Likelihood(0.0, 0, 0) for row in rows)


def drawn(logits: Tensor, temperature: Tensor, top_p: Tensor, chance: Tensor) -> tuple[list[int], list[float]]:
    """A word a row by its `chance` (0 to 1), from the likeliest that have the share `top_p`; and its
    log-probability."""
    plain = logits.log_softmax(-1)
    sharp = (logits / temperature.clamp_min(1e-4)[:, None]).softmax(-1)
    shares, order = sharp.sort(stable=True, dim=-1, descending=True)
    total = shares.cumsum(-1)
    kept = shares * (total - shares < top_p[:, None])
    total = kept.cumsum(-1)
    place = (total <= chance[:, None] * total[:, -1:]).sum(-1, keepdim=True)
    place = place.clamp_max((kept > 0).sum(-1, keepdim=True) - 1)
    place = torch.where(temperature[:, None] > 0, place, torch.zeros_like(place))
    words = order.gather(1, place)
    return words[:, 0].tolist(), plain.gather(1, words)[:, 0].tolist()
