"""Drop training rows whose picture (or other file) is a near copy of a held-out one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Literal

from pydantic import Field

from genwright.core import Example
from genwright.core import Settings as Base
from genwright.data.near import NearVectors
from genwright.data.views import views_of

after_split = True  # it is handed the training rows alone, and the held-out ones beside them
_BATCH = 512


class Settings(Base):
    distance: float | None = Field(
        None, gt=0, description="Files nearer than this are near copies; null is what the modality says (pictures: 0.6)"
    )
    on: Literal["prompt", "answer"] = Field("answer", description="Whose first file is compared")


def refine(
    examples: Iterator[Example], settings: Settings, *, report: Any, held_out: Iterable[Example]
) -> Iterator[Example]:
    """Needed where what is held out comes from a source of its own; else `near_files` has bound near copies already."""
    known: dict[str, NearVectors] = {}
    aside = iter(held_out)
    while batch := list(islice(aside, _BATCH)):
        for kind, (_, views, near) in views_of(batch, settings.on).items():
            known.setdefault(kind, NearVectors(settings.distance or near)).add(views)
    while batch := list(islice(examples, _BATCH)):
        gone = {
            row
            for kind, (rows, views, _) in views_of(batch, settings.on).items() if kind in known
            for row, near in zip(rows, known[kind].is_near(views), strict=True) if near
        }  # fmt: skip
        for row, example in enumerate(batch):
            if row in gone:
                report.drop(example, "its file is a near copy of a held-out one")
            else:
                yield example
