"""Views: the vectors by which modalities compare files, of the rows that have one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genwright.core import Example, shelves
from genwright.core.words import messages_of


def views_of(batch: Sequence[Example], side: str) -> dict[str, tuple[list[int], Any, float]]:
    """{kind: (rows, vectors float32 (rows, views, d), distance of near copies)} of the first file on one side of each
    row whose modality can compare files."""
    import numpy as np

    found: dict[str, tuple[list[int], list[Any], float]] = {}
    for row, example in enumerate(batch):
        files = (part for message in messages_of(example, side) for part in message.parts if part.path is not None)
        part = next(files, None)
        if part is None or (modality := shelves["modalities"].load(part.kind).modality).views is None:
            continue
        rows, views, _ = found.setdefault(part.kind, ([], [], modality.near))
        rows.append(row)
        views.append(modality.views(part))
    return {kind: (rows, np.stack(views).astype(np.float32), near) for kind, (rows, views, near) in found.items()}
