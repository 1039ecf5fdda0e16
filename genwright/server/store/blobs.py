"""Blobs: contents of files, each once, named by its sha256. What is here is whole: written aside, synced, renamed.

A blob may be wanted by several rows, and is to go when the last of them goes. So whoever adds a row for a blob, and
whoever removes blobs without rows, does it under `adding()`, one at a time across processes:

    with blobs.new(largest=…) as draft:          # bytes as they arrive; nothing stays if this fails
        draft.write(chunk)
        with blobs.adding(), store.begin() as session:
            session.add(File(sha256=draft.keep(), size=draft.size, …))
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from genwright.core.home import locked

from ..errors import Wrong

_STALE = 86_400  # seconds after which a draft belongs to nobody


class Blobs:
    """The contents under `folder`, and drafts of those on their way in."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.drafts = folder / "drafts"
        self.drafts.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextmanager
    def new(self, *, largest: int | None = None) -> Iterator[Draft]:
        """A content on its way in. Raises Wrong: 413 past `largest` bytes, 507 when the disk is full."""
        path = self.drafts / secrets.token_hex(16)
        try:
            with path.open("xb", buffering=1 << 20) as file, _room():
                yield Draft(self, file, path, largest)
        finally:
            path.unlink(missing_ok=True)

    def put(self, data: bytes | Iterable[bytes]) -> tuple[str, int]:
        """Keep a content; (sha256, size in bytes). For what gets its row under the same `adding()`."""
        with self.new() as draft:
            for chunk in [data] if isinstance(data, bytes) else data:
                draft.write(chunk)
            return draft.keep(), draft.size

    def path(self, sha256: str) -> Path:
        """Where a content lies. Raises Wrong (500) when it is lost."""
        path = self._place(sha256)
        if not path.is_file():
            raise Wrong(500, f"The content {sha256[:12]}… is not in the server's folder any more; restore a backup.",
                        code="content_lost")  # fmt: skip
        return path

    def open(self, sha256: str) -> BinaryIO:
        return self.path(sha256).open("rb")

    @contextmanager
    def adding(self) -> Iterator[None]:
        """One at a time: rows for blobs are added, or blobs without rows are removed."""
        with locked(self.folder / ".lock"):
            yield

    def sweep(self, wanted: Callable[[], set[str]], among: Iterable[str] | None = None) -> int:
        """Remove blobs (those named, or all) that are not `wanted()`, and drafts of nobody; how many blobs went."""
        gone = 0
        with self.adding():
            for sha256 in set(self.all() if among is None else among) - wanted():
                self._place(sha256).unlink(missing_ok=True)
                gone += 1
        for draft in self.drafts.iterdir():
            with contextlib.suppress(FileNotFoundError):  # it was kept or dropped meanwhile
                if time.time() - draft.stat().st_mtime > _STALE:
                    draft.unlink()
        return gone

    def all(self) -> Iterator[str]:
        """The names of all blobs."""
        for path in self.folder.glob("??/*"):
            if path.parent != self.drafts:
                yield path.name

    def _place(self, sha256: str) -> Path:
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise ValueError(f"{sha256!r} is no sha256")
        return self.folder / sha256[:2] / sha256


class Draft:
    """Bytes being written. `size` and `sha256` are of what came so far."""

    def __init__(self, blobs: Blobs, file: BinaryIO, path: Path, largest: int | None):
        self.blobs, self.file, self.path, self.largest = blobs, file, path, largest
        self.size = 0
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self.largest is not None and self.size > self.largest:
            raise Wrong(413, f"The file is larger than {self.largest:,} bytes.", param="file", code="too_large")
        self._hash.update(data)
        self.file.write(data)

    def sync(self) -> None:
        """On the disk, so that `keep`, which others wait for, is quick."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def keep(self) -> str:
        """Give it its name; its sha256. It stays only if a row asks for it before `adding()` ends."""
        self.sync()
        place = self.blobs._place(self.sha256)
        if not place.exists():
            place.parent.mkdir(exist_ok=True, mode=0o700)
            os.replace(self.path, place)
            for folder in (place.parent, self.blobs.folder):
                _sync_folder(folder)
        return self.sha256


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Wrong(507, "The server's disk is full; delete files or make room.", code="disk_full") from None
        raise


def _sync_folder(folder: Path) -> None:
    if os.name != "nt":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
