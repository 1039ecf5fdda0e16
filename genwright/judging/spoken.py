"""Spoken: how far what was heard lies from what was said, counted in units of speech (words, or characters)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from genwright.core import MissingExtra, Pairs, Score
from genwright.judging.intervals import ratio, score_of_sums


def edits(wanted: Sequence[str], said: Sequence[str]) -> int:
    """Least insertions, deletions and substitutions that turn one into the other (Levenshtein 1966).

    >>> edits(["the", "cat", "sat"], ["the", "hat", "sat", "down"])
    2
    """
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError:
        raise MissingExtra("rapidfuzz", "speech") from None
    return int(Levenshtein.distance(wanted, said))


def error_rate(pairs: Pairs, cut: Callable[[str], Sequence[str]], *, by: str = "", **facts: Any) -> Score:
    """Edits over units of all references together; beside it apart for each value that the rows' meta has of `by`.
    Raises MissingExtra without rapidfuzz."""
    rows = []
    for pair in pairs:
        wanted, said = cut(pair.wanted), cut(pair.said)
        rows.append((edits(wanted, said), len(wanted)))
    units = sum(count for _, count in rows)
    apart: dict[str, list[tuple[int, int]]] = {}
    for pair, row in zip(pairs, rows, strict=True):
        if by and (value := pair.example.meta.get(by)):
            apart.setdefault(f"{by} {value}", []).append(row)
    beside = {name: sum(wrong for wrong, _ in some) / max(1, sum(n for _, n in some)) for name, some in apart.items()}
    return score_of_sums(
        rows or [(0, 0)],
        ratio,
        unit="share",
        higher_is_better=False,
        beside=beside,
        details={"units": units},
        **facts,
    )
