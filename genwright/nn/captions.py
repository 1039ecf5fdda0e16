"""Captions: how a picture model reads words, the same way when it is taught and when it is asked."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np

from genwright.core.content import Message

from .sentences import WIDTH, Sentences

_WORD = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]|[^\W\u3400-\u9fff\uf900-\ufaff]+")
_MOST = 64  # words of a caption that are read


class Reader(Protocol):
    """`width` is that of the vector which the network makes of a caption."""

    width: int

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """One row a text, as `Dit.caption_vectors` takes them."""
        ...


class Meaning:
    """Vectors of a frozen sentence encoder: (rows, 512) float16."""

    width = WIDTH

    @cached_property
    def _sentences(self) -> Sentences:
        return Sentences()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return self._sentences(texts).astype(np.float16)


class Words:
    """Numbers of words, for an embedding that is learned: (rows, longest) int32 from 1, 0 where there is none.

    A word's number is its hash (Weinberger et al. 2009), so there is no vocabulary to keep; each Chinese character is
    a word, and so is each pair of neighbours, which tells "red cat" from "red hat on a cat".
    """

    def __init__(self, entries: int, width: int):
        self.entries, self.width = entries, width

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        rows = [self._numbers(text) for text in texts]
        found = np.zeros((len(rows), max(1, *map(len, rows)) if rows else 1), dtype=np.int32)
        for row, numbers in zip(found, rows, strict=True):
            row[: len(numbers)] = numbers
        return found

    def _numbers(self, text: str) -> list[int]:
        words = _WORD.findall(text.casefold())[:_MOST]
        pairs = [f"{one} {two}" for one, two in pairwise(words)]
        return [1 + zlib.crc32(word.encode()) % self.entries for word in (*words, *pairs)]


def words_of(messages: Sequence[Message]) -> str:
    """What is asked for: the words of the last message that is the user's."""
    return next((m.text for m in reversed(messages) if m.role == "user"), messages[-1].text if messages else "")
