"""Drop training rows that share a run of words with the held-out rows, so that these stay a fair test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import Field

from genwright.core import Example
from genwright.core import Settings as Base
from genwright.core.words import digest64, normal, side_of, tokens

after_split = True  # it is handed the training rows alone, and the held-out ones beside them


class Settings(Base):
    ngram: int = Field(13, ge=1, description="Words of a run (characters in scripts without spaces); GPT-3's is 13")
    on: Literal["row", "prompt", "answer"] = Field("row", description="Which words of both sides are compared")
    share: float = Field(
        0.0, ge=0, lt=1, description="Drop a row when more than this share of its runs is held out; 0: any"
    )
    common: int = Field(
        10, ge=1, description="A run in more held-out rows than this is a template or boilerplate, and is passed over"
    )


def refine(
    examples: Iterator[Example], settings: Settings, *, report: Any, held_out: Iterable[Example]
) -> Iterator[Example]:
    """Brown et al. 2020, appendix C. Holds 8 bytes of hash for each run of the held-out rows (about 100 in all)."""
    seen: Counter[int] = Counter()
    rows = 0
    for example in held_out:
        rows += 1
        seen.update(set(_runs(side_of(example, settings.on), settings.ngram)))
    known = {run for run, count in seen.items() if count <= settings.common}
    if len(known) < len(seen):
        report.note(
            f"{len(seen) - len(known):,} runs of words stand in more than {settings.common} held-out rows: passed over."
        )
    if not rows:
        report.note("Nothing is held out, so there was nothing to compare with.")
    for example in examples:
        runs = _runs(side_of(example, settings.on), settings.ngram)
        shared = sum(run in known for run in runs)
        if shared and shared > settings.share * len(runs):
            report.drop(example, f"shares a run of {settings.ngram} words with a held-out row")
        else:
            yield example


def _runs(text: str, size: int) -> list[int]:
    """Hashes of all runs of `size` words; a shorter text is one run."""
    words = tokens(normal(text))
    if len(words) <= size:
        return [digest64(" ".join(words))] if words else []
    return [digest64(" ".join(words[i : i + size])) for i in range(len(words) - size + 1)]
