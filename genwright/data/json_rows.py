"""JSON rows: lines, arrays and objects of JSON as rows, streamed, each malformed one named and passed over."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson

from genwright.core import Bad, DataError, Row

from .files import BROKEN, MAX_LINE, MAX_TEXT, File, numbered_lines, shown

_NEXT = re.compile(r"\}\s*,\s*(?=\{)")  # where the row after a malformed one is likely to begin
_SPACE = re.compile(r"[\s,]*")
_BOM = codecs.BOM_UTF8


def json_rows(file: File, key: str = "") -> Iterator[Row | Bad]:
    """The rows of a JSON-lines file, of a JSON array, or of the list under `key` of one JSON object."""
    at = 0
    try:
        with file.open() as stream:
            form = "object" if key else _form(stream.peek(1), file.suffix)  # type: ignore[attr-defined]
            rows = {"lines": _lines, "array": _array}[form](stream, file.name) if form != "object" else None
            for row in rows or _object(stream, file.name, key):
                at += 1
                yield row
    except BROKEN as error:
        yield Bad(f"{file.name}:{at + 1}", f"the compressed file is broken here: {error}")


def _form(head: bytes, suffix: str) -> str:
    """Lines, array or object? `head` is the first megabyte, or what there is."""
    lines = [line for line in head.removeprefix(_BOM).lstrip().split(b"\n", 2)[:2] if line.strip()]
    if lines and lines[0][:1] == b"[":
        return "lines" if suffix != ".json" and len(lines) > 1 and _is_json(lines[0]) else "array"
    if suffix == ".json" and lines and (len(lines) == 1 or not any(map(_is_json, lines))):
        return "object"
    return "lines"


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _is_row(fields: dict[str, Any]) -> bool:
    return not fields.keys().isdisjoint(("messages", "conversations", "instruction", "prompt", "text", "chosen"))


def _lines(stream: BinaryIO, name: str) -> Iterator[Row | Bad]:
    loads = orjson.loads
    for number, line in numbered_lines(stream):
        if number == 1 and line and line.startswith(_BOM):
            line = line[len(_BOM) :]
        try:
            fields = loads(line)  # type: ignore[arg-type]  # None (too long) fails as well
        except orjson.JSONDecodeError as error:
            if line is None or line.strip():
                yield Bad(f"{name}:{number}", _why(line, error), shown(line))
            continue
        if fields.__class__ is dict:
            yield Row(f"{name}:{number}", fields)
        else:
            yield Bad(f"{name}:{number}", f"is a {type(fields).__name__}, not an object with keys", shown(line))


def _why(line: bytes | None, error: Exception) -> str:
    if line is None:
        return f"the line is longer than {MAX_LINE // 1_000_000} MB"
    if b"\0" in line:
        return "holds NUL bytes"
    reason = str(error).split(": line ")[0]
    return f"is not JSON: {reason} (at character {getattr(error, 'pos', 0) + 1})"


def _array(stream: BinaryIO, name: str) -> Iterator[Row | Bad]:
    """The objects of one JSON array, decoded one by one from a window of the file. `where` is the line it begins on."""
    window = _Window(stream)
    scan = json.JSONDecoder().raw_decode
    window.skip(re.compile(r"\s*\["))
    while True:
        window.skip(_SPACE)
        if window.ended or window.text.startswith("]", window.at):
            return
        line = window.line
        try:
            fields, end = scan(window.text, window.at)
        except json.JSONDecodeError as error:
            cut_off = error.msg.startswith("Unterminated") or error.pos >= len(window.text) - 20
            if cut_off and len(window.text) - window.at < MAX_LINE and window.more():
                continue
            yield Bad(f"{name}:{line}", f"is not JSON: {error.msg}", shown(window.text[window.at : window.at + 300]))
            if not window.skip_past(_NEXT):
                return
            continue
        except RecursionError:
            yield Bad(f"{name}:{line}", "is nested too deeply", shown(window.text[window.at : window.at + 300]))
            if not window.skip_past(_NEXT):
                return
            continue
        if end == len(window.text) and window.more():
            continue  # a bare number at the edge of the window may go on
        raw = window.text[window.at : min(end, window.at + 300)]
        window.go(end)
        if isinstance(fields, dict):
            yield Row(f"{name}:{line}", fields)
        else:
            yield Bad(f"{name}:{line}", f"is a {type(fields).__name__}, not an object with keys", shown(raw))


class _Window:
    """A moving window of decoded text over a stream, which knows the line that `at` is on."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.text, self.at, self.line, self.ended = stream, "", 0, 1, False
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self.more()

    def more(self) -> bool:
        """Let go of what is behind, read on at least as much as is held. False at the end of the file."""
        held = self.text[self.at :]
        raw = self.stream.read(max(1 << 20, len(held)))
        self.text, self.at = held + self._decoder.decode(raw, not raw), 0
        return bool(raw)

    def go(self, end: int) -> None:
        self.line += self.text.count("\n", self.at, end)
        self.at = end

    def skip(self, pattern: re.Pattern[str]) -> None:
        while True:
            match = pattern.match(self.text, self.at)
            if match:
                self.go(match.end())
            if self.at < len(self.text):
                return
            if not self.more():
                self.ended = True
                return

    def skip_past(self, pattern: re.Pattern[str]) -> bool:
        self.go(min(self.at + 1, len(self.text)))
        while True:
            if match := pattern.search(self.text, self.at):
                self.go(match.end())
                return True
            self.go(max(self.at, len(self.text) - 1000))
            if not self.more():
                return False


def _object(stream: BinaryIO, name: str, key: str = "") -> Iterator[Row | Bad]:
    """The list under `key` of one JSON object (or its only list of objects). Read whole; `where` is `file:row n`."""
    raw = stream.read(MAX_TEXT * 4 + 1)
    if len(raw) > MAX_TEXT * 4:
        raise DataError(f"{name} is one JSON object of more than {MAX_TEXT * 4 // 10**6} MB.", "Save it as JSON lines.")
    try:
        whole = orjson.loads(raw.removeprefix(_BOM))
    except orjson.JSONDecodeError as error:
        line = raw.count(b"\n", 0, error.pos) + 1
        yield Bad(f"{name}:{line}", _why(raw, error), shown(raw))
        return
    lists = {k: v for k, v in whole.items() if isinstance(v, list)} if isinstance(whole, dict) else {}
    rows = lists.get(key) if key else next(iter(lists.values())) if len(lists) == 1 else None
    if isinstance(whole, dict) and not key and (_is_row(whole) or not lists):
        rows = [whole]
    if rows is None:
        names = ", ".join(sorted(lists)) or "none"
        raise DataError(f"{name} has no list under {key or 'one key'!r}.", f"Set `key` to one of its lists: {names}.")
    for number, fields in enumerate(rows, 1):
        where = f"{name}:row {number}"
        if isinstance(fields, dict):
            yield Row(where, fields)
        else:
            yield Bad(where, f"is a {type(fields).__name__}, not an object with keys", shown(str(fields)))
