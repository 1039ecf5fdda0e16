"""Drop rows that hold any of some words, such as those of kinds of pictures that a model is not to learn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from genwright.core import Example
from genwright.core import Settings as Base
from genwright.core.words import normal, side_of, tokens


class Settings(Base):
    words: tuple[str, ...] = Field((), description="Words or phrases, whole and without regard to case")
    on: Literal["row", "prompt", "answer"] = Field("prompt", description="Where they are looked for")


def refine(examples: Iterator[Example], settings: Settings, *, report: Any) -> Iterator[Example]:
    """`man` is not in "woman"; `on fire` is in "a house on fire". Scripts without spaces are compared by characters."""
    banned = {word: _spaced(word) for word in settings.words if tokens(word)}
    for example in examples:
        text = _spaced(side_of(example, settings.on))
        found = next((word for word, run in banned.items() if run in text), None)
        if found is None:
            yield example
        else:
            report.drop(example, f"holds {found!r}")


def _spaced(text: str) -> str:
    return f" {' '.join(tokens(normal(text)))} "
