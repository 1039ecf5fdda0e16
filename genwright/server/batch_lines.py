"""Batch lines: an uploaded file of requests, checked line by line, and a notebook of those that were answered.

The notebook is a file that only grows; an answer counts once it is on the disk. So a batch whose server was killed goes
on with the lines that have none, and its result files hold each line once.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

MOST_LINES = 50_000
NO_MODEL = ("/v1/moderations",)  # endpoints that are answered by guards
_MOST_PROBLEMS = 100  # that are told one by one
_LONGEST_ID = 512


@dataclass
class Lines:
    """The requests of a file: where each begins and ends, and what is wrong with the file.

    A line is known by its number, from 1; blank ones have none to answer.
    """

    path: Path
    starts: array[int] = field(default_factory=lambda: array("q"))
    ends: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[int] = field(default_factory=lambda: array("q"))
    models: dict[str, None] = field(default_factory=dict)
    problems: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, place: int) -> dict[str, Any]:
        """The request at a place (from 0) of those that there are."""
        with self.path.open("rb") as file:
            file.seek(self.starts[place])
            found: dict[str, Any] = orjson.loads(file.read(self.ends[place] - self.starts[place]))
        return found

    def object(self, line: int | None, code: str, message: str, param: str | None = None) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append({"line": line, "code": code, "message": message, "param": param})


def check_lines(path: Path, endpoint: str) -> Lines:
    """Read a whole file; its `problems` are empty when every line can be asked."""
    lines, seen, at = Lines(path), set[str](), 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            start, at = at, at + len(line)
            if not line.strip():
                continue
            if len(lines) == MOST_LINES:
                lines.object(
                    None, "too_many_requests", f"A batch may hold {MOST_LINES:,} requests; this file has more."
                )
                break
            start += 3 * (number == 1 and line.startswith(b"\xef\xbb\xbf"))
            lines.starts.append(start)
            lines.ends.append(at)
            lines.numbers.append(number)
            _check_line(lines, number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, endpoint, seen)
    if not len(lines):
        lines.object(None, "empty_file", "The file holds no request.")
    if len(lines.models) > 1:
        lines.object(None, "mismatched_model", f"A batch asks one model; this one names {', '.join(lines.models)}.",
                     "body.model")  # fmt: skip
    return lines


def _check_line(lines: Lines, number: int, line: bytes, endpoint: str, seen: set[str]) -> None:
    try:
        asked = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        lines.object(number, "invalid_json_line", f"This line is not JSON: {str(error)[:200]}.")
        return
    if not isinstance(asked, dict):
        lines.object(number, "invalid_json_line", f"This line is a {type(asked).__name__}, not an object.")
        return
    id, body = asked.get("custom_id"), asked.get("body")
    if not isinstance(id, str) or not 0 < len(id) <= _LONGEST_ID:
        lines.object(number, "invalid_custom_id", f"`custom_id` must be a text of 1 to {_LONGEST_ID} characters.",
                     "custom_id")  # fmt: skip
    elif id in seen:
        lines.object(number, "duplicate_custom_id", f"The custom_id {id[:100]!r} is used twice.", "custom_id")
    else:
        seen.add(id)
    if asked.get("method", "POST") != "POST":
        lines.object(number, "invalid_method", "`method` must be POST.", "method")
    if asked.get("url") != endpoint:
        lines.object(number, "mismatched_url", f"`url` must be the batch's endpoint, {endpoint}.", "url")
    if not isinstance(body, dict):
        lines.object(number, "missing_required_parameter", "`body` must be an object.", "body")
    elif body.get("stream"):
        lines.object(number, "unsupported_parameter", "Answers of a batch cannot be streamed.", "body.stream")
    elif endpoint in NO_MODEL:
        pass
    elif not isinstance(body.get("model"), str) or not body["model"]:
        lines.object(number, "missing_required_parameter", "`body` must name a `model`.", "body.model")
    else:
        lines.models[body["model"]] = None


class Notebook:
    """What was answered, in the order in which it came: {"n": line number, "line": a line of a result file …}."""

    def __init__(self, path: Path):
        self.path = path
        self.places: dict[int, int] = {}  # line number -> where its entry begins
        self.totals = {"completed": 0, "failed": 0, "input": 0, "output": 0}
        self._end = 0

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

    def lines(self, good: bool) -> Iterator[bytes]:
        """Lines of the output file (`good`) or of the error file, in the order of the input."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            for number in sorted(self.places):
                file.seek(self.places[number])
                entry = orjson.loads(file.readline())
                if entry["good"] is good:
                    yield orjson.dumps(entry["line"]) + b"\n"

    def _learn(self, entry: dict[str, Any], place: int) -> None:
        if entry["n"] in self.places:  # of two servers that both believed the batch to be theirs
            return
        self.places[entry["n"]] = place
        self.totals["completed" if entry["good"] else "failed"] += 1
        for name in ("input", "output"):
            self.totals[name] += entry[name]
