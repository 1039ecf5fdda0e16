"""Parts and messages: the one shape that text, images and sound travel in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Part:
    """A few words, or a file of some modality.

    `kind` is a name on the shelf of modalities, so a new modality edits no core file. `meta` carries what an engine
    knows of the part (class probabilities, log-probabilities) or, of a part just read, the `bytes` of its file; it
    never reaches a prompt.
    """

    kind: str = "text"
    text: str = ""
    path: Path | None = None
    meta: dict[str, Any] | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.text or str(self.path or "")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, by one of `ROLES`."""

    role: str
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The words of the message, without its pictures and sounds.

        >>> user("hello", Part(kind="image", path=Path("cat.png"))).text
        'hello'
        """
        return "".join(part.text for part in self.parts if part.kind == "text")

    @property
    def has_files(self) -> bool:
        return any(part.path is not None for part in self.parts)

    def with_files(self, change: Callable[[Part], Part]) -> Message:
        """The message with each part that is no text changed."""
        if all(part.kind == "text" for part in self.parts):
            return self
        return Message(self.role, tuple(part if part.kind == "text" else change(part) for part in self.parts))

    def as_dict(self, named: Callable[[Path], str] = str) -> dict[str, Any]:
        """OpenAI's shape: `content` is a string when there is one text part, else a list of parts.

        `named` says how a file is written down.
        """
        if len(self.parts) == 1 and self.parts[0].kind == "text":
            return {"role": self.role, "content": self.parts[0].text}
        return {"role": self.role, "content": [_part_dict(part, named) for part in self.parts]}


def user(*parts: str | Part) -> Message:
    return say_as("user", *parts)


def system(*parts: str | Part) -> Message:
    return say_as("system", *parts)


def assistant(*parts: str | Part) -> Message:
    return say_as("assistant", *parts)


def say_as(role: str, *parts: str | Part) -> Message:
    """A message from plain strings and parts."""
    return Message(role, tuple(Part(text=p) if isinstance(p, str) else p for p in parts))


def files_below(folder: Path) -> Callable[[Path], str]:
    """Names of files for a file in `folder`: relative where they lie in it, so that the folder can be moved."""

    def named(path: Path) -> str:
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)

    return named


def found_below(folder: Path, message: Message) -> Message:
    """The message with relative files found in `folder`: what `files_below` undoes."""
    if not message.has_files:
        return message
    return message.with_files(lambda part: replace(part, path=folder / part.path) if part.path else part)


def _part_dict(part: Part, named: Callable[[Path], str]) -> dict[str, Any]:
    if part.kind == "text":
        return {"type": "text", "text": part.text}
    words = {"text": part.text} if part.text else {}
    return {"type": part.kind, "path": named(part.path) if part.path else "", **words}
