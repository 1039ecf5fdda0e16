"""Rows of a table: csv, tsv, parquet, arrow or feather; .gz, folders and archives of csv too.

Text tables are read by the standard library, so that no cell's type is guessed ("007" stays) and every row has its
line; columnar files by pyarrow, in batches.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from typing import Any, BinaryIO

from pydantic import Field

from genwright.core import Bad, DataError, FilePath, Row
from genwright.core import Settings as Base
from genwright.data.arrow import arrow_rows, parquet_rows
from genwright.data.files import BROKEN, MAX_LINE, Encoding, File, find_files, shown


class Settings(Base):
    path: FilePath = Field(description="A file, a folder, a glob or an archive")
    include: tuple[str, ...] = Field(
        ("*.csv", "*.tsv", "*.csv.gz", "*.tsv.gz", "*.parquet", "*.arrow", "*.feather"),
        description="Files taken of a folder or archive",
    )
    delimiter: str = Field("", max_length=1, description="What stands between cells; empty is by the file's suffix")
    encoding: Encoding = Field("utf-8", description="Encoding of a csv or tsv file, e.g. gb18030")
    header: tuple[str, ...] = Field((), description="Names of the columns, for a csv or tsv file without a header line")


def read(settings: Settings) -> Iterator[Row | Bad]:
    """Cells of text tables are words as they stand. Raises DataError when a header names a column twice."""
    for file in find_files(settings.path, settings.include):
        if isinstance(file, Bad):
            yield file
        elif file.suffix == ".parquet":
            yield from parquet_rows(file)
        elif file.suffix in (".arrow", ".feather"):
            yield from arrow_rows(file)
        else:
            yield from _text_rows(file, settings)


def _text_rows(file: File, settings: Settings) -> Iterator[Row | Bad]:
    csv.field_size_limit(MAX_LINE)
    delimiter = settings.delimiter or ("\t" if file.suffix == ".tsv" else ",")
    names, line = list(settings.header), 0
    with file.open() as stream:
        lines = _Lines(stream, settings.encoding)
        table = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            line = lines.number + 1
            lines.raw = ""
            try:
                cells = next(table, None)
            except (csv.Error, UnicodeDecodeError, *BROKEN) as error:
                yield Bad(f"{file.name}:{line}", f"is no row of a table: {_why(error)}", shown(lines.raw))
                if isinstance(error, BROKEN):
                    return
                continue
            if cells is None:
                return
            if not names:
                names = _checked_header(cells, file.name)
            elif cells and len(cells) != len(names):
                yield Bad(f"{file.name}:{line}", f"has {len(cells)} cells, not {len(names)}", shown(lines.raw))
            elif cells:
                yield Row(f"{file.name}:{line}", dict(zip(names, cells, strict=True)))


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not {error.encoding}"
    return str(error).replace("unexpected end of data", "a quoted cell never ends")


def _checked_header(cells: list[str], name: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    if len(set(names)) < len(names) or not all(names):
        twice = next((n for n in names if names.count(n) > 1), "")
        raise DataError(f"The header of {name} names {twice!r} twice or leaves a name out.", "Give `header` instead.")
    return names


class _Lines:
    """Decoded lines of a stream. csv.reader pulls them; `number` and `raw` say where it is."""

    def __init__(self, stream: BinaryIO, encoding: str):
        utf8 = encoding.lower().replace("-", "") == "utf8"
        self._lines: Any = (
            iter(lambda: stream.readline(MAX_LINE), b"")
            if _one_byte_newline(encoding)
            else codecs.getreader(encoding)(stream)
        )
        self.encoding, self.number, self.raw = "utf-8-sig" if utf8 else encoding, 0, ""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        if isinstance(line, bytes):
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                self._pass_over()
                raise csv.Error(f"the line is longer than {MAX_LINE // 1_000_000} MB")
            self.raw = line.decode("utf-8", "replace")
            line = line.decode(self.encoding)
            if self.encoding == "utf-8-sig":
                self.encoding = "utf-8"  # the mark stands at the very start only
        self.raw = line
        return str(line)

    def _pass_over(self) -> None:
        while (line := next(self._lines, b"\n")) and not line.endswith(b"\n"):
            pass


def _one_byte_newline(encoding: str) -> bool:
    return "\n".encode(encoding) == b"\n"
