"""JSON lines: an uploaded file of objects, read once to know where each stands and what is wrong with which."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

MOST_LINES = 50_000
_MOST_PROBLEMS = 100  # that are told one by one


@dataclass
class Lines:
    """The objects of a file: where each begins and ends, and what is wrong with the file.

    A line is known by its number, from 1; blank ones are passed over.
    """

    path: Path
    starts: array[int] = field(default_factory=lambda: array("q"))
    ends: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[int] = field(default_factory=lambda: array("q"))
    models: dict[str, None] = field(default_factory=dict)
    problems: list[dict[str, Any]] = field(default_factory=list)
    ended_early: bool = False  # there are more than MOST_LINES

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, place: int) -> dict[str, Any]:
        """The object at a place (from 0) of those that there are."""
        with self.path.open("rb") as file:
            file.seek(self.starts[place])
            found: dict[str, Any] = orjson.loads(file.read(self.ends[place] - self.starts[place]))
        return found

    def object(self, line: int | None, code: str, message: str, param: str | None = None) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append({"line": line, "code": code, "message": message, "param": param})


def look_through(path: Path, check: Callable[[Lines, int, dict[str, Any]], None]) -> Lines:
    """Read a whole file; `check(lines, number, object)` objects to what it does not like."""
    lines, at = Lines(path), 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            start, at = at, at + len(line)
            if not line.strip():
                continue
            if len(lines) == MOST_LINES:
                lines.ended_early = True
                break
            start += 3 * (number == 1 and line.startswith(b"\xef\xbb\xbf"))
            lines.starts.append(start)
            lines.ends.append(at)
            lines.numbers.append(number)
            try:
                found = orjson.loads(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
            except orjson.JSONDecodeError as error:
                lines.object(number, "invalid_json_line", f"This line is not JSON: {str(error)[:200]}.")
                continue
            if isinstance(found, dict):
                check(lines, number, found)
            else:
                lines.object(number, "invalid_json_line", f"This line is a {type(found).__name__}, not an object.")
    return lines
