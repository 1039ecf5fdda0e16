"""Painting with styles: what a request asks of a generator becomes a style for each layer, and files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genwright.core.content import Part
from genwright.core.errors import UsageError
from genwright.core.model import Request
from genwright.media.edit import finished

from .answers import seed_of, write
from .captions import words_of
from .pixels import to_bytes
from .style_options import StyleOptions


@dataclass(frozen=True)
class Portrait:
    """One picture to paint, the `number`-th of its request, from z of `seed`; `share` is how far it lies on the way to
    a second prompt or seed."""

    number: int
    how: StyleOptions
    words: str
    style: int
    seed: int
    share: float

    @property
    def way(self) -> float:
        """What must be equal of pictures that are painted together."""
        return self.how.snap


def planned(model: Any, request: Request) -> list[Portrait]:
    """What a request asks for, one entry a picture: of the seeds that follow one another, or on the way to a second
    prompt or seed. Without words it is any picture. Raises UsageError for what does not fit the model."""
    how = request.options_as(StyleOptions)
    if any(part.kind == "image" for message in request.messages for part in message.parts):
        raise UsageError(
            "This model paints from words and seeds, not from a picture.", "Use a flow_image model for that."
        )
    layers = model.config.layers
    if how.mix_from is not None and how.mix_from > layers:
        raise UsageError(f"mix_from is {how.mix_from}, but the model has {layers} layers.", f"Give 0 to {layers}.")
    style, seed, words = model.style_number(how.style or ""), seed_of(request), words_of(request.messages)
    if not how.toward and how.toward_seed is None:
        return [Portrait(i, how, words, style, seed + i, 0.0) for i in range(how.n)]
    return [Portrait(i, how, words, style, seed, i / max(1, how.n - 1)) for i in range(how.n)]


def painted(model: Any, some: Sequence[Portrait], files: Sequence[Path]) -> Iterator[Part]:
    """Pictures as files, with seed, style and what was mixed in `meta`, in one pass."""
    with model.answering() as generator:
        w = _styles(model, generator, some)
        noise = [one.to(w.device) for one in generator.noise_of(torch.Generator().manual_seed(0))]
        pixels = to_bytes(generator(w, noise), some[0].how.snap)
    yield Part(kind="image", meta={"progress": 1, "of": 1})
    for one, file, made in zip(some, files, pixels, strict=True):
        write(finished(made, one.how.size, design=one.how.design), file)
        mixed = {} if one.how.mix_seed is None else {"mix_seed": one.how.mix_seed}
        meta = {"number": one.number, "seed": one.seed, "style": one.how.style, "truncation": one.how.truncation}
        yield Part(kind="image", path=file, meta=meta | mixed)


def _styles(model: Any, generator: Any, some: Sequence[Portrait]) -> Tensor:
    """(B, layers, latent): first prompt and seed led over to the second, then the mixed seed in the finer layers."""
    layers = model.config.layers
    first = _truncated(model, generator, some, [one.words for one in some], [one.seed for one in some])
    share = torch.tensor([one.share for one in some], device=first.device)[:, None]
    if share.any():
        words = [one.how.toward or one.words for one in some]
        seeds = [one.seed if one.how.toward_seed is None else one.how.toward_seed for one in some]
        first = torch.lerp(first, _truncated(model, generator, some, words, seeds), share)
    if all(one.how.mix_seed is None for one in some):
        return first[:, None].expand(-1, layers, -1)
    seeds = [one.seed if one.how.mix_seed is None else one.how.mix_seed for one in some]
    second = _truncated(model, generator, some, [one.words for one in some], seeds)
    begins = [layers if one.how.mix_seed is None else _or(one.how.mix_from, layers // 2) for one in some]
    fine = torch.arange(layers, device=first.device) >= torch.tensor(begins, device=first.device)[:, None]
    return torch.where(fine[:, :, None], second[:, None], first[:, None])


def _truncated(
    model: Any, generator: Any, some: Sequence[Portrait], words: Sequence[str], seeds: Sequence[int]
) -> Tensor:
    """(B, latent) styles, drawn towards the mean style of the same words and style."""
    captions = torch.from_numpy(model.reader(words)).to(model.device)
    styles = torch.tensor([one.style for one in some], device=model.device)
    told = generator.told(captions, torch.zeros_like(styles, dtype=torch.bool), styles)
    z = torch.cat([z_of(seed, model.config.latent) for seed in seeds]).to(model.device)
    w, mean = generator.styles_of(z, told), generator.mean_style(told)
    return torch.lerp(mean, w, torch.tensor([one.how.truncation for one in some], device=w.device)[:, None])


def z_of(seed: int, latent: int) -> Tensor:
    """(1, latent) Gaussian noise, the same for the same seed on every device."""
    return torch.randn(1, latent, generator=torch.Generator().manual_seed(seed % (1 << 63)))


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value
