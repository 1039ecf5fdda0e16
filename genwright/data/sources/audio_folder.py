"""Sounds of a folder, zip or tar with their words: LJSpeech, NeMo, a metadata file, texts beside them, or folders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from genwright.core import Bad, FilePath, Row
from genwright.core import Settings as Base
from genwright.data.beside import Way, content, metadata_rows, rows_told, what_is_told
from genwright.data.files import File, read_text
from genwright.media.sound import LIMITS

_METADATA = ("metadata.jsonl", "metadata.csv", "manifest.json", "manifest.jsonl", "train_manifest.json")
_TEXTS = (".txt", ".lab")
_SOUNDS = ("*.wav", "*.flac", "*.mp3", "*.ogg", "*.opus", "*.aiff", "*.aif", "*.au", "*.m4a", "*.aac",
           "*.webm")  # fmt: skip
_WORDS = ("caption", "text", "transcription", "transcript", "sentence")


class Settings(Base):
    path: FilePath = Field(description="A folder, a .zip or a .tar of sounds")
    include: tuple[str, ...] = Field(_SOUNDS, description="Files taken, as globs; capital letters count as small ones")
    transcripts: Way = Field(
        "auto",
        description="LJSpeech's metadata.csv, NeMo's manifest.json(l), or metadata.jsonl or .csv with `file_name`; a "
        ".txt or .lab beside each sound; the name of its folder; none; auto is the first of these that there is",
    )
    speaker: str = Field("", description="Who speaks in them, kept as the style of the rows")


def read(settings: Settings) -> Iterator[Row | Bad]:
    """Rows of `audio` and `text`. Files of a folder are named, members of an archive come with their bytes.

    A sound without words, where others have some, is Bad; so is a row of metadata without sound. Raises DataError when
    there are no sounds.
    """
    told = what_is_told(settings.path, settings.transcripts, metadata=_METADATA, texts=_TEXTS, rows=_rows)
    folder = settings.path if settings.path.is_dir() else None

    def made(file: File, fields: dict[str, Any]) -> dict[str, Any]:
        return _row(fields, settings) | {"audio": content(file, folder, LIMITS.bytes)}

    wanted, include = settings.transcripts, settings.include
    yield from rows_told(told, wanted, settings.path, include, made, one="sound", words="words")


def _row(fields: dict[str, Any], settings: Settings) -> dict[str, Any]:
    words = next((fields[name] for name in _WORDS if isinstance(fields.get(name), str)), None)
    kept = {name: value for name, value in fields.items() if name not in (*_WORDS, "file_name", "audio_filepath")}
    return kept | ({"text": words} if words else {}) | ({"style": settings.speaker} if settings.speaker else {})


def _rows(file: File) -> Iterator[Row | Bad]:
    """LJSpeech's metadata has no header: name|words|words in full; its sounds lie in wavs/."""
    head = read_text(file, limit=1 << 26) if file.suffix == ".csv" else ""
    if isinstance(head, Bad) or "|" not in head.partition("\n")[0]:
        yield from metadata_rows(file)
        return
    for number, line in enumerate(head.splitlines(), 1):
        cells = line.split("|")
        if not 2 <= len(cells) <= 3 or not cells[0].strip() or not cells[-1].strip():
            yield Bad(f"{file.name}:{number}", "is not name|words or name|words|words in full")
            continue
        name = cells[0].strip()
        yield Row(f"{file.name}:{number}", {"file_name": f"wavs/{name}.wav", "text": cells[-1].strip()})
