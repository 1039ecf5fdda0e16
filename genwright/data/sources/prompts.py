"""Recorded prompts: sounds in an archive, and beside it a list of their words, a line `name: words` each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field

from genwright.core import Bad, DataError, FilePath, Row
from genwright.core import Settings as Base
from genwright.data.files import BROKEN, File, find_files, open_file, read_text
from genwright.media.sound import LIMITS

_SOUNDS = ("*.wav", "*.flac", "*.ogg")


class Settings(Base):
    path: FilePath = Field(
        description="A folder that holds the archive (.tar, .tar.xz, .zip) and the list (.txt, .txt.gz)"
    )
    include: tuple[str, ...] = Field(("*",), description="Prompts taken, as globs of the names in the list: digits/*")
    speaker: str = Field("", description="Who speaks in them, kept as the style of the rows")
    licence: str = Field("", description="Licence of the recordings, counted in the data report")
    attribution: str = Field("", description="Whom the licence wants to be named")


def read(settings: Settings) -> Iterator[Row | Bad]:
    """Rows of `audio` (its bytes) and `text`. What the list says in brackets is no speech: tones and music are left
    out. Raises DataError when the folder holds no archive and list, or when no prompt is called so."""
    words = _words(_only(settings.path, (".txt", ".txt.gz")), settings.include)
    told = {"style": settings.speaker, "licence": settings.licence, "attribution": settings.attribution}
    known = {name: value for name, value in told.items() if value}
    for file in find_files(_only(settings.path, (".tar", ".tar.xz", ".tar.gz", ".tgz", ".zip")), _SOUNDS):
        if isinstance(file, Bad):
            yield file
        elif name := _name_in(file.name, words):
            try:
                with file.open() as stream:
                    audio = stream.read(LIMITS.bytes + 1)
            except BROKEN as error:
                yield Bad(file.name, str(error))
                continue
            fields: dict[str, Any] = {"audio": audio, "text": words[name], "id": name, "meta": known}
            yield Row(file.name, fields)


def _only(folder: Path, suffixes: tuple[str, ...]) -> Path:
    found = sorted(p for p in folder.glob("*") if p.name.endswith(suffixes)) if folder.is_dir() else []
    if len(found) != 1:
        raise DataError(f"{folder} holds {len(found)} files that end in {' or '.join(suffixes)}.", "One is needed.")
    return found[0]


def _words(file: Path, include: tuple[str, ...]) -> dict[str, str]:
    """{name: words} of the prompts that the globs name."""
    text = read_text(File(file.name, lambda: open_file(file)))
    if isinstance(text, Bad):
        raise DataError(f"{file} {text.reason}.", "Fetch it again.")
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith(";"))
    said = {name.strip(): " ".join(re.sub(r"\[[^\]]*\]", " ", words).split()) for name, _, words in pairs}
    found = {name: words for name, words in said.items() if words and any(fnmatchcase(name, g) for g in include)}
    if not found:
        raise DataError(f"No prompt of {file} is called {' or '.join(include)}.", "Names look like digits/1.")
    return found


def _name_in(path: str, words: dict[str, str]) -> str:
    """The longest end of the path, without its suffix, that the list names."""
    parts = PurePosixPath(path).with_suffix("").parts
    return next((name for at in range(len(parts)) if (name := "/".join(parts[at:])) in words), "")
