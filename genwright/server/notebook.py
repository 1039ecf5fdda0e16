"""Notebook: answers to many requests, kept as they come, so that a job whose server was killed asks none again.

It is a file that only grows; an answer counts once it is on the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from .child import undisturbed


class Notebook:
    """What was answered, in the order in which it came: {"n": its number, "line": what is kept of it, "good" …}.

    `input` and `output` are its tokens.
    """

    def __init__(self, path: Path):
        self.path = path
        self.places: dict[int, int] = {}  # line number -> where its entry begins
        self.totals = {"completed": 0, "failed": 0, "input": 0, "output": 0}
        self._end = 0
        self._fresh: list[dict[str, Any]] = []
        self.writing = asyncio.Lock()

    def open(self) -> None:
        """Learn what it holds; a torn last entry is cut off."""
        with contextlib.suppress(FileNotFoundError), self.path.open("r+b") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    file.truncate(self._end)
                    break
                self._learn(orjson.loads(line), self._end)
                self._end += len(line)

    def write(self, entries: Iterable[dict[str, Any]]) -> None:
        """Add entries; they are on the disk when this returns."""
        data = bytearray()
        fresh = []
        for entry in entries:
            if entry["n"] not in self.places:
                fresh.append((entry, self._end + len(data)))
                data += orjson.dumps(entry) + b"\n"
        with self.path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._end += len(data)
        for entry, place in fresh:
            self._learn(entry, place)

    async def keep(self, entry: dict[str, Any]) -> None:
        """On the disk when this returns, with all that came meanwhile: many answers share one write. Also when it is
        cancelled, it does not return while the file is being written."""
        self._fresh.append(entry)
        async with self.writing:
            fresh, self._fresh = self._fresh, []
            if not fresh:
                return
            written = asyncio.ensure_future(asyncio.to_thread(self.write, fresh))
            try:
                await asyncio.shield(written)
            except asyncio.CancelledError:
                await undisturbed(written)
                raise

    def read(self, number: int) -> dict[str, Any] | None:
        """The entry of that number; None when it has not been answered."""
        if number not in self.places:
            return None
        with self.path.open("rb") as file:
            return self._entry(file, number)

    def lines(self, good: bool) -> Iterator[bytes]:
        """Lines of the output file (`good`) or of the error file, in the order of the input."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            for number in sorted(self.places):
                entry = self._entry(file, number)
                if entry["good"] is good:
                    yield orjson.dumps(entry["line"]) + b"\n"

    def _entry(self, file: BinaryIO, number: int) -> dict[str, Any]:
        file.seek(self.places[number])
        found: dict[str, Any] = orjson.loads(file.readline())
        return found

    def _learn(self, entry: dict[str, Any], place: int) -> None:
        if entry["n"] in self.places:  # of two servers that both believed the batch to be theirs
            return
        self.places[entry["n"]] = place
        self.totals["completed" if entry["good"] else "failed"] += 1
        for name in ("input", "output"):
            self.totals[name] += entry[name]
