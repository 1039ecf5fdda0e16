"""Translations out of gettext catalogues (.po, .mo): a file, a folder or a package of them, as source and target."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pydantic import Field

from genwright.core import Bad, DataError, FilePath, Row
from genwright.core import Settings as Base
from genwright.data.files import BROKEN, File, decoded, find_files, known_encoding, read_text, shown


class Settings(Base):
    path: FilePath = Field(description="A catalogue, a folder, a glob or an archive (.zip, .whl, .tgz)")
    include: tuple[str, ...] = Field(("*.po", "*.mo"), description="Files taken of a folder or archive, as globs")
    target_language: str = Field(
        "", description="Language to take, as in de/LC_MESSAGES/x.po or de.po; empty takes every catalogue"
    )
    source_language: str = Field(
        "", description="Language to translate from; empty is the catalogue's own message ids (most often English)"
    )
    fuzzy: bool = Field(False, description="Take entries that their translators marked as unsure")
    plurals: bool = Field(True, description="Take the plural forms too: the last one for the plural id")
    context: bool = Field(True, description="Take entries that have a context; it is kept in `meta`")
    strip: str = Field("", description="Characters to take out of both sides, e.g. '&_' (keyboard accelerators)")


@dataclass
class _Entry:
    """One message of a catalogue. `forms` has one translation, or one for each plural form."""

    where: str
    id: str = ""
    plural: str = ""
    context: str | None = None
    fuzzy: bool = False
    forms: dict[int, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str | None, str]:
        return self.context, self.id


def read(settings: Settings) -> Iterator[Row | Bad]:
    """Raises DataError when there is no catalogue of the language. Message ids with a plural give two rows."""
    pivot = _by_id(settings) if settings.source_language else None
    found = 0
    for file in find_files(settings.path, settings.include):
        if isinstance(file, Bad):
            yield file
            continue
        language = _language_of(file.name)
        if settings.target_language and language != settings.target_language:
            continue
        found += 1
        for entry in _entries(file):
            if isinstance(entry, Bad):
                yield entry
            elif entry.id and (settings.fuzzy or not entry.fuzzy) and (settings.context or entry.context is None):
                yield from _pairs(entry, language, settings, pivot)
    if not found:
        raise DataError(
            f"No catalogue for {settings.target_language!r} in {settings.path}.",
            "Languages are read off paths such as de/LC_MESSAGES/x.mo or po/de.po.",
        )


def _pairs(
    entry: _Entry, language: str, settings: Settings, pivot: dict[tuple[str | None, str], _Entry] | None
) -> Iterator[Row]:
    asked = {0: entry.id, 1: entry.plural}
    if pivot is not None:
        other = pivot.get(entry.key)
        asked = (
            {0: other.forms.get(0, ""), 1: other.forms[max(other.forms)] if len(other.forms) > 1 else ""}
            if other
            else {}
        )
    last = max(entry.forms, default=0)
    told = {0: entry.forms.get(0, ""), 1: entry.forms.get(last, "") if entry.plural else ""}
    meta = {"language": language} | ({"context": entry.context} if entry.context is not None else {})
    for number in (0, 1) if settings.plurals else (0,):
        source, target = (_stripped(side.get(number, ""), settings.strip) for side in (asked, told))
        if source.strip() and target.strip():
            yield Row(entry.where, {"source": source, "target": target, "meta": meta})


def _stripped(text: str, signs: str) -> str:
    return text.translate(dict.fromkeys(map(ord, signs))) if signs else text


def _by_id(settings: Settings) -> dict[tuple[str | None, str], _Entry]:
    """The translations into the language to translate from. Held in memory: catalogues are small."""
    entries: dict[tuple[str | None, str], _Entry] = {}
    for file in find_files(settings.path, settings.include):
        if isinstance(file, File) and _language_of(file.name) == settings.source_language:
            entries |= {e.key: e for e in _entries(file) if isinstance(e, _Entry) and (settings.fuzzy or not e.fuzzy)}
    if not entries:
        raise DataError(
            f"No catalogue for {settings.source_language!r} in {settings.path}.",
            "Leave `source_language` out to use the ids.",
        )
    return entries


def _language_of(name: str) -> str:
    """`de` of de/LC_MESSAGES/x.mo, de.po, app.de.po, app-pt_BR.po."""
    path = PurePosixPath(name)
    if path.parent.name == "LC_MESSAGES":
        return path.parent.parent.name
    match = re.search(r"(?:^|[.\-])([a-z]{2,3}(?:[_-](?:[A-Z]{2}|[A-Z][a-z]{3}))?(?:@[a-z]+)?)$", path.stem)
    return match[1] if match else ""


def _entries(file: File) -> Iterator[_Entry | Bad]:
    if file.suffix == ".mo":
        yield from _mo(file)
        return
    text = read_text(file)
    if isinstance(text, Bad) and (charset := _charset(file)):
        text = read_text(file, charset)
    if isinstance(text, Bad):
        yield text
    else:
        yield from _po(file.name, text)


def _charset(file: File) -> str:
    """The encoding that a .po file says it has, when it is one that Python knows."""
    with file.open() as stream:
        match = re.search(rb"charset=([A-Za-z0-9_.-]+)", stream.read(4096))
    return known_encoding(match[1].decode()) if match else ""


# -- .po: https://www.gnu.org/software/gettext/manual/html_node/PO-Files.html -----------------------------------------

_KEYWORD = re.compile(r'(msgctxt|msgid_plural|msgid|msgstr)(?:\[(\d{1,2})\])?\s*(".*)$')
_STRING = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"\s*$')
_ESCAPE = re.compile(r"\\([abfnrtv\\\"?]|x[0-9a-fA-F]{1,2}|[0-7]{1,3})")
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "?": "?"}


def _po(name: str, text: str) -> Iterator[_Entry | Bad]:
    """Entries one after another; a malformed one is passed over up to the next empty line."""
    entry: _Entry | None = None
    place, fuzzy, broken, gap = ("", 0), False, False, False
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if line.startswith("#"):
            fuzzy = (fuzzy or (line.startswith("#,") and "fuzzy" in line)) and not line.startswith("#~")
            continue
        if broken or not line:
            broken, gap = broken and bool(line), not line
            continue
        match = _KEYWORD.match(line)
        string = _STRING.match(match[3] if match else line)
        starts = match is not None and (match[1] == "msgctxt" or (match[1] == "msgid" and place[0] != "msgctxt"))
        if entry is not None and entry.forms and (starts or (string is None and gap)):
            yield entry
            entry = None
        if string is None or (entry is None and not starts):
            yield Bad(f"{name}:{number}", "is no line of a catalogue", shown(line))
            entry, place, fuzzy, broken = None, ("", 0), False, True
            continue
        if starts:
            entry, fuzzy = _Entry(f"{name}:{number}", fuzzy=fuzzy), False
        if match:
            place = (match[1], int(match[2] or 0))
        assert entry is not None
        _put(entry, place, _unescaped(string[1]))
        gap = False
    if entry is not None and entry.forms:
        yield entry


def _put(entry: _Entry, place: tuple[str, int], words: str) -> None:
    word, number = place
    if word == "msgctxt":
        entry.context = (entry.context or "") + words
    elif word == "msgid":
        entry.id += words
    elif word == "msgid_plural":
        entry.plural += words
    else:
        entry.forms[number] = entry.forms.get(number, "") + words


def _unescaped(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        sign = match[1]
        return _ESCAPED.get(sign) or chr(int(sign[1:], 16) if sign[0] == "x" else int(sign, 8))

    return _ESCAPE.sub(one, text) if "\\" in text else text


# -- .mo: https://www.gnu.org/software/gettext/manual/html_node/MO-Files.html -----------------------------------------


def _mo(file: File) -> Iterator[_Entry | Bad]:
    try:
        with file.open() as stream:
            raw = stream.read(64_000_000)
    except BROKEN as error:
        yield Bad(file.name, f"the archive is broken: {error}")
        return
    order = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}.get(raw[:4])
    if order is None or len(raw) < 20:
        yield Bad(f"{file.name}:1", "is no .mo catalogue", shown(raw))
        return
    count, ids, strings = struct.unpack(f"{order}3I", raw[8:20])
    charset = "utf-8"
    for number in range(min(count, (len(raw) - 20) // 16 + 1)):
        where = f"{file.name}:entry {number + 1}"
        try:
            size, at = struct.unpack_from(f"{order}2I", raw, ids + 8 * number)
            told_size, told_at = struct.unpack_from(f"{order}2I", raw, strings + 8 * number)
        except struct.error:
            yield Bad(where, "the catalogue is cut off here")
            return
        asked, told = raw[at : at + size], raw[told_at : told_at + told_size]
        if not asked:
            match = re.search(rb"charset=([A-Za-z0-9_.-]+)", told)
            charset = (known_encoding(match[1].decode()) if match else "") or charset
            continue
        sides = [decoded(side, where, charset) for side in (asked, told)]
        if bad := next((side for side in sides if isinstance(side, Bad)), None):
            yield bad
            continue
        context, mark, message = str(sides[0]).rpartition("\x04")
        single, _, plural = message.partition("\0")
        yield _Entry(
            where, single, plural, context if mark else None, False, dict(enumerate(str(sides[1]).split("\0")))
        )
