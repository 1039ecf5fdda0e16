"""Painting by tokens: what is asked becomes tokens drawn one after the other, the best of several, and files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genwright.core.content import Message, Part
from genwright.core.errors import UsageError
from genwright.core.model import Request
from genwright.media.edit import canvas_of, finished
from genwright.media.enlarge import network_of

from .answers import AT_ONCE, answer, answer_many, seed_of, write
from .captions import words_of
from .dalle_options import TokenOptions
from .diffusion import guided
from .gathering import Gathered
from .pixels import to_bytes
from .told import told_of

CANDIDATES = 32  # drawn together, of as many pictures as they belong to


@dataclass(frozen=True)
class Drawing:
    """One picture to paint: the `number`-th of its request, by chance from `seed`."""

    number: int
    how: TokenOptions
    words: str
    style: int
    seed: int

    @property
    def way(self) -> tuple[Any, ...]:
        """What must be equal of pictures that are painted together."""
        how = self.how
        return (how.guidance, how.temperature, how.top_k, how.top_p, how.candidates)


def paint(model: Any, request: Request) -> Iterator[Part]:
    """Pictures as files, with seed and style in `meta`, and of several candidates how much likelier the words make the
    one that was kept (`meta["score"]`, in bits); before them a part without file a token (`meta["progress"]`); at last
    a `finish_reason`. Raises UsageError for options that do not fit, and for a picture that is given.
    """
    return answer(request, partial(_drawings, model), partial(_painted, model))


def paint_many(model: Any, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
    """Answers of many requests, those that ask in the same way painted together."""
    return answer_many(requests, partial(_drawings, model), partial(_painted, model))


def gathered(model: Any) -> Gathered:
    """The model for many askers at once: what they ask for is painted together where it goes the same way."""
    return Gathered(model, partial(_drawings, model), partial(_painted, model), AT_ONCE, ".png")


def _drawings(model: Any, request: Request) -> list[Drawing]:
    """What a request asks for, one entry a picture."""
    how = request.options_as(TokenOptions)
    style = model.style_number(how.style or "")
    words = words_of(request.messages)
    if canvas_of(request.messages):
        raise UsageError("This model paints from words alone, and a picture was given.", "Use one of flow_image.")
    if not words.strip():
        raise UsageError("There is nothing to paint: the request has no words.", "Say what is to be seen.")
    if how.upscale:
        network_of(how.upscale)  # that it is here is known before anything is painted
    seed = seed_of(request)
    return [Drawing(number, how, words, style, seed + number) for number in range(how.n)]


def _painted(model: Any, some: Sequence[Drawing], files: Sequence[Path]) -> Iterator[Part]:
    """Paint together what goes the same way, and write it."""
    how, at_once = some[0].how, max(1, CANDIDATES // some[0].how.candidates)
    for start in range(0, len(some), at_once):
        here = some[start : start + at_once]
        with model.answering() as module:
            told = told_of(model, module.prior, [one.words for one in here], [one.style for one in here])
            untold = told_of(model, module.prior, [one.how.negative for one in here], [0] * len(here))
            each = torch.arange(len(here), device=model.device).repeat_interleave(how.candidates)
            drawn = Drawn(module.prior, told[each], untold[each], [one.seed for one in here], how)
            for done in drawn:
                yield Part(kind="image", meta={"progress": done, "of": model.slots})
            best = drawn.score.unflatten(0, (len(here), -1)).argmax(1) + torch.arange(len(here)) * how.candidates
            painted = to_bytes(module.pictures.painted(drawn.tokens[best.to(model.device)]))
        for one, file, made, place in zip(here, files[start:], painted, best.tolist(), strict=False):
            network = network_of(one.how.upscale) if one.how.upscale else None
            picture = finished(made, one.how.size, network, one.how.design)
            write(picture, file, quality=one.how.quality)
            size = {"width": picture.width, "height": picture.height}
            meta = {"number": one.number, "seed": one.seed, "style": one.how.style, **size}
            score = {"score": round(float(drawn.score[place]), 3)} if how.candidates > 1 else {}
            yield Part(kind="image", path=file, meta=meta | score)


class Drawn:
    """Tokens drawn one after the other, for as many rows as `told` has; iterate to draw, it yields how many are done.

    Afterwards `tokens` (B, L) are there, and `score` (B,): by how many bits the words make the tokens likelier than
    what is told instead, log2 p(tokens | words) - log2 p(tokens), which is how well the picture points to its words.
    """

    def __init__(self, prior: Any, told: Any, untold: Any, seeds: Sequence[int], how: TokenOptions):
        self.how, self.length, self.count = how, prior.shape.grid**2, len(told.vector)
        self.both = how.guidance != 1 or how.candidates > 1  # is anything to be compared?
        self.telling = prior.telling(told.beside(untold) if self.both else told)
        self.random = [torch.Generator().manual_seed(seed % (1 << 63)) for seed in seeds]
        self.score = torch.zeros(self.count)
        self.tokens: Tensor = torch.empty(0)

    def __iter__(self) -> Iterator[int]:
        tokens: list[Tensor] = []
        for _ in range(self.length):
            last = tokens[-1].repeat(2 if self.both else 1) if tokens else None
            tokens.append(self._next(self.telling.step(last)))
            yield len(tokens)
        self.tokens = torch.stack(tokens, 1)

    def _next(self, logits: Tensor) -> Tensor:
        """Tokens (B,) out of logits (B, codes), or (2 B, codes) with those that the words did not see."""
        told = logits[: self.count]
        mixed = guided(told, logits[self.count :], self.how.guidance) if self.both else told
        noise = torch.cat([torch.rand(self.how.candidates, logits.shape[1], generator=one) for one in self.random])
        found = drawn(mixed, noise.to(logits.device), self.how)
        if self.both:
            likely = torch.log_softmax(logits, -1).gather(1, found.repeat(2)[:, None])[:, 0]
            self.score += ((likely[: self.count] - likely[self.count :]) / torch.log(torch.tensor(2.0))).cpu()
        return found


def drawn(logits: Tensor, chance: Tensor, how: TokenOptions) -> Tensor:
    """One token a row (B,), by `chance` (B, codes) even from 0 to 1: the likeliest at temperature 0, else one within
    top-k and the top-p nucleus (Holtzman et al. 2020), by the Gumbel trick, so a row's draw depends on its own chance
    alone."""
    if how.temperature == 0:
        return logits.argmax(-1)
    logits = logits / how.temperature
    if 0 < how.top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(how.top_k).values[:, -1:], float("-inf"))
    if how.top_p < 1:
        ordered, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
        outside = ordered.cumsum(-1) - ordered >= how.top_p
        logits = logits.masked_fill(torch.zeros_like(outside).scatter(1, order, outside), float("-inf"))
    return (logits - torch.log(-torch.log(chance.clamp(1e-20, 1 - 1e-7)))).argmax(-1)
