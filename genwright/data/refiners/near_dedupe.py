"""Drop near copies, or bind them into groups that stay on one side of the split (MinHash and LSH)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

from pydantic import Field

from genwright.core import Example
from genwright.core import Settings as Base
from genwright.core.words import side_of
from genwright.data.near import NearIndex, grouped_with, shingles, signatures

_BATCH = 1024


class Settings(Base):
    threshold: float = Field(0.8, gt=0, le=1, description="Jaccard similarity from which rows are near copies")
    ngram: int = Field(3, ge=1, description="Words of an n-gram; characters in scripts without spaces")
    on: Literal["row", "prompt", "answer"] = Field("row", description="What is compared")
    action: Literal["drop", "group"] = Field(
        "drop", description="drop: the first of a cluster stays; group: all stay, on one side of the split"
    )


def refine(examples: Iterator[Example], settings: Settings, *, report: Any) -> Iterator[Example]:
    """Broder 1997; about 450 bytes of memory a row, more while tables grow. Raises MissingExtra without rensa."""
    index, clustered = NearIndex(settings.threshold), 0
    while batch := list(islice(examples, _BATCH)):
        start = index.count
        signed = signatures([shingles(side_of(example, settings.on), settings.ngram) for example in batch])
        for number, (example, clusters) in enumerate(zip(batch, index.add(signed), strict=True), start):
            is_copy = clusters != [number]
            clustered += is_copy
            if settings.action == "group":
                yield grouped_with(example, clusters, "near")
            elif is_copy:
                report.drop(
                    example, f"a near copy (similarity {settings.threshold} or more) of an earlier {settings.on}"
                )
            else:
                yield example
    if settings.action == "group":
        report.note(f"{clustered:,} rows are near copies of others and stay with them on one side of the split.")
