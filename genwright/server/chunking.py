"""Chunking: a text becomes windows, each for one embedding, and chunks of windows, each for one answer of a search.

A sentence encoder tells a sentence or two apart better than a page, so a window is a few sentences and a chunk is as
near to a question as the nearest of its windows. Chunks begin and end where windows do.

Tokens are counted by rule, the same for every model: six letters or digits of a word, one Chinese, Japanese or Korean
character, or one other sign are a token. English prose comes to about 0.8 words a token, as with GPT's tokenizers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_WIDE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_WIDE}]|(?:(?![{_WIDE}])\w){{1,6}}|[^\w\s]")
_END = re.compile(r"[.!?…]+[\"'”’)\]]*\s+|[。！？；]+[”’」』）]*|\n+")  # where a sentence, a heading or a line ends
WINDOW = 64  # most tokens of a window


@dataclass(frozen=True, slots=True)
class Window:
    """A span [start, end) of a text, and its tokens."""

    start: int
    end: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk: windows [first, last) of a text."""

    first: int
    last: int
    tokens: int


def count_tokens(text: str) -> int:
    return sum(1 for _ in _TOKEN.finditer(text))


def window_for(size: int) -> int:
    """Most tokens of a window in chunks of `size` tokens: so few that several fit, and can be shared."""
    return min(WINDOW, size // 4)


def windows_of(text: str, most: int = WINDOW) -> list[Window]:
    """The text in windows of whole sentences, or of parts of those that are longer than a window. Blanks go."""
    found: list[Window] = []
    for start, end in _sentences(text):
        for unit in _cut(text, start, end, most):
            last = found[-1] if found else None
            if last and last.tokens + unit.tokens <= most and "\n\n" not in text[last.end : unit.start]:
                found[-1] = Window(last.start, unit.end, last.tokens + unit.tokens)
            else:
                found.append(unit)
    return found


def pieces_of(windows: Sequence[Window], size: int, overlap: int) -> list[Piece]:
    """Chunks of at most `size` tokens; each begins with windows of up to `overlap` tokens of the one before."""
    found: list[Piece] = []
    first = last = tokens = 0
    while last < len(windows):
        while last < len(windows) and (tokens + windows[last].tokens <= size or last == first):
            tokens += windows[last].tokens
            last += 1
        found.append(Piece(first, last, tokens))
        if last == len(windows):
            break
        ended, first, tokens = last, last, 0
        while first - 1 > found[-1].first and tokens + windows[first - 1].tokens <= overlap:
            first -= 1
            tokens += windows[first].tokens
        if tokens + windows[ended].tokens > size:  # what is shared would leave no room for anything new
            first, tokens = ended, 0
    return found


def _sentences(text: str) -> list[tuple[int, int]]:
    ends = [match.end() for match in _END.finditer(text)]
    bounds = [0, *ends, len(text)]
    return [(start, end) for start, end in pairwise(bounds) if end > start]


def _cut(text: str, start: int, end: int, most: int) -> list[Window]:
    """A sentence as windows of at most `most` tokens, without the blanks around it."""
    found: list[Window] = []
    first = upto = count = 0
    for match in _TOKEN.finditer(text, start, end):
        if count == most:
            found.append(Window(first, upto, count))
            count = 0
        first = match.start() if count == 0 else first
        upto, count = match.end(), count + 1
    return [*found, Window(first, upto, count)] if count else found
