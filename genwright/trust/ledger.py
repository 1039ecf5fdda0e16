"""Ledger: one line for each answer, refused or not, chained by hashes so that a later change shows.

JSON lines, appended only. Each row holds its number, the hash of the row before and its own; `ledger.head` beside it
holds the number and hash of the last row, so that rows cut off the end are missed too. Rows hold hashes and lengths of
what was said, never the words. The chain has no secret: an edit, a loss or a slip shows, but a person who rewrites the
rows from some point on and the head too leaves no trace in them. Keep a copy of the head elsewhere to notice even that.

Several processes may write: they take turns on `ledger.lock`. Every row is on disk (fsync) before the call returns. A
process killed while it writes leaves at most a torn last line; the next writer cuts it off and writes a row `mended`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genwright.core.errors import GenwrightError
from genwright.core.home import locked, state

_FIRST = "0" * 64
_TAIL = 1 << 16  # bytes read from the end to find the last row; rows are about 1 kB


@dataclass(frozen=True)
class Verified:
    """What `verify` found. `row` is the number of the first row that is not as it was written (0: none)."""

    ok: bool
    rows: int
    sentence: str
    row: int = 0


def default_path() -> Path:
    return state() / "ledger.jsonl"


class Ledger:
    """A ledger file. `append` is safe between threads and processes."""

    def __init__(self, path: Path | None = None):
        self.path = path or default_path()

    def append(self, event: str, **facts: Any) -> dict[str, Any]:
        """Write a row and return it. Raises GenwrightError when it cannot be written: then nothing may be answered."""
        try:
            with locked(self.path.with_suffix(".lock")), self.path.open("a+b") as file:
                number, previous = self._last(file)
                body = {"n": number + 1, "time": _now(), "event": event, **facts, "previous": previous}
                line, own = _line(body)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
                self._note_head(number + 1, own)
        except OSError as error:
            raise GenwrightError(
                f"The ledger {self.path} cannot be written: {error.strerror}. Nothing is answered without it.",
                "Mend the folder's permissions or free some space; GENWRIGHT_HOME moves it elsewhere.",
            ) from None
        return body | {"hash": own}

    def check_writable(self) -> None:
        """Raise GenwrightError now rather than after an answer was made."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()
        except OSError as error:
            raise GenwrightError(
                f"The ledger {self.path} cannot be written: {error.strerror}. Nothing is answered without it.",
                "Mend the folder's permissions or free some space; GENWRIGHT_HOME moves it elsewhere.",
            ) from None

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows in order; a torn last line is passed over."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield json.loads(line)

    def find(self, sha256: str) -> Iterator[dict[str, Any]]:
        """Rows that are as they were written and hold this hash, of a request, an answer or whatever."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            for line in file:
                if sha256.encode() in line and line.endswith(b"\n"):
                    row = json.loads(line)
                    if not _wrong(line, row.get("n", 0), row.get("previous", "")):
                        yield row

    def _last(self, file: Any) -> tuple[int, str]:
        """Number and hash of the last row, after mending a torn end. The file is at its end afterwards."""
        size = file.seek(0, os.SEEK_END)
        if not size:
            return 0, _FIRST
        start = max(0, size - _TAIL)
        file.seek(start)
        tail = file.read()
        whole, _, torn = tail.rpartition(b"\n")
        if torn:
            file.truncate(size - len(torn))
            file.seek(0, os.SEEK_END)
        row: dict[str, Any] = json.loads(whole.rpartition(b"\n")[2]) if whole else {"n": 0, "hash": _FIRST}
        if not torn:
            return row["n"], row["hash"]
        body = {"n": row["n"] + 1, "time": _now(), "event": "mended", "bytes": len(torn), "previous": row["hash"]}
        line, own = _line(body)
        file.write(line)
        return row["n"] + 1, own

    def _note_head(self, number: int, own: str) -> None:
        """One write of a fixed length, in place: it is whole or it is the old one."""
        with open(os.open(self.path.with_suffix(".head"), os.O_RDWR | os.O_CREAT, 0o644), "r+b") as head:
            head.write(f"{number:020d} {own}\n".encode())


def verify(path: Path | None = None) -> Verified:
    """Read the whole ledger and name the first row that was edited, removed or put in."""
    ledger = Ledger(path)
    if not ledger.path.is_file():
        return Verified(True, 0, "There is no ledger yet.")
    count, head = _head(ledger.path.with_suffix(".head"))  # read first: a writer may add rows while we read
    number, last, torn = 0, _FIRST, ""
    with ledger.path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                torn = " A writer was killed: the last line is torn; the next writer mends it."
                break
            if wrong := _wrong(line, number + 1, last):
                told = f"Row {number + 1} {wrong}. The {number} before it are as they were written."
                return Verified(False, number, told, number + 1)
            number, last = number + 1, str(json.loads(line)["hash"])
            if number == count and last != head:
                return Verified(False, number - 1, f"Row {number} is not the one that was written.", number)
    if count < 0:
        return Verified(False, number, f"{number} rows hang together, but the head is missing or broken.", number)
    if count > number:
        return Verified(False, number, f"Row {number + 1} is missing: there were {count} rows.", number + 1)
    return Verified(True, number, f"All {number} rows are as they were written.{torn}")


def _head(path: Path) -> tuple[int, str]:
    """Number and hash of the last row. It may lag (a kill between the two writes), never lead. -1: unreadable."""
    try:
        count, own = path.read_text(encoding="ascii").split()
        return int(count), own
    except (OSError, ValueError):
        return -1, ""


def _wrong(line: bytes, number: int, previous: str) -> str:
    """What is not right with the row that should be number `number`, or nothing."""
    try:
        row = json.loads(line)
        body = line[: -len(_ending(row["hash"]))] + b"}"
        own, found, before = hashlib.sha256(body).hexdigest(), row["n"], row["previous"]
    except (ValueError, KeyError, TypeError):
        return "is no row of a ledger"
    if own != row["hash"]:
        return "was edited"
    if found != number:
        return f"is missing (row {found} stands in its place)"
    return "" if before == previous else "does not follow the row before it"


def _line(body: dict[str, Any]) -> tuple[bytes, str]:
    text = json.dumps(body, ensure_ascii=True).encode()
    own = hashlib.sha256(text).hexdigest()
    return text[:-1] + _ending(own), own


def _ending(own: str) -> bytes:
    return f', "hash": "{own}"}}\n'.encode()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() // 1_000_000 % 1000:03d}Z"
