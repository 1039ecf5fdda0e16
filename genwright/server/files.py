"""Files: how one is kept, shown and removed, for routes and jobs alike."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from .errors import Wrong
from .house import House
from .housekeeping import drop_blobs, forget_file
from .store.blobs import Draft
from .store.documents import mine
from .store.tables import File
from .wire import new_id, now

_CHUNK = 1 << 20
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


async def save_file(
    house: House, owner: str, name: str, purpose: str, data: bytes | Path | Iterable[bytes], *, id: str = "",
    lives: int | None = None,
) -> File:  # fmt: skip
    """Keep `data` as a file of `owner`'s, as results of jobs are; it expires when it has lived `lives` seconds.

    A handler that may be called again after it died gives an `id` made from its job's: the file that was kept by that
    name before is given again. Raises Wrong: 507 when the disk is full, 503 when the store is away.
    """

    def save() -> File:
        if id:
            with house.store.begin(reading=True) as session:
                before = session.scalars(select(File).where(File.id == id, File.owner == owner)).one_or_none()
            if before is not None:
                return before
        with house.blobs.new() as draft:
            for chunk in _chunks(data):
                draft.write(chunk)
            return keep(house, draft, owner, name, purpose, lives, id=id)

    return await asyncio.to_thread(save)


async def file_of(house: House, id: str, owner: str) -> File:
    """Raises Wrong (404) when there is none of this owner's, or it has expired."""
    return await house.store.read(living, id, owner)


async def path_of(house: House, id: str, owner: str) -> Path:
    """Where its content lies, to be read only. Raises Wrong (404; 500 when the content is lost)."""
    return house.blobs.path((await file_of(house, id, owner)).sha256)


async def remove_file(house: House, id: str, owner: str) -> None:
    """Also from every vector store; its content goes at once unless another file has the same. Raises Wrong (404)."""

    def remove(session: Session) -> str:
        file = mine(session, File, id, owner, lock=True)
        forget_file(session, file)
        return file.sha256

    sha256 = await house.store.run(remove)
    await house.store.in_thread(lambda: drop_blobs(house.store, house.blobs, {sha256}))


def keep(house: House, draft: Draft, owner: str, name: str, purpose: str, lives: int | None, *, id: str = "") -> File:
    """Make a whole draft a file; it is on the disk when this returns."""
    draft.sync()
    with house.blobs.adding():
        sha256 = draft.keep()
        with house.store.begin() as session:
            return add(session, draft, sha256, owner, name, purpose, lives, id=id)


def add(
    session: Session, draft: Draft, sha256: str, owner: str, name: str, purpose: str, lives: int | None, *,
    id: str = "",
) -> File:  # fmt: skip
    """The row of a kept draft, under the `adding()` that kept it."""
    made = now()
    file = File(
        id=id or new_id("file-"), owner=owner, created=made, name=safe_name(name), purpose=purpose, size=draft.size,
        sha256=sha256, expires=None if lives is None else made + lives,
    )  # fmt: skip
    session.add(file)
    return file


def living(session: Session, id: str, owner: str) -> File:
    file = mine(session, File, id, owner)
    if file.expires is not None and file.expires <= now():
        raise Wrong(404, f"The file {id!r} has expired.", param="id", code="not_found")
    return file


def shown(file: File) -> dict[str, Any]:
    """OpenAI's shape."""
    return {
        "id": file.id, "object": "file", "bytes": file.size, "created_at": file.created, "filename": file.name,
        "purpose": file.purpose, "status": "processed", "expires_at": file.expires, "status_details": None,
    }  # fmt: skip


def safe_name(name: str) -> str:
    """A client's name for a file without folders, control characters and what turns text around; at most 255 bytes.

    It is only shown and sent back: nothing is ever stored under it.
    """
    last = _CONTROL.sub("", name.replace("\\", "/").rpartition("/")[2]).strip()
    while len(last.encode("utf-8")) > 255:
        stem, dot, end = last.rpartition(".")
        last = f"{stem[:-1]}.{end}" if dot and stem and len(end) < 20 else last[:-1]
    return last if last.strip(".") else "file"


def _chunks(data: bytes | Path | Iterable[bytes]) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield data
    elif isinstance(data, Path):
        with data.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    else:
        yield from data
