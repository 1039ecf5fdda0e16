"""Rows of pictures: pixels, captions and style, as every model taught with pictures encodes and batches them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genwright.core.data import Example
from genwright.core.errors import GenwrightError, UsageError
from genwright.core.model import Encoded, Unlearnable
from genwright.core.plugin import did_you_mean

from .captions import Reader, words_of


@dataclass(frozen=True)
class Pictures:
    """A batch: `pixels` (B, S, S, 3) uint8, `captions` as their reader gives them, `styles` (B,) from 1 (0: none)."""

    pixels: Tensor
    captions: Tensor
    styles: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device | str) -> Pictures:
        return Pictures(self.pixels.to(device), self.captions.to(device), self.styles.to(device))


def encode(example: Example, reader: Reader, *, size: int, slots: int, style: int, wordless: bool = False) -> Encoded:
    """Pixels (S, S, 3), all captions of the row, how many of them are names (they come first) and the number of its
    style; the weight is one picture.

    Raises Unlearnable as `captioned` does, but for a row without words when `wordless`: it has one caption, empty.
    """
    pixels, names, others = captioned(example, size, wordless=wordless)
    captions = reader([*names, *others] or [""])
    sequence = {"pixels": pixels, "captions": captions, "names": np.int64(len(names)), "style": np.int64(style)}
    return Encoded((sequence,), slots, 1.0)


def captioned(example: Example, size: int, *, wordless: bool = False) -> tuple[np.ndarray, list[str], list[str]]:
    """Pixels (S, S, 3) uint8 of the answer's picture; its names, which are the words asked and the shortest caption of
    each language in `meta["captions"]`, {language: [caption, …]}; and its other captions.

    Raises Unlearnable for a row without picture, without words (unless `wordless`), or with a file that is none.
    """
    from genwright.media.picture import as_array

    path = next((p.path for p in example.answer.parts if p.kind == "image" and p.path), None)
    if path is None:
        raise Unlearnable("the answer holds no picture")
    languages = [texts for texts in (example.meta.get("captions") or {}).values() if texts]
    short = [words_of(example.prompt), *(min(texts, key=len) for texts in languages)]
    names = list(dict.fromkeys(text for text in short if text.strip()))
    others = [text for texts in languages for text in texts if text.strip() and text not in names]
    if not names and not others and not wordless:
        raise Unlearnable("the picture has no caption")
    try:
        return as_array(path, size), names, list(dict.fromkeys(others))
    except GenwrightError as error:
        raise Unlearnable(f"the picture cannot be read: {error.message}") from None


def collate(items: Sequence[Encoded], seeds: Sequence[int] = ()) -> Pictures:
    """One caption a picture, drawn at random or by a number for each picture: three times of four a name, for names are
    what is asked by; else any."""
    rows = [item.sequences[0] for item in items]
    seeds = seeds or [int(torch.randint(1 << 62, ())) for _ in rows]
    drawn = [
        seed // 4 % (int(row["names"]) if seed % 4 and row["names"] else len(row["captions"]))
        for seed, row in zip(seeds, rows, strict=True)
    ]
    chosen = [row["captions"][number] for row, number in zip(rows, drawn, strict=True)]
    pixels = torch.from_numpy(np.stack([row["pixels"] for row in rows]))
    return Pictures(pixels, stacked(chosen), torch.tensor([int(row["style"]) for row in rows]))


def stacked(captions: Sequence[np.ndarray]) -> Tensor:
    """(B, w) vectors, or (B, longest) word numbers with 0 after the last."""
    longest = max(len(one) for one in captions)
    return torch.from_numpy(np.stack([np.pad(one, (0, longest - len(one))) for one in captions]))


def caption_vectors(captions: Tensor, words: torch.nn.Embedding | None) -> Tensor:
    """(B, w) with entries of size 1 or so, from unit vectors (B, w) or, by a table of words, from numbers (B, L)."""
    if words is None:
        return captions.float() * math.sqrt(captions.shape[1])
    there = (captions > 0).unsqueeze(2)
    total = (words(captions.long()) * there).sum(1)
    return total / there.sum(1).clamp_min(1).sqrt()


# -- styles ----------------------------------------------------------------------------------------------------------


def new_styles(examples: Iterable[Example], known: Sequence[str]) -> list[str]:
    """Styles that the rows name (`meta["style"]`) beside those that are known, in order."""
    return sorted({str(e.meta["style"]) for e in examples if e.meta.get("style")} - set(known))


def style_of(example: Example, known: Sequence[str]) -> dict[str, str]:
    """The options of a request that a row names: its style, where it is one of those that were learned."""
    style = str(example.meta.get("style") or "")
    return {"style": style} if style in known else {}


def style_number(name: str, known: Sequence[str]) -> int:
    """From 1, and 0 for any. Raises UsageError for a style that was not learned."""
    if name and name not in known:
        raise UsageError(f"There is no style {name!r} here. {did_you_mean(name, known)}")
    return 1 + known.index(name) if name else 0


def with_room(table: torch.nn.Embedding, count: int) -> torch.nn.Embedding:
    """The table with `count` more rows, each the mean of the others."""
    old = table.weight.data
    grown = torch.cat([old, old.mean(0, keepdim=True).expand(count, -1)])
    return torch.nn.Embedding.from_pretrained(grown.contiguous(), freeze=False)
