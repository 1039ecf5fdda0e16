"""Painting: what is asked of a picture model becomes noise, steps and files; or a given picture, painted anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genwright.core.content import Message, Part
from genwright.core.errors import UsageError
from genwright.core.model import Request
from genwright.media.edit import Canvas, canvas_of, finished
from genwright.media.enlarge import network_of

from . import diffusion
from .answers import AT_ONCE, answer, answer_many, seed_of, write
from .captions import words_of
from .flow_options import PictureOptions
from .gathering import Gathered
from .pixels import from_bytes, noise_of, to_bytes
from .told import Condition, told_of

_APART = 1_000_003  # between the seeds of a picture's candidates
_ASKED = (0.7, 0.85, 0.95)  # times at which candidates are compared


@dataclass(frozen=True)
class Painting:
    """One picture to paint: the `number`-th of its request, from noise of `seed` at time `start`. `share` is how far it
    lies on the way to a second prompt or picture."""

    number: int
    how: PictureOptions
    words: str
    style: int
    seed: int
    start: float
    share: float
    canvases: tuple[Canvas, ...]

    @property
    def way(self) -> tuple[Any, ...]:
        """What must be equal of pictures that are painted together."""
        how = self.how
        steps = (how.steps, how.sampler, how.guidance, how.interval, how.partial, how.snap, how.candidates)
        return (*steps, self.start, bool(how.toward), bool(self.canvases))


def paint(model: Any, request: Request) -> Iterator[Part]:
    """Pictures as files, with seed and style in `meta`; before them a part without file a step (`meta["progress"]`)
    and, when `partial` asks, unfinished pictures (`meta["partial"]`); at last a `finish_reason`.

    Words describe what is to be seen. A picture among the parts is varied by `strength`, or painted over where a
    part with the text "mask" allows it; two are mixed. Raises UsageError for options or pictures that do not fit.
    """
    return answer(request, partial(_paintings, model), partial(_painted, model))


def paint_many(model: Any, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
    """Answers of many requests, those that ask for the same steps painted together."""
    return answer_many(requests, partial(_paintings, model), partial(_painted, model))


def gathered(model: Any) -> Gathered:
    """The model for many askers at once: what they ask for is painted together where it goes the same way."""
    return Gathered(model, partial(_paintings, model), partial(_painted, model), AT_ONCE, ".png")


def _paintings(model: Any, request: Request) -> list[Painting]:
    """What a request asks for, one entry a picture."""
    how = request.options_as(PictureOptions)
    style = model.style_number(how.style or "")
    canvases = canvas_of(request.messages, how.expand)
    words = words_of(request.messages)
    if not words.strip() and not canvases:
        raise UsageError("There is nothing to paint: the request has no words.", "Say what is to be seen.")
    edited = bool(canvases) and not canvases[0].is_free
    resized = edited and how.size and set(canvases[0].free.shape) != {how.size}
    if resized or (edited and len(canvases) > 1):
        odd = "a size of its own" if resized else "a second picture"
        raise UsageError(f"A picture with a mask or with room added cannot have {odd}.", "Leave one of them out.")
    if edited and request.out and request.out.suffix.lower() not in ("", ".png"):
        raise UsageError(f"What stays of a picture would change in a {request.out.suffix} file.", "Write a .png.")
    if edited and (how.upscale or how.design):
        name = "upscale" if how.upscale else "design"
        raise UsageError("What stays of a picture would change if it were made into another.", f"Leave `{name}` out.")
    if how.upscale:
        network_of(how.upscale)  # that it is here is known before anything is painted
    start = (how.strength or (1.0 if edited else 0.7)) if canvases else 1.0
    seed = seed_of(request)
    mixed = bool(how.toward) or len(canvases) > 1
    seeds, last = ([seed] * how.n, max(1, how.n - 1)) if mixed else (range(seed, seed + how.n), 0)
    return [
        Painting(i, how, words, style, one, start, i / last if last else 0.0, tuple(canvases))
        for i, one in enumerate(seeds)
    ]


def _painted(model: Any, some: Sequence[Painting], files: Sequence[Path]) -> Iterator[Part]:
    """Paint together what goes the same way, and write it."""
    how, start, size = some[0].how, some[0].start, model.config.size
    steps, scale, (low, high) = how.steps, how.guidance, how.interval
    shown = {round(steps * k / (how.partial + 1)) for k in range(1, how.partial + 1)} - {0, steps}
    given, free = (part.to(model.device) for part in _given(some, size))
    with model.answering() as module:
        told, untold = _told(model, module, some), _told(model, module, some, negative=True)
        both = told.beside(untold)

        def predict(z: Tensor, t: float) -> Tensor:
            if scale == 1 or not low <= t <= high:
                x = module(z, z.new_full((len(z),), t), told)
            else:
                x = module(torch.cat([z, z]), z.new_full((2 * len(z),), t), both)
                with_words, without = x.chunk(2)
                x = diffusion.guided(with_words, without, scale)
            return torch.where(free, x, given)

        made = list[Tensor]()
        for turn in range(how.candidates):
            z = torch.cat([noise_of(one.seed + turn * _APART, size) for one in some]).to(model.device)
            walk = diffusion.walk(
                predict, diffusion.mix(given, z, start), diffusion.times(steps, start), method=how.sampler
            )
            for step, (_, x) in enumerate(walk, 1):
                if turn == 0 and step in shown:
                    yield from _written(some, files, to_bytes(x, how.snap), {"partial": step, "of": steps})
                yield Part(kind="image", meta={"progress": turn * steps + step, "of": how.candidates * steps})
            made.append(x)
        best = _explained(module, torch.stack(made), both) if how.candidates > 1 else made[0]
    yield from _written(some, files, to_bytes(best, how.snap), {"steps": steps})


def _explained(module: Any, made: Tensor, both: Condition) -> Tensor:
    """Of candidates (K, B, 3, S, S) for each of B pictures the one (B, 3, S, S) whose noise the network takes away
    better when it is told the words than when it is not, by the most (a diffusion classifier, Li et al. 2023)."""
    gains = torch.zeros(made.shape[:2], device=made.device)
    for number, t in enumerate(_ASKED):
        noise = noise_of(number, made.shape[-1]).to(made.device)
        for k, x in enumerate(made):
            z = diffusion.mix(x, noise.expand_as(x), t)
            found = module(torch.cat([z, z]), z.new_full((2 * len(z),), t), both)
            told, untold = (found - torch.cat([x, x])).square().flatten(1).mean(1).chunk(2)
            gains[k] += (untold - told) / untold
    return made[gains.argmax(0), torch.arange(made.shape[1], device=made.device)]


def _told(model: Any, module: Any, some: Sequence[Painting], *, negative: bool = False) -> Condition:
    """What each picture is painted by, or what it should be unlike."""
    words = [one.how.negative if negative else one.words for one in some]
    styles = [0 if negative else one.style for one in some]
    first = told_of(model, module, words, styles)
    if negative or not some[0].how.toward:
        return first
    second = told_of(model, module, [one.how.toward for one in some], styles)
    share = torch.tensor([one.share for one in some]).to(model.device)
    return Condition(
        torch.lerp(first.vector, second.vector, share[:, None]),
        torch.lerp(first.tokens, second.tokens, share[:, None, None]),
    )


def _given(some: Sequence[Painting], size: int) -> tuple[Tensor, Tensor]:
    """(B, 3, S, S) what is painted upon and (B, 1, S, S) where it may change; all of nothing without a picture."""
    if not some[0].canvases:
        return torch.zeros(len(some), 3, size, size), torch.ones(1, 1, size, size, dtype=torch.bool)
    pixels, masks = [], []
    for one in some:
        small = [canvas.small(size) for canvas in one.canvases]
        first, last = (from_bytes(torch.from_numpy(small[k][0])[None]) for k in (0, -1))
        pixels.append(torch.lerp(first, last, one.share))
        masks.append(torch.from_numpy(small[0][1])[None, None])
    return torch.cat(pixels), torch.cat(masks)


def _written(
    some: Sequence[Painting], files: Sequence[Path], pixels: np.ndarray, facts: dict[str, Any]
) -> Iterator[Part]:
    for one, file, made in zip(some, files, pixels, strict=True):
        path = file.with_name(f"{file.stem}.step-{facts['partial']}{file.suffix}") if "partial" in facts else file
        if one.canvases and not one.canvases[0].is_free:
            picture = one.canvases[0].filled(made)
        else:
            last = "partial" not in facts
            network = network_of(one.how.upscale) if one.how.upscale and last else None
            picture = finished(made, one.how.size, network, one.how.design if last else None)
        write(picture, path, quality=one.how.quality)
        size = {"width": picture.width, "height": picture.height}
        meta = {"number": one.number, "seed": one.seed, "style": one.how.style, **size, **facts}
        yield Part(kind="image", path=path, meta=meta)
