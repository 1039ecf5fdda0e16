"""Models of the 0 to 3 words before (Witten & Bell 1991, interpolated): what bits a word are worth that no network took
part in."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

ORDERS = 4  # words before: 0, 1, 2, 3
Counts = dict[tuple[int, ...], Counter[int]]


def counted(rows: Iterable[Sequence[int]]) -> Counts:
    """How often each word stood behind each 0 to 3 words."""
    found: Counts = defaultdict(Counter)
    for words in rows:
        for place, word in enumerate(words):
            for order in range(min(place, ORDERS - 1) + 1):
                found[tuple(words[place - order : place])][word] += 1
    return found


def bits(
    counts: Counts, rows: Sequence[Sequence[int]], size: int, ranges: Sequence[Sequence[tuple[int, int]]] | None = None
) -> dict[str, float]:
    """Bits a word of each order over `size` words, {"order_0": …}. Where `ranges` says between which words each place
    chooses, the share of the others is taken out."""
    totals, number = np.zeros(ORDERS), 0
    for row, words in enumerate(rows):
        for place, word in enumerate(words):
            low, high = ranges[row][place] if ranges else (0, size - 1)
            chances: Any = np.full(size, 1 / size)
            for order in range(ORDERS):
                if order <= place and (seen := counts.get(tuple(words[place - order : place]))):
                    chances = _mixed(seen, chances)
                totals[order] -= math.log2(chances[word] / chances[low : high + 1].sum())
        number += len(words)
    return {f"order_{order}": float(total / max(1, number)) for order, total in enumerate(totals)}


def _mixed(seen: Counter[int], shorter: Any) -> Any:
    """Witten-Bell: as much weight for what a shorter context says as there are different words."""
    found = shorter * len(seen)
    found[list(seen)] += np.fromiter(seen.values(), float, len(seen))
    return found / (seen.total() + len(seen))
