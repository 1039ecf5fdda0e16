"""Beside: what a folder of files says of them, in a metadata file, in texts next to them or by the folders' names."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from genwright.core import Bad, DataError, Row

from .files import BROKEN, File, find_files, must_exist, read_text
from .json_rows import json_rows

Way = Literal["auto", "metadata", "text", "folder", "none"]
MISSING = {"metadata": "no row of metadata for it", "text": "no text file beside it", "folder": "no folder around it"}
_NAMES = ("file_name", "audio_filepath")  # what a row of metadata calls its file: `datasets`, NeMo


@dataclass
class Told:
    """Rows of metadata by file name, texts by file name without suffix; `bad` is what could not be read of them."""

    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    folders: bool = False
    bad: list[Bad] = field(default_factory=list)

    def way(self, wanted: Way) -> str:
        """Where captions come from; of `auto` the first that there is."""
        if wanted != "auto":
            return wanted
        return "metadata" if self.metadata else "text" if self.texts else "folder" if self.folders else "none"

    def of(self, name: str, way: str) -> dict[str, Any] | None:
        """The fields of a row for the file of that name; None when it should have some and has none."""
        path = PurePosixPath(name)
        if way == "metadata":
            return self.metadata.get(name)
        if way == "text":
            words = self.texts.get(str(path.with_suffix("")), "").strip()
            return {"caption": words} if words else None
        if way == "folder":
            words = re.sub(r"[-_]+", " ", path.parent.name).strip()
            return {"caption": words, "label": path.parent.name, "concept": words} if words else None
        return {}


def rows_told(
    told: Told, wanted: Way, path: Path, include: Sequence[str], made: Callable[[File, dict[str, Any]], dict[str, Any]],
    *, one: str, words: str,
) -> Iterator[Row | Bad]:  # fmt: skip
    """A row for each file called by `include`, as `made` makes it of the file and what is told of it.

    Bad are files without words where others have some, those that `made` cannot read, and metadata of files that are
    not there. `one` is what a file is called in sentences, `words` what it lacks. Raises DataError when there is none.
    """
    yield from told.bad
    way, seen = told.way(wanted), set[str]()
    for file in files_called(path, include):
        if isinstance(file, Bad):
            yield file
            continue
        seen.add(file.name)
        fields = told.of(file.name, way)
        if fields is None:
            yield Bad(file.name, f"no {words}: there is {MISSING[way]}")
            continue
        try:
            yield Row(file.name, made(file, fields))
        except (DataError, *BROKEN) as error:
            yield Bad(file.name, getattr(error, "message", str(error)))
    for name in sorted(told.metadata.keys() - seen) if way == "metadata" else ():
        yield Bad(name, f"metadata names this file, but there is no such {one}")
    if not seen:
        raise DataError(f"There are no {one}s in {path}.", f"Looked for {', '.join(include)}.")


def what_is_told(
    path: Path, wanted: Way, *, metadata: Sequence[str], texts: Sequence[str],
    rows: Callable[[File], Iterator[Row | Bad]] | None = None,
) -> Told:  # fmt: skip
    """One walk before the files are read, for a tar can only be read from front to back. `metadata` are names of files,
    `texts` suffixes; `rows` reads a metadata file that is neither JSON lines nor CSV with a header."""
    told = Told()
    for file in find_files(path, ("*",)):
        if isinstance(file, Bad):
            continue  # told when the files are read, if it is one
        at = PurePosixPath(file.name)
        if at.name in metadata and wanted in ("auto", "metadata"):
            _learn(told, (rows or metadata_rows)(file), at.parent)
        elif at.suffix.lower() in texts and wanted in ("auto", "text"):
            words = read_text(file, limit=100_000)
            if isinstance(words, Bad):
                told.bad.append(words)
            else:
                told.texts[str(at.with_suffix(""))] = words
        elif len(at.parts) > 1:
            told.folders = True
    return told


def files_called(path: Path, include: Sequence[str]) -> Iterator[File | Bad]:
    """The files of a folder or archive that the globs name; capital letters count as small ones."""
    must_exist(path)
    globs = sorted({case for one in include for case in (one, one.lower(), one.upper())})
    try:
        yield from find_files(path, globs)
    except DataError as error:
        if "is called" not in error.message:
            raise


def content(file: File, folder: Path | None, limit: int) -> Path | bytes:
    """A file by its path where it lies in a folder, else with its bytes, one more than are allowed at most."""
    if folder is not None:
        return folder / file.name
    with file.open() as stream:
        return stream.read(limit + 1)


def metadata_rows(file: File) -> Iterator[Row | Bad]:
    """The rows of a metadata file as `datasets` has it: JSON lines, or CSV with a header."""
    return json_rows(file) if file.suffix in (".jsonl", ".json") else _csv_rows(file)


def _learn(told: Told, rows: Iterator[Row | Bad], folder: PurePosixPath) -> None:
    """File names lead from the folder that the metadata lies in, and not out of it."""
    for row in rows:
        if isinstance(row, Bad):
            told.bad.append(row)
            continue
        name = next((row.fields[key] for key in _NAMES if row.fields.get(key)), None)
        if not isinstance(name, str):
            told.bad.append(Bad(row.where, "metadata without `file_name`"))
        elif name.startswith(("/", "\\")) or ".." in PurePosixPath(name).parts:
            told.bad.append(Bad(row.where, f"{name!r} leads out of the folder"))
        else:
            told.metadata[(folder / name).as_posix()] = row.fields


def _csv_rows(file: File) -> Iterator[Row | Bad]:
    text = read_text(file)
    if isinstance(text, Bad):
        yield text
        return
    table = csv.DictReader(io.StringIO(text), restkey="")
    for fields in table:
        where = f"{file.name}:{table.line_num}"
        if "" in fields or None in fields.values():
            yield Bad(where, f"has not the {len(table.fieldnames or ())} cells of the header")
        else:
            yield Row(where, dict(fields))
