"""Rows, examples and datasets: a conversation whose last message is the answer, in an order that can be repeated."""

from __future__ import annotations

import hashlib
import json
import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from .content import Message, files_below, found_below
from .errors import DataError
from .rows import example_messages


@dataclass(frozen=True, slots=True)
class Row:
    """A raw row as a source read it: `where` is `file:line` or whatever lets a person find it again."""

    where: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that could not be read, with the reason; `raw` holds its first characters."""

    where: str
    reason: str
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn or to be tested on, in any modality.

    A chat, a caption, a picture for a prompt, a voice for a line: each is a conversation whose last message is the
    answer. `meta` may hold `rejected` (a Message, for preferences), `label`, `group` (near-duplicates share one),
    `where` and what is known of a picture: `style`, `concept` (what is shown), `captions` {language: [caption, …]},
    `licence` and `attribution`.
    """

    messages: tuple[Message, ...]
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> tuple[Message, ...]:
        return self.messages[:-1]

    @property
    def answer(self) -> Message:
        return self.messages[-1]

    def as_dict(self, named: Callable[[Path], str] = str) -> dict[str, Any]:
        """The canonical row: `{"messages": […], "meta": {…}}`. `named` says how a file is written down."""
        meta = {k: v.as_dict(named) if isinstance(v, Message) else v for k, v in self.meta.items()}
        row: dict[str, Any] = {"messages": [m.as_dict(named) for m in self.messages]}
        return row | ({"meta": meta} if meta else {})

    @classmethod
    def from_dict(cls, row: dict[str, Any], folder: Path | None = None) -> Example:
        """A canonical row; relative files lie in `folder`."""
        meta = dict(row.get("meta") or {})
        if isinstance(meta.get("rejected"), dict):
            meta["rejected"] = example_messages([meta["rejected"]])[0]
        example = cls(example_messages(row["messages"]), meta)
        return example.with_messages(lambda message: found_below(folder, message)) if folder else example

    def with_messages(self, change: Callable[[Message], Message]) -> Example:
        """The example with every message changed, the rejected one too."""
        meta = {k: change(v) if isinstance(v, Message) else v for k, v in self.meta.items()}
        return Example(tuple(map(change, self.messages)), meta)

    def digest(self) -> str:
        """sha256 (hex) of the conversation alone: words and the names of files, which prepared data makes of their
        content, wherever they lie."""
        plain = [m.as_dict(lambda path: path.name) for m in self.messages]
        return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


class Dataset(Sequence[Example]):
    """Examples in a known order with a fingerprint, in memory or in a canonical JSON-lines file read row by row."""

    def __init__(self, examples: Iterable[Example] = (), *, fingerprint: str = ""):
        self._examples: Sequence[Example] = list(examples)
        self._fingerprint = fingerprint

    @classmethod
    def open(cls, path: Path) -> Dataset:
        """A dataset that stays on disk: only the byte offset of each line is held in memory (8 bytes a row).

        Raises DataError when the file is not there.
        """
        dataset = cls()
        lines = _Lines(path)
        dataset._examples, dataset._fingerprint = lines, lines.fingerprint
        return dataset

    def save(self, path: Path) -> Path:
        """Write the canonical rows; files below the same folder are named relative to it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        named = files_below(path.parent)
        with path.open("w", encoding="utf-8") as file:
            for example in self:
                file.write(json.dumps(example.as_dict(named), ensure_ascii=False) + "\n")
        return path

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Example | Dataset:
        if isinstance(index, slice):
            return Dataset(self._examples[i] for i in range(*index.indices(len(self))))
        return self._examples[index]

    def __iter__(self) -> Iterator[Example]:
        return iter(self._examples)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of all conversations in order."""
        if not self._fingerprint:
            digest = hashlib.sha256()
            for example in self:
                digest.update(json.dumps(example.as_dict(lambda path: path.name), ensure_ascii=False).encode() + b"\n")
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def order(self, seed: int, epoch: int) -> list[int]:
        """The order of the rows in an epoch: a pure function of (length, seed, epoch)."""
        order = list(range(len(self)))
        random.Random(f"order {seed} {epoch}").shuffle(order)
        return order

    def sample(self, count: int, seed: int) -> list[Example]:
        """`count` random rows (fewer when there are fewer), the same for the same seed."""
        chosen = random.Random(f"sample {seed}").sample(range(len(self)), min(count, len(self)))
        return [self[i] for i in chosen]


class _Lines(Sequence[Example]):
    """The rows of a canonical JSON-lines file, found by byte offset."""

    def __init__(self, path: Path):
        if not path.is_file():
            raise DataError(f"There is no prepared data at {path}.", "Run `genwright prepare` on the recipe first.")
        self.path = path
        self.offsets = array("q")
        digest, offset = hashlib.sha256(), 0
        with path.open("rb") as file:
            for line in file:
                self.offsets.append(offset)
                offset += len(line)
                digest.update(line)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        with self.path.open("rb") as file:
            file.seek(self.offsets[index])
            return Example.from_dict(json.loads(file.readline()), self.path.parent)

    def __iter__(self) -> Iterator[Example]:
        with self.path.open("rb") as file:
            for line in file:
                yield Example.from_dict(json.loads(line), self.path.parent)
