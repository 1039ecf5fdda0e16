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


def error_rate(pairs: Pairs, cut: Callable[[str], Sequence[str]], **facts: Any) -> Score:
    """Edits over units of all references together. Raises MissingExtra without rapidfuzz."""
    rows = []
    for pair in pairs:
        wanted, said = cut(pair.wanted), cut(pair.said)
        rows.append((edits(wanted, said), len(wanted)))
    units = sum(count for _, count in rows)
    return score_of_sums(
        rows or [(0, 0)], ratio, unit="share", higher_is_better=False, details={"units": units}, **facts
    )
