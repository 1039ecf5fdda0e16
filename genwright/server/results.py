"""Results: what jobs take from a caller's files, and the files that they leave."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy.orm import Session

from .errors import Wrong
from .files import living, save_file
from .house import House
from .store.tables import File


async def keep_file(
    house: House, data: bytes | Iterable[bytes], *, id: str, owner: str, name: str, purpose: str,
    lives: int | None = None,
) -> str:  # fmt: skip
    """Keep `data` as the file `id`; done twice it is there once. Returns the id. Raises Wrong (507)."""

    return (await save_file(house, owner, name, purpose, data, id=id, lives=lives)).id


def file_for(session: Session, id: str, owner: str, purpose: str, param: str) -> File:
    """A file of the caller's that was uploaded for `purpose`. Raises Wrong (400) that names the parameter."""
    try:
        file = living(session, id, owner)
    except Wrong:
        raise Wrong(400, f"There is no file {id[:200]!r} here.", param=param, code="file_not_found") from None
    if file.purpose != purpose:
        raise Wrong(400, f"The file {id} was uploaded for {file.purpose!r}, not for {purpose!r}.", param=param,
                    code="wrong_purpose")  # fmt: skip
    return file


def borrow(blob: Path, target: Path) -> None:
    """The content of a blob at `target` too, to be read only: it stays there when the file is deleted."""
    if target.exists():
        return
    try:
        os.link(blob, target)
    except OSError:  # another disk, or a system without links
        part = target.with_name(f".{target.name}.tmp")
        shutil.copyfile(blob, part)
        os.replace(part, target)
