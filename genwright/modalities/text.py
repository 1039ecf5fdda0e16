"""Words: UTF-8 text in a file, with a bound on its size."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from genwright.core import DataError, Modality, Part, write_text

MAX_BYTES = 64_000_000


def save(content: Any, path: Path) -> Part:
    """Write the words of a string or of anything that has a string form; a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, str(content))
    return Part(text=str(content), path=path)


def read(part: Part) -> str:
    """The words of a part: of its file if it has one (a byte-order mark is dropped), else its own.

    Raises DataError when the file is not there, is no UTF-8 text or is larger than MAX_BYTES.
    """
    if part.path is None:
        return part.text
    try:
        if part.path.stat().st_size > MAX_BYTES:
            raise DataError(
                f"{part.path} is larger than {MAX_BYTES:,} bytes.", "Split it, or read it as a data source."
            )
        return part.path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{part.path} cannot be read: {error.strerror}.", "Look at its name and permissions.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{part.path} is no UTF-8 text (byte {error.start}).", "Save it as UTF-8.") from None


def check(file: Path | bytes) -> dict[str, str]:
    """Raises DataError when the file is not there, is no UTF-8 text or is larger than MAX_BYTES."""
    if isinstance(file, Path):
        read(Part(path=file))
    elif len(file) > MAX_BYTES:
        raise DataError(f"The text is larger than {MAX_BYTES:,} bytes.", "Split it, or read it as a data source.")
    else:
        try:
            file.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"It is no UTF-8 text (byte {error.start}).", "Save it as UTF-8.") from None
    return {"suffix": ".txt"}


def html(part: Part) -> str:
    return f"<pre>{escape(read(part))}</pre>"


modality = Modality("text", ".txt", save, read, check, html)
