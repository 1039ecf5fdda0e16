"""DALL-E: a learner that writes pictures as tokens, and tells the tokens of a picture from words (Ramesh et al. 2021).

Two networks: an autoencoder turns pictures into tokens and back, a transformer tells tokens from a caption. They are
taught one after the other (`teach: pictures`, then `words` from that run), or together in one run, which takes longer
to the same result, for the tokens change while they are learned. Words never change what the tokens are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genwright.core.content import Message, Part
from genwright.core.data import Example
from genwright.core.errors import UsageError
from genwright.core.model import Request, Unlearnable

from .answers import AT_ONCE
from .dalle_options import TokenOptions
from .dalle_painting import gathered, paint, paint_many
from .dalle_pictures import Autoencoder
from .dalle_prior import Prior
from .gathering import Gathered
from .picture_learner import PictureLearner
from .picture_rows import Pictures
from .pixels import augmented, from_bytes
from .token_counts import TokenCounts

STUDIED = 4096  # training pictures whose tokens are counted, for what counting alone would tell
Teach = Literal["both", "pictures", "words"]


class Dalle(nn.Module):
    """The two networks: `pictures` and `prior`."""

    def __init__(self, config: object, reader_width: int, styles: int):
        super().__init__()
        self.pictures = Autoencoder(config)
        self.prior = Prior(config, reader_width, styles)

    def in_dtype(self, dtype: torch.dtype) -> None:
        """For answering: the transformer's large weights in `dtype`; the decoder stays as it is, it runs once."""
        self.prior.in_dtype(dtype)


class VqImage(PictureLearner):
    """Learner, Batched and Measurer of the floor's contracts."""

    engine = "vq_image"
    options = TokenOptions  # what a request may ask for
    network = Dalle
    _counts: TokenCounts | None = None

    @property
    def told(self) -> Prior:
        found: Prior = self.module.prior
        return found

    @property
    def slots(self) -> int:
        """A picture's tokens."""
        return int(self.config.grid) ** 2

    # -- learning ----------------------------------------------------------------------------------------------------

    def loss(self, batch: Pictures, *, label_smoothing: float = 0.0, **other: Any) -> Tensor:
        """What both networks have to learn, summed over the pictures: see `losses`. Raises UsageError for options of
        other objectives."""
        if other:
            raise UsageError(
                "A model of picture tokens is taught by another objective.", "Write `objective: image_tokens`."
            )
        pictures, words = self.losses(batch, label_smoothing=label_smoothing)
        return pictures + words

    def losses(
        self, batch: Pictures, *, teach: Teach = "both", untold: float = 0.1, augment: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Summed over the pictures: bits a number of their pixels when the tokens are known, and bits a token.

        What is not taught is 0. In training a share `untold` is told nothing (so that there is something to guide away
        from) and as many no style; a share `augment` is changed, and the transformer is told how.
        """
        pixels, styles, device = batch.pixels, batch.styles, batch.pixels.device
        gone, changes = torch.zeros(2, len(pixels), dtype=torch.bool, device=device), None
        if self.module.training:
            gone = torch.rand(2, len(pixels), device=device) < untold
            styles = styles.masked_fill(gone.any(0), 0)
            if augment:
                x, changes = augmented(from_bytes(pixels), augment)
                pixels = (x.clamp(-1, 1) + 1).mul(127.5).round().permute(0, 2, 3, 1)
        pictures = words = torch.zeros((), device=device)
        if teach == "words":
            with torch.no_grad():
                tokens = self.module.pictures.tokens(from_bytes(pixels))
        else:
            bits, tokens = self.module.pictures(pixels)
            pictures = bits.sum()
        if teach != "pictures":
            told = self.told.condition(batch.captions, gone[0], styles, changes)
            logits = self.told(tokens, told)
            nats = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="sum",
                                   label_smoothing=label_smoothing)  # fmt: skip
            words = nats / (math.log(2) * self.slots)
        return pictures, words

    # -- being measured ----------------------------------------------------------------------------------------------

    def study(self, train: Sequence[Example]) -> None:
        """Count the tokens of training rows, so that `measure` tells what counting alone would have told."""
        seen: list[np.ndarray] = []
        for example in islice(train, STUDIED):
            with suppress(Unlearnable):
                seen.append(self.encode(example).sequences[0]["pixels"])
        with self.answering() as module:
            tokens = [
                module.pictures.tokens(from_bytes(torch.from_numpy(np.stack(seen[i : i + AT_ONCE])).to(self.device)))
                for i in range(0, len(seen), AT_ONCE)
            ]
        self._counts = TokenCounts(torch.cat(tokens).cpu().numpy(), self.config.codes) if tokens else None

    def measure(self, examples: Sequence[Example]) -> Iterator[Mapping[str, float]]:
        """Of each row, by its first caption: `token bits` (a token, by the words), `untold` (without them), `bits/dim`
        (of the whole picture, tokens and what they leave open), `squared error` (of colours from 0 to 1) and, after
        `study`, bits a token by counting: `order 0`, `order 1`; `codes`: the share of all tokens that training
        pictures use. Raises UsageError for a row without picture."""
        for start in range(0, len(examples), AT_ONCE):
            batch = self.fixed(examples[start : start + AT_ONCE])
            x = from_bytes(batch.pixels)
            with self.answering() as module:
                tokens = module.pictures.tokens(x)
                picture = module.pictures.painted(tokens)
                found = {
                    "token bits": self._token_bits(module.prior, batch, tokens),
                    "untold": self._token_bits(module.prior, batch, tokens, untold=True),
                    "squared error": (picture.clamp(-1, 1) - x).square().flatten(1).mean(1) / 4,
                }
                rest = module.pictures.bits(picture, batch.pixels)
            found["bits/dim"] = rest + found["token bits"] * self.slots / (3 * self.config.size**2)
            rows = {name: values.tolist() for name, values in found.items()}
            if self._counts:
                rows |= self._counts.bits(tokens.cpu().numpy())
            for row in zip(*rows.values(), strict=True):
                yield dict(zip(rows, row, strict=True)) | ({"codes": self._counts.used} if self._counts else {})

    def _token_bits(self, prior: Prior, batch: Pictures, tokens: Tensor, *, untold: bool = False) -> Tensor:
        """(B,) bits a token; untold: without caption and style."""
        gone = torch.full_like(batch.styles, untold, dtype=torch.bool)
        told = prior.condition(batch.captions, gone, batch.styles.masked_fill(gone, 0))
        nats = F.cross_entropy(prior(tokens, told).transpose(1, 2), tokens, reduction="none")
        return nats.mean(1) / math.log(2)

    # -- answering ---------------------------------------------------------------------------------------------------

    def generate(self, request: Request) -> Iterator[Part]:
        """Pictures as files, token by token: see `dalle_painting.paint`."""
        return paint(self, request)

    def generate_many(self, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
        """Answers of many requests, those that ask in the same way painted together."""
        return paint_many(self, requests)

    def shared(self) -> Gathered:
        """For many threads that ask at once: see `gathering`."""
        return gathered(self)
