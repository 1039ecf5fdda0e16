"""Outbox: a folder for each answer in files, where the model's process puts them; it is gone when the answer is."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path

from genwright.core import GenwrightError, Part

from .errors import Wrong

FOLDER = "outbox"
_STALE = 86_400  # seconds after which a folder belongs to nobody: a server that was killed left it


@contextmanager
def outbox(data: Path) -> Iterator[Path]:
    """A new folder below the server's data folder, for one answer."""
    folder = data / FOLDER / secrets.token_hex(16)
    folder.mkdir(parents=True, mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def unplaced(parts: AsyncGenerator[Part], folder: Path) -> AsyncGenerator[Part]:
    """The parts; what goes wrong is told without where the files lie."""
    async with aclosing(parts):
        try:
            async for part in parts:
                yield part
        except GenwrightError as error:
            error.message, error.hint = (said.replace(f"{folder}/", "") for said in (error.message, error.hint))
            raise
        except Wrong as error:
            error.args = (str(error).replace(f"{folder}/", ""),)
            raise


def label_of(file: Path) -> str:
    """The label of a file's mark as the header X-AIGC says it; empty where it has none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        facts = json.loads(file.with_name(f"{file.name}.genwright.json").read_text(encoding="utf-8"))
        return json.dumps(facts["AIGC"], separators=(",", ":"), ensure_ascii=True)
    return ""


def sweep(data: Path) -> None:
    """Remove what servers that were killed left behind."""
    for folder in (data / FOLDER).glob("*"):
        with suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > _STALE:
                shutil.rmtree(folder, ignore_errors=True)
