"""JSON lines, a JSON array or a list inside a JSON object; .gz, folders and archives too."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from genwright.core import Bad, FilePath, Row
from genwright.core import Settings as Base
from genwright.data.files import find_files
from genwright.data.json_rows import json_rows


class Settings(Base):
    path: FilePath = Field(description="A file, a folder, a glob or an archive")
    include: tuple[str, ...] = Field(
        ("*.jsonl", "*.ndjson", "*.json", "*.jsonl.gz", "*.json.gz"), description="Files taken of a folder or archive"
    )
    key: str = Field("", description="Key that holds the list of rows, for a file that is one JSON object")


def read(settings: Settings) -> Iterator[Row | Bad]:
    for file in find_files(settings.path, settings.include):
        if isinstance(file, Bad):
            yield file
        else:
            yield from json_rows(file, settings.key)
