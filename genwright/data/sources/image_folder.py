"""Pictures of a folder, zip or tar, captioned by a metadata file, by text files beside them or by their folders."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field

from genwright.core import Bad, DataError, FilePath, Row
from genwright.core import Settings as Base
from genwright.data.files import BROKEN, File, find_files, must_exist, read_text
from genwright.data.json_rows import json_rows
from genwright.media.picture import LIMITS, encoded, rasterise

_METADATA = ("metadata.jsonl", "metadata.csv")
_TEXTS = (".txt", ".caption")
_PICTURES = ("*.png", "*.jpg", "*.jpeg", "*.webp", "*.gif", "*.bmp", "*.tif", "*.tiff", "*.svg")


class Settings(Base):
    path: FilePath = Field(description="A folder, a .zip or a .tar of pictures")
    include: tuple[str, ...] = Field(
        _PICTURES, description="Files taken, as globs; capital letters count as small ones"
    )
    captions: Literal["auto", "metadata", "text", "folder", "none"] = Field(
        "auto",
        description="metadata.jsonl or .csv with `file_name`, as `datasets` has it; a .txt or .caption beside each "
        "picture; the name of its folder; none; auto is the first of these that there is",
    )
    template: str = Field(
        "{caption}", pattern=r"\{caption\}", description="What is made of a caption: a photo of {caption}"
    )
    style: str = Field("", description="What the style of these pictures is called")
    svg_size: int | None = Field(
        256,
        ge=8,
        le=4096,
        description="Pixels of the side of a drawing (.svg); null keeps it as it is, for text_to_svg",
    )


@dataclass
class _Told:
    """What stands beside the pictures: rows of metadata by file name, texts by file name without suffix."""

    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    folders: bool = False
    bad: list[Bad] = field(default_factory=list)


def read(settings: Settings) -> Iterator[Row | Bad]:
    """Rows of `image` and what is told of it. Files of a folder are named, members of an archive come with their bytes.

    A picture without caption, where others have one, is Bad; so is a row of metadata without picture. Raises DataError
    when there are no pictures.
    """
    told = _told(settings)
    yield from told.bad
    way = _way(settings, told)
    seen = set[str]()
    folder = settings.path if settings.path.is_dir() else None
    for file in _pictures(settings):
        if isinstance(file, Bad):
            yield file
            continue
        seen.add(file.name)
        fields = _caption(file.name, way, told)
        if fields is None:
            yield Bad(file.name, f"no caption: there is {_MISSING[way]}")
            continue
        try:
            image = _image(file, folder, settings.svg_size)
        except (DataError, *BROKEN) as error:
            yield Bad(file.name, getattr(error, "message", str(error)))
            continue
        yield Row(file.name, _row(fields, settings) | {"image": image})
    for name in sorted(told.metadata.keys() - seen) if way == "metadata" else ():
        yield Bad(name, "metadata names this file, but there is no such picture")
    if not seen:
        raise DataError(f"There are no pictures in {settings.path}.", f"Looked for {', '.join(settings.include)}.")


_MISSING = {"metadata": "no row of metadata for it", "text": "no text file beside it", "folder": "no folder around it"}


def _row(fields: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The caption through the template; what else a row of metadata says stays as it is."""
    caption = next((fields[name] for name in ("caption", "text", "prompt") if isinstance(fields.get(name), str)), None)
    others = {name: value for name, value in fields.items() if name not in ("caption", "text", "prompt", "file_name")}
    told = {"caption": settings.template.replace("{caption}", caption)} if caption else {}
    return others | told | ({"style": settings.style} if settings.style else {})


def _caption(name: str, way: str, told: _Told) -> dict[str, Any] | None:
    path = PurePosixPath(name)
    if way == "metadata":
        return told.metadata.get(name)
    if way == "text":
        words = told.texts.get(str(path.with_suffix("")), "").strip()
        return {"caption": words} if words else None
    if way == "folder":
        words = re.sub(r"[-_]+", " ", path.parent.name).strip()
        return {"caption": words, "label": path.parent.name, "concept": words} if words else None
    return {}


def _way(settings: Settings, told: _Told) -> str:
    if settings.captions != "auto":
        return settings.captions
    return "metadata" if told.metadata else "text" if told.texts else "folder" if told.folders else "none"


def _image(file: File, folder: Path | None, svg_size: int | None) -> Path | bytes:
    if file.suffix == ".svg" and svg_size:
        svg = read_text(file)
        if isinstance(svg, Bad):
            raise DataError(svg.reason)
        return encoded(rasterise(svg, svg_size), ".png")
    if folder is not None:
        return folder / file.name
    with file.open() as stream:
        return stream.read(LIMITS.bytes + 1)  # one more than is allowed is refused when it lands


# -- what stands beside them -------------------------------------------------------------------------------------------


def _pictures(settings: Settings) -> Iterator[File | Bad]:
    must_exist(settings.path)
    globs = sorted({case for one in settings.include for case in (one, one.lower(), one.upper())})
    try:
        yield from find_files(settings.path, globs)
    except DataError as error:
        if "is called" not in error.message:
            raise


def _told(settings: Settings) -> _Told:
    """One walk before the pictures are read, for a tar can only be read from front to back."""
    told = _Told()
    for file in find_files(settings.path, ("*",)):
        if isinstance(file, Bad):
            continue  # told when the pictures are read, if it is one
        path = PurePosixPath(file.name)
        if path.name in _METADATA and settings.captions in ("auto", "metadata"):
            _learn(told, file, path.parent)
        elif path.suffix.lower() in _TEXTS and settings.captions in ("auto", "text"):
            words = read_text(file, limit=100_000)
            if isinstance(words, Bad):
                told.bad.append(words)
            else:
                told.texts[str(path.with_suffix(""))] = words
        elif len(path.parts) > 1:
            told.folders = True
    return told


def _learn(told: _Told, file: File, folder: PurePosixPath) -> None:
    """The rows of a metadata file; `file_name` leads from the folder that it lies in, and not out of it."""
    for row in json_rows(file) if file.suffix == ".jsonl" else _csv_rows(file):
        name = row.fields.get("file_name") if isinstance(row, Row) else None
        if isinstance(row, Bad):
            told.bad.append(row)
        elif not isinstance(name, str) or not name:
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
