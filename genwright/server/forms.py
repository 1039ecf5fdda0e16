"""Forms: multipart bodies (RFC 7578), read as they arrive; files in them go straight to drafts on the disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from .errors import Wrong
from .house import house_of
from .store.blobs import Draft

_MOST_PARTS = 32  # beside files
_LARGEST_FIELD = 65_536  # bytes
_AT_ONCE = 1 << 20  # bytes that are gathered before a thread writes them


@dataclass
class Sent:
    """A file of a form: the part's `name`, and what the client calls the file, unchecked."""

    name: str
    filename: str
    draft: Draft


@dataclass
class Form:
    """`fields` as text, `a[b]` as {"a": {"b": …}}, several `a[]` as a list; `files` in their order."""

    fields: dict[str, Any] = field(default_factory=dict)
    files: list[Sent] = field(default_factory=list)

    @property
    def draft(self) -> Draft:
        """Of the first file."""
        return self.files[0].draft

    @property
    def filename(self) -> str:
        return self.files[0].filename


@asynccontextmanager
async def read_form(request: Request, *, file: str, largest: int) -> AsyncIterator[Form]:
    """The body's fields, and the part called `file` as a draft that is gone when this ends unless it was kept.

    Raises Wrong: 415 for another kind of body, 400 when it is malformed or has no such part, 413 past `largest` bytes.
    """
    async with read_files(request, {file: 1}, largest=largest) as form:
        yield form


@asynccontextmanager
async def read_files(
    request: Request, most: Mapping[str, int], *, largest: int, field: int = _LARGEST_FIELD
) -> AsyncIterator[Form]:
    """As `read_form`, for parts of several names, each with the number that may be sent; the first name must be there.
    `name[]` is the same as `name`. `largest` is for all files together, `field` bytes for each field that is none."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data":
        raise Wrong(415, "The body must be multipart/form-data.", code="unsupported_media_type")
    if not boundary:
        raise Wrong(400, "The body's Content-Type names no boundary.", code="invalid_form")
    with ExitStack() as stack:
        form = Form()
        reading = _Reading(form, most, lambda: stack.enter_context(house_of(request).blobs.new()), largest, field)
        try:
            parser = MultipartParser(boundary, reading.callbacks())  # type: ignore[arg-type]
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    parser.write(chunk)
                    if reading.size >= _AT_ONCE:
                        await reading.write()
        except FormParserError as error:
            raise Wrong(400, f"The form is malformed: {str(error)[:200]}.", code="invalid_form") from None
        await reading.write()
        if not reading.ended:
            raise Wrong(400, "The form ends before its last boundary.", code="invalid_form")
        first = next(iter(most))
        if not any(sent.name == first for sent in form.files):
            raise Wrong(400, f"The form has no part called {first!r}.", param=first, code="missing_file")
        yield form


class _Reading:
    """What the parser has seen so far. Its callbacks come in the order of the bytes, and must not wait."""

    def __init__(self, form: Form, most: Mapping[str, int], new: Callable[[], Draft], largest: int, field: int):
        self.form, self.most, self.new, self.largest, self.field = form, most, new, largest, field
        self.waiting: list[tuple[Draft, bytearray]] = []
        self.size = self.all = 0  # bytes that wait; of all files
        self.name, self.is_file, self.ended = "", False, False
        self.header, self.value, self.headers = bytearray(), bytearray(), dict[bytes, bytes]()
        self.text = bytearray()
        self.seen: set[str] = set()
        self.parts = 0

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_header_field": lambda data, start, end: self.header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self.value.extend(data[start:end]),
            "on_header_end": self._header_ends, "on_headers_finished": self._part_begins,
            "on_part_data": self._part_data, "on_part_end": self._part_ends, "on_end": self._all_ends,
        }  # fmt: skip

    async def write(self) -> None:
        """Hand what waits to the drafts, in a thread."""
        waiting, self.waiting, self.size = self.waiting, [], 0

        def write() -> None:
            for draft, data in waiting:
                draft.write(bytes(data))

        if waiting:
            await asyncio.to_thread(write)

    def _header_ends(self) -> None:
        self.headers[bytes(self.header).lower()] = bytes(self.value)
        self.header.clear()
        self.value.clear()

    def _part_begins(self) -> None:
        _, said = parse_options_header(self.headers.get(b"content-disposition"))
        self.headers.clear()
        self.name = said.get(b"name", b"").decode("utf-8", "replace")
        file = self.name.removesuffix("[]")
        self.is_file = file in self.most
        if self.is_file:
            self._file_begins(file, said.get(b"filename", b"").decode("utf-8", "replace"))
            return
        again = self.name in self.seen and not self.name.endswith("[]")  # a list has as many parts as it has members
        self.parts += 1
        if not self.name or again or self.parts > _MOST_PARTS:
            raise Wrong(400, "Each part of the form needs a name of its own, and there may be "
                        f"{_MOST_PARTS}.", param=self.name[:100] or None, code="invalid_form")  # fmt: skip
        self.seen.add(self.name)

    def _file_begins(self, name: str, filename: str) -> None:
        if sum(sent.name == name for sent in self.form.files) == self.most[name]:
            allowed = "one part" if self.most[name] == 1 else f"{self.most[name]} parts"
            raise Wrong(400, f"The form may have {allowed} called {name!r}.", param=name, code="invalid_form")
        self.form.files.append(Sent(name, filename, self.new()))
        self.waiting.append((self.form.files[-1].draft, bytearray()))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self.is_file:
            self.all += end - start
            if self.all > self.largest:
                raise Wrong(413, f"The file is larger than {self.largest:,} bytes.", param=self.form.files[-1].name,
                            code="too_large")  # fmt: skip
            if not self.waiting:
                self.waiting.append((self.form.files[-1].draft, bytearray()))
            self.waiting[-1][1].extend(data[start:end])
            self.size += end - start
        elif len(self.text) + end - start > self.field:
            raise Wrong(413, f"{self.name[:100]} is larger than {self.field:,} bytes.",
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
            elif self.name.endswith("[]") and name in self.form.fields:
                before = self.form.fields[name]
                self.form.fields[name] = [*(before if isinstance(before, list) else [before]), text]
            else:
                self.form.fields[name] = text
        self.text.clear()

    def _all_ends(self) -> None:
        self.ended = True
