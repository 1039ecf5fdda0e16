"""Bind tunes into groups that share a melody in any key, so that they stay on one side of the split, or drop them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from genwright.core import DataError, Example
from genwright.core import Settings as Base
from genwright.core.words import digest64
from genwright.data.near import grouped_with
from genwright.media.abc import read_tune
from genwright.media.melody import runs


class Settings(Base):
    n: int = Field(16, ge=4, le=64, description="Notes of a run that counts as shared")
    share: float = Field(0.1, gt=0, le=1, description="Share of a tune's runs from which two tunes are near copies")
    action: Literal["group", "drop"] = Field(
        "group", description="group: all stay, on one side of the split; drop: the first stays"
    )


def refine(examples: Iterator[Example], settings: Settings, *, report: Any) -> Iterator[Example]:
    """Runs are steps and lengths from note to note, so a melody is the same in every key. Rows that are no tune pass.
    Exact; memory is some 100 bytes a note."""
    known: dict[int, list[int]] = defaultdict(list)  # run -> tunes that hold it
    sizes, clusters, copies = list[int](), list[int](), 0
    for example in examples:
        try:
            held = {digest64(repr(run)) for run in runs(read_tune(example.answer.text), settings.n)}
        except DataError:
            yield example
            continue
        number = len(sizes)
        shared = Counter(other for run in held for other in known.get(run, ()))
        near = {clusters[o] for o, count in shared.items() if count >= settings.share * min(len(held), sizes[o])}
        copies += bool(near)
        if near and settings.action == "drop":
            report.drop(example, "its melody is that of an earlier tune")
            continue
        sizes.append(len(held))
        clusters.append(min(near, default=number))
        for run in held:
            known[run].append(number)
        yield grouped_with(example, sorted(near) or [number], "melody") if settings.action == "group" else example
    if settings.action == "group":
        report.note(f"{copies:,} tunes share a melody with others and stay with them on one side of the split.")
