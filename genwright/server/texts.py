"""Texts: the words of an uploaded file: plain text, Markdown, code, JSON, CSV, HTML; PDF where pypdf is installed."""

from __future__ import annotations

import csv
import importlib.util
import io
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path, PurePath
from typing import Any

import orjson

LONGEST = 40_000_000  # characters; OpenAI reads five million tokens of a file
_PDF_SECONDS = 120


class Unreadable(Exception):
    """`code` is OpenAI's: unsupported_file or invalid_file."""

    def __init__(self, message: str, code: str = "invalid_file"):
        super().__init__(message)
        self.code = code


def text_of(path: Path, name: str) -> str:
    """The words of the file at `path` that a client called `name`. Raises Unreadable."""
    suffix = PurePath(name).suffix.lower()
    if suffix == ".pdf":
        text = _pdf(path)
    else:
        if path.stat().st_size > LONGEST * 4:
            raise Unreadable(f"The file is larger than {LONGEST * 4:,} bytes of text.")
        text = {".html": _html, ".htm": _html, ".json": _json, ".csv": _csv, ".tsv": _csv}.get(suffix, str)(
            _decoded(path.read_bytes(), name)
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if not text:
        raise Unreadable("The file holds no words.")
    if len(text) > LONGEST:
        raise Unreadable(f"The file holds more than {LONGEST:,} characters.")
    return text


def _decoded(data: bytes, name: str) -> str:
    """UTF-8, UTF-16 with its mark, or GB 18030."""
    marks = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
    mark = next((marks[head] for head in marks if data.startswith(head)), None)
    for encoding in [mark] if mark else ["utf-8", "gb18030"]:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise Unreadable(f"{name[:100]} is no text that can be read here (text, Markdown, JSON, CSV, HTML, PDF).",
                     "unsupported_file")  # fmt: skip


def _json(text: str) -> str:
    """Each value behind its path, a line each."""
    try:
        whole = orjson.loads(text)
        return "\n".join(f"{path}: {value}" if path else str(value) for path, value in _values(whole, ""))
    except (orjson.JSONDecodeError, RecursionError):
        return text  # JSON lines under that name, or a broken file: its words are there all the same


def _values(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _values(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner, path)
    elif value is not None and value != "":
        yield path, value


def _csv(text: str) -> str:
    """Each row as `column: value` pairs, a paragraph each."""
    csv.field_size_limit(LONGEST)
    try:
        dialect: Any = csv.Sniffer().sniff(text[:10_000], delimiters=",;\t|")
    except csv.Error:
        dialect = csv.excel
    try:
        rows = list(csv.reader(io.StringIO(text), dialect))
    except csv.Error as error:
        raise Unreadable(f"The table cannot be read: {error}.") from None
    head = rows[0] if rows else []
    told = ("; ".join(f"{name}: {cell}" for name, cell in zip(head, row, strict=False) if cell) for row in rows[1:])
    return "\n\n".join(line for line in told if line) or "; ".join(head)


class _Words(HTMLParser):
    """What a reader of a page sees of its words."""

    hidden = ("script", "style", "template", "noscript", "svg")
    apart = ("p", "div", "br", "li", "tr", "td", "h1", "h2", "h3", "h4", "h5", "h6", "title", "section", "article",
             "table", "pre", "blockquote", "dt", "dd")  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.depth = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.depth += tag in self.hidden
        if tag in self.apart:
            self.words.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.depth = max(0, self.depth - (tag in self.hidden))
        if tag in self.apart:
            self.words.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.depth:
            self.words.append(data)


def _html(text: str) -> str:
    page = _Words()
    page.feed(text)
    page.close()
    lines = (" ".join(line.split()) for line in "".join(page.words).split("\n"))
    return "\n".join(line for line in lines if line)


def _pdf(path: Path) -> str:
    """Read by a process of its own: a broken PDF can take for ever, or all memory."""
    if importlib.util.find_spec("pypdf") is None:
        raise Unreadable("PDF cannot be read on this server (pip install 'genwright[knowledge]').", "unsupported_file")
    try:
        done = subprocess.run([sys.executable, "-m", "genwright.server.pdf_text", str(path)], capture_output=True,
                              timeout=_PDF_SECONDS, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unreadable("The PDF takes too long to read.") from None
    if done.returncode:
        raise Unreadable("The PDF cannot be read: it is broken, encrypted, or takes too much memory.")
    return done.stdout.decode("utf-8", "replace")
