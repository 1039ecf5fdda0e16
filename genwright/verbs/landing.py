"""Landing: the files that rows name come to lie in the run's data folder, named by the sha256 of their content.

So a run can be moved, a picture that several rows share lies there once, and the hash of the prepared rows covers what
the files hold. Each is checked by its modality on the way, so that nothing damaged is met in the middle of training.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from genwright.core import DataError, Dataset, Example, Message, Part, UnknownPlugin, shelves
from genwright.core.home import store

_CHUNK = 1 << 20
_FROM = "files.json"  # beside the rows: where the files came from


class Landing:
    """The files of one preparation. `before` is the folder of an earlier one, whose files are taken over."""

    def __init__(self, folder: Path, before: Path):
        self.folder, self.before = folder, before
        self.facts: dict[str, dict[str, Counter[str]]] = {}  # kind -> what is counted -> value -> files
        self._from: dict[str, list[int]] = {}  # path -> size and time
        self._known: dict[Path, str] = {}  # file name -> suffix, of what has landed

    def land(self, example: Example, base: Path) -> Example:
        """The example with its files in the folder; relative paths lead from `base`. Raises ValueError when a file
        cannot be learned from."""
        if not any(part.kind != "text" for message in self._messages(example) for part in message.parts):
            return example
        return example.with_messages(lambda message: message.with_files(lambda part: self._landed(part, base)))

    def relative(self, path: Path) -> str:
        """How a row names a file: from the folder above."""
        above = self.folder.parent
        return path.relative_to(above).as_posix() if path.is_relative_to(above) else str(path)

    def finish(self, kept: Iterable[Dataset]) -> None:
        """Remove the files of rows that were dropped; note where all came from."""
        if not self.folder.is_dir():
            return
        (self.folder.parent / _FROM).write_text(json.dumps(self._from), encoding="utf-8")
        named = {path for dataset in kept for example in dataset for path in files_of(example)}
        for path in [path for path in self.folder.rglob("*") if path.is_file() and path not in named]:
            path.unlink()

    def as_dict(self) -> dict[str, dict[str, dict[str, int]]]:
        """{"image": {"shorter side": {"64–127 px": 1200}, …}}: what the modality knows of the files that landed."""
        return {
            kind: {name: dict(c.most_common(12)) for name, c in facts.items()} for kind, facts in self.facts.items()
        }

    def _messages(self, example: Example) -> Iterator[Message]:
        yield from example.messages
        yield from (value for value in example.meta.values() if isinstance(value, Message))

    def _landed(self, part: Part, base: Path) -> Part:
        held = (part.meta or {}).get("bytes")
        if held is None and part.path is None:
            raise ValueError(f"a part of kind {part.kind!r} has no file")
        file = held if held is not None else base / part.path  # type: ignore[operator]
        try:
            modality = shelves["modalities"].load(part.kind).modality
            if isinstance(file, Path) and not file.is_relative_to(store()):
                self._from[str(file)] = _stamp(file)
            digest = _digest(file)
            target = self.folder / digest[:2] / digest
            if target not in self._known:
                facts = dict(modality.check(file))
                suffix = facts.pop("suffix", "")
                self._put(file, target.with_name(digest + suffix))
                self._known[target] = suffix
                counted = self.facts.setdefault(part.kind, {})
                for name, value in facts.items():
                    counted.setdefault(name, Counter())[value] += 1
        except (DataError, UnknownPlugin) as error:
            raise ValueError(error.message) from None
        except OSError as error:
            if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
                raise ValueError(f"{part.path} cannot be read: {error.strerror}") from None
            raise
        return Part(part.kind, part.text, target.with_name(digest + self._known[target]))

    def _put(self, file: Path | bytes, target: Path) -> None:
        """Copy it, or link to what is ours and never changes."""
        target.parent.mkdir(parents=True, exist_ok=True)
        before = self.before / target.parent.name / target.name
        if before.is_file() and _linked(before, target):
            return
        if isinstance(file, bytes):
            target.write_bytes(file)
        elif not (file.is_relative_to(store()) and _linked(file, target)):
            shutil.copyfile(file, target)


def is_as_it_was(folder: Path) -> bool:
    """Whether the files that prepared data was made from have the size and the time that they had, or are gone: their
    content is in the run."""
    path = folder / _FROM
    known: dict[str, list[int]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return all(not os.path.exists(name) or _stamp(Path(name)) == stamp for name, stamp in known.items())


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def files_of(example: Example) -> Iterator[Path]:
    """All files of an example."""
    rejected = example.meta.get("rejected")
    for message in (*example.messages, *([rejected] if isinstance(rejected, Message) else [])):
        yield from (part.path for part in message.parts if part.path is not None)


def _digest(file: Path | bytes) -> str:
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _linked(file: Path, target: Path) -> bool:
    try:
        os.link(file, target)
    except OSError:
        return False
    return True
