"""Parts and messages: the one shape that text, images and sound travel in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Part:
    """A few words, or a file of some modality.

    `kind` is a name on the shelf of modalities, so a new modality edits no core file. `meta` carries what an engine
    knows of the part (class probabilities, log-probabilities); it never reaches a prompt.
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

    def as_dict(self) -> dict[str, Any]:
        """OpenAI's shape: `content` is a string when there is one text part, else a list of parts."""
        if len(self.parts) == 1 and self.parts[0].kind == "text":
            return {"role": self.role, "content": self.parts[0].text}
        return {"role": self.role, "content": [_part_dict(part) for part in self.parts]}


def user(*parts: str | Part) -> Message:
    return say_as("user", *parts)


def system(*parts: str | Part) -> Message:
    return say_as("system", *parts)


def assistant(*parts: str | Part) -> Message:
    return say_as("assistant", *parts)


def say_as(role: str, *parts: str | Part) -> Message:
    """A message from plain strings and parts."""
    return Message(role, tuple(Part(text=p) if isinstance(p, str) else p for p in parts))


def _part_dict(part: Part) -> dict[str, Any]:
    if part.kind == "text":
        return {"type": "text", "text": part.text}
    return {"type": part.kind, "path": str(part.path), **({"text": part.text} if part.text else {})}
