"""Told: what a network is told of the picture to make: caption, style, and how a training picture was changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .picture_rows import caption_vectors
from .pixels import AUGMENTS


@dataclass(frozen=True)
class Condition:
    """What a picture is painted by: `vector` (B, d) and `tokens` (B, k, d)."""

    vector: Tensor
    tokens: Tensor

    def __getitem__(self, rows: Any) -> Condition:
        return Condition(self.vector[rows], self.tokens[rows])

    def beside(self, other: Condition) -> Condition:
        """The rows of both, one after the other."""
        return Condition(torch.cat([self.vector, other.vector]), torch.cat([self.tokens, other.tokens]))


class Told(nn.Module):
    """A network that is told things. Inherited, not held, so that weights of saved models keep their names."""

    words: nn.Embedding | None
    text_tokens: nn.Linear | None

    def hear(self, config: Any, reader_width: int, styles: int) -> None:
        """Make the parts that listen. `config` is a `CaptionedConfig`, `reader_width` that of a caption's vector."""
        d = config.width
        self.caption = nn.Sequential(nn.Linear(reader_width, d), nn.SiLU(), nn.Linear(d, d))
        self.no_caption = nn.Parameter(torch.zeros(reader_width))
        self.styles = nn.Embedding(styles + 1, d)  # 0: any style
        self.augment = nn.Linear(AUGMENTS, d, bias=False)
        self.words = nn.Embedding(config.words + 1, reader_width) if config.text_encoder == "learned" else None
        self.text_tokens = nn.Linear(reader_width, config.text_tokens * d) if config.text_tokens else None

    def begin_hearing(self) -> None:
        """Small random weights for the tables; changes of pictures mean nothing at first."""
        nn.init.normal_(self.styles.weight, std=0.02)
        if self.words is not None:
            nn.init.normal_(self.words.weight, std=1.0)
        nn.init.zeros_(self.augment.weight)

    def condition(self, captions: Tensor, untold: Tensor, styles: Tensor, augment: Tensor | None = None) -> Condition:
        """Captions as their reader gives them, with `untold` (B,) where there is none; styles (B,) from 1, 0 is any;
        `augment` (B, 5) says how the pictures were changed."""
        words = torch.where(untold[:, None], self.no_caption, self.caption_vectors(captions))
        vector = self.caption(words) + self.styles(styles)
        if augment is not None:
            vector = vector + self.augment(augment)
        if self.text_tokens is None:
            return Condition(vector, vector.new_zeros(len(vector), 0, vector.shape[1]))
        return Condition(vector, self.text_tokens(words).unflatten(1, (-1, vector.shape[1])))

    def caption_vectors(self, captions: Tensor) -> Tensor:
        """(B, w) with entries of size 1 or so, of captions as their reader gives them."""
        return caption_vectors(captions, self.words)


def told_of(model: Any, module: Any, words: Sequence[str], styles: Sequence[int]) -> Condition:
    """What `module` is to paint by: words (blank: nothing is told) read by the model's reader, and styles (0: any)."""
    blank = torch.tensor([not text.strip() for text in words], device=model.device)
    captions = torch.from_numpy(model.reader(words)).to(model.device)
    found: Condition = module.condition(captions, blank, torch.tensor(styles, device=model.device))
    return found
