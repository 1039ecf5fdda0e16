"""Rows cut out of text files (or members of an archive) by a regular expression with named groups."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from genwright.core import Bad, FilePath, Row
from genwright.core import Settings as Base
from genwright.data.files import Encoding, find_files, read_text


class Settings(Base):
    path: FilePath = Field(description="A file, a folder, a glob or an archive (.zip, .whl, .tgz)")
    include: tuple[str, ...] = Field(("*",), description="Files taken of a folder or archive, as globs")
    pattern: str = Field(description="Regular expression; its named groups are the keys of a row")
    flags: tuple[Literal["ignorecase", "multiline", "dotall", "verbose"], ...] = Field(
        ("multiline",), description="Flags of the regular expression"
    )
    replace: tuple[tuple[str, str], ...] = Field(
        (), description="[regex, replacement] pairs applied in order to every group, e.g. to join continued lines"
    )
    encoding: Encoding = Field("utf-8", description="Encoding of the files")

    @model_validator(mode="after")
    def _must_compile(self) -> Settings:
        for one in (self.pattern, *(old for old, _ in self.replace)):
            try:
                compiled = re.compile(one, flags_of(self.flags) if one == self.pattern else 0)
            except re.error as error:
                raise ValueError(f"{one!r} is no regular expression: {error}") from None
            if one == self.pattern and not compiled.groupindex:
                raise ValueError("the pattern needs named groups, as (?P<text>…); they become the keys of a row")
        return self


def read(settings: Settings) -> Iterator[Row | Bad]:
    """A row is one match; `where` is the line it begins on. Files are read whole, up to 64 MB each."""
    pattern = re.compile(settings.pattern, flags_of(settings.flags))
    clean = [(re.compile(old), new) for old, new in settings.replace]
    for file in find_files(settings.path, settings.include):
        text = file if isinstance(file, Bad) else read_text(file, settings.encoding)
        if isinstance(text, Bad):
            yield text
            continue
        assert not isinstance(file, Bad)
        line, counted = 1, 0
        for match in pattern.finditer(text):
            line, counted = line + text.count("\n", counted, match.start()), match.start()
            groups = {name: value for name, value in match.groupdict().items() if value is not None}
            for old, new in clean:
                groups = {name: old.sub(new, value) for name, value in groups.items()}
            yield Row(f"{file.name}:{line}", groups)


def flags_of(names: tuple[str, ...]) -> re.RegexFlag:
    flags = re.RegexFlag(0)
    for name in names:
        flags |= re.RegexFlag[name.upper()]
    return flags
