"""Forms: multipart bodies (RFC 7578), read as they arrive; the file in them goes straight to a draft on the disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from .errors import Wrong
from .house import house_of
from .store.blobs import Draft

_MOST_PARTS = 16
_LARGEST_FIELD = 65_536  # bytes
_AT_ONCE = 1 << 20  # bytes that are gathered before a thread writes them


@dataclass
class Form:
    """`fields` as text, `a[b]` as {"a": {"b": …}}; `filename` is what the client calls the file, unchecked."""

    draft: Draft
    fields: dict[str, Any] = field(default_factory=dict)
    filename: str | None = None


@asynccontextmanager
async def read_form(request: Request, *, file: str, largest: int) -> AsyncIterator[Form]:
    """The body's fields, and the part called `file` as a draft that is gone when this ends unless it was kept.

    Raises Wrong: 415 for another kind of body, 400 when it is malformed or has no such part, 413 past `largest` bytes.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data":
        raise Wrong(415, "The body must be multipart/form-data.", code="unsupported_media_type")
    if not boundary:
        raise Wrong(400, "The body's Content-Type names no boundary.", code="invalid_form")
    with house_of(request).blobs.new(largest=largest) as draft:
        form = Form(draft)
        reading = _Reading(form, file)
        try:
            parser = MultipartParser(boundary, reading.callbacks())  # type: ignore[arg-type]
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    parser.write(chunk)
                    if len(reading.waiting) >= _AT_ONCE:
                        await reading.write()
        except FormParserError as error:
            raise Wrong(400, f"The form is malformed: {str(error)[:200]}.", code="invalid_form") from None
        await reading.write()
        if not reading.ended:
            raise Wrong(400, "The form ends before its last boundary.", code="invalid_form")
        if form.filename is None:
            raise Wrong(400, f"The form has no part called {file!r}.", param=file, code="missing_file")
        yield form


class _Reading:
    """What the parser has seen so far. Its callbacks come in the order of the bytes, and must not wait."""

    def __init__(self, form: Form, file: str):
        self.form, self.file = form, file
        self.waiting = bytearray()
        self.name, self.is_file, self.ended = "", False, False
        self.header, self.value, self.headers = bytearray(), bytearray(), dict[bytes, bytes]()
        self.text = bytearray()
        self.seen: set[str] = set()

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_header_field": lambda data, start, end: self.header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self.value.extend(data[start:end]),
            "on_header_end": self._header_ends, "on_headers_finished": self._part_begins,
            "on_part_data": self._part_data, "on_part_end": self._part_ends, "on_end": self._all_ends,
        }  # fmt: skip

    async def write(self) -> None:
        """Hand what waits to the draft, in a thread."""
        data, self.waiting = bytes(self.waiting), bytearray()
        if data:
            await asyncio.to_thread(self.form.draft.write, data)

    def _header_ends(self) -> None:
        self.headers[bytes(self.header).lower()] = bytes(self.value)
        self.header.clear()
        self.value.clear()

    def _part_begins(self) -> None:
        _, said = parse_options_header(self.headers.get(b"content-disposition"))
        self.headers.clear()
        self.name = said.get(b"name", b"").decode("utf-8", "replace")
        self.is_file = self.name == self.file
        if not self.name or self.name in self.seen or len(self.seen) == _MOST_PARTS:
            raise Wrong(400, "Each part of the form needs a name of its own, and there may be "
                        f"{_MOST_PARTS}.", param=self.name[:100] or None, code="invalid_form")  # fmt: skip
        self.seen.add(self.name)
        if self.is_file:
            self.form.filename = said.get(b"filename", b"").decode("utf-8", "replace")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self.is_file:
            self.waiting += data[start:end]
        elif len(self.text) + end - start > _LARGEST_FIELD:
            raise Wrong(413, f"{self.name[:100]} is larger than {_LARGEST_FIELD:,} bytes.",
                        param=self.name[:100], code="too_large")  # fmt: skip
        else:
            self.text += data[start:end]

    def _part_ends(self) -> None:
        if not self.is_file:
            name, _, inner = self.name.removesuffix("]").partition("[")
            text = self.text.decode("utf-8", "replace")
            if inner:
                group = self.form.fields.setdefault(name, {})
                if isinstance(group, dict):
                    group[inner] = text
            else:
                self.form.fields[name] = text
        self.text.clear()

    def _all_ends(self) -> None:
        self.ended = True
