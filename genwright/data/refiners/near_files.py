"""Drop rows whose picture (or other file) is a near copy of an earlier one, or bind them to one side of the split."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

from pydantic import Field

from genwright.core import Example
from genwright.core import Settings as Base
from genwright.data.near import NearVectors, grouped_with
from genwright.data.views import views_of

_BATCH = 512


class Settings(Base):
    distance: float | None = Field(
        None, gt=0, description="Files nearer than this are near copies; null is what the modality says (pictures: 0.6)"
    )
    on: Literal["prompt", "answer"] = Field("answer", description="Whose first file is compared")
    action: Literal["drop", "group"] = Field(
        "group", description="group: all stay, on one side of the split; drop: the first stays"
    )


def refine(examples: Iterator[Example], settings: Settings, *, report: Any) -> Iterator[Example]:
    """Rows without a file pass. Kinds are compared among themselves; a mirrored picture counts as a copy."""
    known: dict[str, NearVectors] = {}
    copies = 0
    while batch := list(islice(examples, _BATCH)):
        clusters: dict[int, tuple[str, list[int], bool]] = {}
        for kind, (rows, views, near) in views_of(batch, settings.on).items():
            index = known.setdefault(kind, NearVectors(settings.distance or near))
            start = index.count
            for offset, (row, found) in enumerate(zip(rows, index.add(views), strict=True)):
                clusters[row] = (kind, found, found != [start + offset])
        for row, example in enumerate(batch):
            kind, found, is_copy = clusters.get(row, ("", [], False))
            copies += is_copy
            if is_copy and settings.action == "drop":
                report.drop(example, "its file is a near copy of an earlier one")
            elif found and settings.action == "group":
                yield grouped_with(example, found, f"near {kind}")
            else:
                yield example
    if settings.action == "group":
        report.note(f"{copies:,} rows have near copies of others' files and stay with them on one side of the split.")
