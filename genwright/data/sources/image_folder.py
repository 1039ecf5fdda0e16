"""Pictures of a folder, zip or tar, captioned by a metadata file, by text files beside them or by their folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from genwright.core import Bad, DataError, FilePath, Row
from genwright.core import Settings as Base
from genwright.data.beside import Way, content, rows_told, what_is_told
from genwright.data.files import File, read_text
from genwright.media.apart import open_given
from genwright.media.picture import LIMITS, encoded

_METADATA = ("metadata.jsonl", "metadata.csv")
_TEXTS = (".txt", ".caption")
_PICTURES = ("*.png", "*.jpg", "*.jpeg", "*.webp", "*.gif", "*.bmp", "*.tif", "*.tiff", "*.svg")


class Settings(Base):
    path: FilePath = Field(description="A folder, a .zip or a .tar of pictures")
    include: tuple[str, ...] = Field(
        _PICTURES, description="Files taken, as globs; capital letters count as small ones"
    )
    captions: Way = Field(
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


def read(settings: Settings) -> Iterator[Row | Bad]:
    """Rows of `image` and what is told of it. Files of a folder are named, members of an archive come with their bytes.

    A picture without caption, where others have one, is Bad; so is a row of metadata without picture. Raises DataError
    when there are no pictures.
    """
    told = what_is_told(settings.path, settings.captions, metadata=_METADATA, texts=_TEXTS)
    folder = settings.path if settings.path.is_dir() else None

    def made(file: File, fields: dict[str, Any]) -> dict[str, Any]:
        return _row(fields, settings) | {"image": _image(file, folder, settings.svg_size)}

    wanted, include = settings.captions, settings.include
    yield from rows_told(told, wanted, settings.path, include, made, one="picture", words="caption")


def _row(fields: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The caption through the template; what else a row of metadata says stays as it is."""
    caption = next((fields[name] for name in ("caption", "text", "prompt") if isinstance(fields.get(name), str)), None)
    others = {name: value for name, value in fields.items() if name not in ("caption", "text", "prompt", "file_name")}
    told = {"caption": settings.template.replace("{caption}", caption)} if caption else {}
    return others | told | ({"style": settings.style} if settings.style else {})


def _image(file: File, folder: Path | None, svg_size: int | None) -> Path | bytes:
    if file.suffix == ".svg" and svg_size:
        svg = read_text(file)
        if isinstance(svg, Bad):
            raise DataError(svg.reason)
        return encoded(open_given(svg.encode(), drawn=svg_size), ".png")
    return content(file, folder, LIMITS.bytes)
