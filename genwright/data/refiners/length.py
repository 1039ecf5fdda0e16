"""Drop rows whose question or answer is too short or too long, in words or (Chinese, Japanese, Thai …) characters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from genwright.core import Example
from genwright.core import Settings as Base
from genwright.core.words import is_unspaced, side_of


class Settings(Base):
    min_prompt: int = Field(0, ge=0, description="Fewest units of the prompt")
    max_prompt: int | None = Field(None, ge=0, description="Most units of the prompt; null is no bound")
    min_answer: int = Field(1, ge=0, description="Fewest units of the answer")
    max_answer: int | None = Field(None, ge=0, description="Most units of the answer; null is no bound")
    unit: Literal["auto", "words", "characters"] = Field(
        "auto", description="auto: characters where most of the text is written without spaces, else words"
    )


def refine(examples: Iterator[Example], settings: Settings, *, report: Any) -> Iterator[Example]:
    """Words are split at whitespace; characters are counted without it. An answer that is a file has no length."""
    bounds = (
        ("prompt", settings.min_prompt, settings.max_prompt),
        ("answer", settings.min_answer, settings.max_answer),
    )
    for example in examples:
        for side, fewest, most in bounds:
            if (not fewest and most is None) or (side == "answer" and example.answer.has_files):
                continue
            size, unit = _size(side_of(example, side), settings.unit)
            if size < fewest:
                report.drop(example, f"the {side} has fewer than {fewest} {unit}")
                break
            if most is not None and size > most:
                report.drop(example, f"the {side} has more than {most} {unit}")
                break
        else:
            yield example


def _size(text: str, unit: str) -> tuple[int, str]:
    if unit == "auto":
        unit = "characters" if is_unspaced(text) else "words"
    return (sum(not c.isspace() for c in text), unit) if unit == "characters" else (len(text.split()), unit)
