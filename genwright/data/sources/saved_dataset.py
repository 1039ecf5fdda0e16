"""A folder that `datasets` wrote by save_to_disk, read by pyarrow alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from genwright.core import Bad, DataError, FilePath, Row, did_you_mean
from genwright.core import Settings as Base
from genwright.data.arrow import arrow_rows
from genwright.data.files import File, must_exist, open_file


class Settings(Base):
    path: FilePath = Field(description="The folder; it holds state.json, or dataset_dict.json and one folder a split")
    split: str = Field("train", description="Which split of a DatasetDict")


def read(settings: Settings) -> Iterator[Row | Bad]:
    """Label columns give their words. Raises DataError when the folder is of another kind or lacks the split."""
    folder = must_exist(settings.path)
    if (folder / "dataset_dict.json").is_file():
        splits = _json(folder / "dataset_dict.json").get("splits", [])
        if settings.split not in splits:
            raise DataError(f"{folder} has no split {settings.split!r}.", did_you_mean(settings.split, splits))
        folder = folder / settings.split
    if not (folder / "state.json").is_file():
        raise DataError(
            f"{folder} was not written by save_to_disk: it has no state.json.",
            "For a folder of plain files use the source jsonl, table, text_files or conversations.",
        )
    names = _label_names(folder)
    for one in _json(folder / "state.json").get("_data_files", []):
        path = folder / Path(str(one.get("filename", ""))).name
        yield from arrow_rows(File(path.name, lambda path=path: open_file(path)), names)  # type: ignore[misc]


def _label_names(folder: Path) -> dict[str, list[str]]:
    """The words of integer label columns, from dataset_info.json."""
    info = folder / "dataset_info.json"
    features = (_json(info).get("features") or {}) if info.is_file() else {}
    return {
        name: feature["names"]
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)
    }


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is broken: {error}", "Save the dataset again.") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} is broken: it is no object.", "Save the dataset again.")
    return found
