"""Plain text: files, paragraphs, lines or chunks of .txt and .md files as rows of `text`."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from genwright.core import Bad, FilePath, Row
from genwright.core import Settings as Base
from genwright.data.files import (
    BROKEN,
    MAX_LINE,
    MAX_TEXT,
    Encoding,
    File,
    decoded,
    find_files,
    numbered_lines,
    read_text,
    shown,
)


class Settings(Base):
    path: FilePath = Field(description="A file, a folder, a glob or an archive")
    include: tuple[str, ...] = Field(
        ("*.txt", "*.md", "*.txt.gz"), description="Files taken of a folder or archive, as globs"
    )
    split: Literal["file", "paragraph", "line", "chunk"] = Field(
        "paragraph", description="What a row is; paragraphs end at an empty line"
    )
    size: int = Field(2000, ge=1, description="Characters of a chunk; it ends at a line's or word's end where it can")
    encoding: Encoding = Field("utf-8", description="Encoding of the files")


def read(settings: Settings) -> Iterator[Row | Bad]:
    """`where` is the line a row begins on. Files are streamed, but for `split: file`."""
    for file in find_files(settings.path, settings.include):
        if isinstance(file, Bad):
            yield file
            continue
        try:
            yield from {"file": _files, "paragraph": _paragraphs, "line": _lines, "chunk": _chunks}[settings.split](
                file, settings
            )
        except BROKEN as error:
            yield Bad(file.name, f"the compressed file is broken: {error}")


def _files(file: File, settings: Settings) -> Iterator[Row | Bad]:
    text = read_text(file, settings.encoding, MAX_TEXT)
    if isinstance(text, Bad):
        yield text
    elif text.strip():
        yield Row(f"{file.name}:1", {"text": text.strip()})


def _lines(file: File, settings: Settings) -> Iterator[Row | Bad]:
    with file.open() as stream:
        if "\n".encode(settings.encoding) != b"\n":  # UTF-16 and the like: newlines are more than one byte
            for number, words in enumerate(codecs.getreader(settings.encoding)(stream), 1):
                if words.strip():
                    yield Row(f"{file.name}:{number}", {"text": words.strip("\r\n")})
            return
        for number, line in numbered_lines(stream):
            where = f"{file.name}:{number}"
            if line is None:
                yield Bad(where, f"the line is longer than {MAX_LINE // 1_000_000} MB")
                continue
            text = decoded(line, where, settings.encoding)
            if isinstance(text, Bad):
                yield text
            elif text.strip():
                yield Row(where, {"text": text.rstrip("\r\n")})


def _paragraphs(file: File, settings: Settings) -> Iterator[Row | Bad]:
    start, held = 1, list[str]()
    number = 0
    for row in _with_gaps(file, settings):
        if isinstance(row, Bad):
            yield row
            continue
        number, line = row
        if line.strip():
            start = start if held else number
            held.append(line)
        elif held:
            yield Row(f"{file.name}:{start}", {"text": "\n".join(held)})
            held = []
        if sum(map(len, held[-1:])) > MAX_LINE:
            yield Bad(f"{file.name}:{start}", "the paragraph is too long", shown(held[0]))
            held = []
    if held:
        yield Row(f"{file.name}:{start}", {"text": "\n".join(held)})


def _with_gaps(file: File, settings: Settings) -> Iterator[tuple[int, str] | Bad]:
    """(number, line) of every line, the empty ones too."""
    last = 0
    for row in _lines(file, settings):
        number = int(row.where.rsplit(":", 1)[1])
        for gap in range(last + 1, number):
            yield gap, ""
        last = number
        yield row if isinstance(row, Bad) else (number, row.fields["text"])


def _chunks(file: File, settings: Settings) -> Iterator[Row | Bad]:
    size, line, held, last = settings.size, 1, "", False
    utf8 = settings.encoding.lower().replace("-", "") == "utf8"
    decoder = codecs.getincrementaldecoder("utf-8-sig" if utf8 else settings.encoding)("strict")
    with file.open() as stream:
        while not last:
            raw = stream.read(max(1 << 16, size * 4))
            last = not raw
            try:
                held += decoder.decode(raw, last).replace("\r\n", "\n")
            except UnicodeDecodeError as error:
                yield Bad(
                    f"{file.name}:{line}", f"is not {settings.encoding} from here on: {error.reason}", shown(held)
                )
                last = True
            while len(held) > size or (last and held):
                end = _end_of_chunk(held, size)
                if held[:end].strip():
                    yield Row(f"{file.name}:{line}", {"text": held[:end].strip()})
                line += held.count("\n", 0, end)
                held = held[end:]


def _end_of_chunk(text: str, size: int) -> int:
    """At the last newline or space of the chunk's second half, else hard."""
    if len(text) <= size:
        return len(text)
    for sign in "\n ":
        end = text.rfind(sign, size // 2, size)
        if end >= 0:
            return end + 1
    return size
