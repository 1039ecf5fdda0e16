"""Housekeeping: what has expired goes, and contents that no file needs any more."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from .outbox import sweep
from .store import Store
from .store.blobs import Blobs
from .store.tables import Document, File, Upload, UploadPart, VectorFile

if TYPE_CHECKING:
    from .house import House

_KEPT = 7 * 86_400  # seconds that an ended upload can still be asked for


async def tidy(house: House, now: float, *, everything: bool = False) -> None:
    """Remove what has expired by `now`; with `everything` also contents that a server which died left behind.

    Raises Wrong (503) when the store is away.
    """
    gone = await house.store.run(_expire, now)
    if everything:
        await house.store.in_thread(lambda: sweep(house.options.data))
    if gone or everything:
        await house.store.in_thread(lambda: drop_blobs(house.store, house.blobs, None if everything else gone))


def drop_blobs(store: Store, blobs: Blobs, among: Collection[str] | None = None) -> int:
    """Remove the blobs (those named, or any) that no row asks for; how many went."""

    def wanted() -> set[str]:
        with store.begin(reading=True) as session:
            asked = [select(table.sha256) for table in (File, UploadPart)]
            if among is not None:
                asked = [query.where(query.selected_columns.sha256.in_(among)) for query in asked]
            return {sha256 for query in asked for sha256 in session.scalars(query)}

    return blobs.sweep(wanted, among)


def forget_file(session: Session, file: File) -> None:
    """Remove a file's row, and the file from every vector store."""
    session.execute(delete(VectorFile).where(VectorFile.file == file.id, VectorFile.owner == file.owner))
    session.delete(file)


def _expire(session: Session, now: float) -> set[str]:
    """The contents of what went."""
    session.execute(delete(Document).where(Document.expires <= now))
    files = session.scalars(select(File).where(File.expires <= now)).all()
    ended = select(Upload.id).where(Upload.expires <= now)
    parts = session.scalars(select(UploadPart).where(UploadPart.upload.in_(ended))).all()
    for file in files:
        forget_file(session, file)
    for part in parts:
        session.delete(part)
    session.execute(delete(Upload).where(Upload.expires <= now - _KEPT))
    return {file.sha256 for file in files} | {part.sha256 for part in parts}
